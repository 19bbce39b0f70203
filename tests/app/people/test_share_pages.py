"""The panel and the API with which a person shares what is theirs."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.actor import Visibility, acting_as
from app.registry.datasets.service import create_dataset
from app.registry.people.service import principal_of
from app.registry.tables.renders import Grid, GridCell, Render
from tests.app.people.conftest import ClientOf, find_person, state_of, working_as

PANEL, SHARING = "/share/dataset/1", "/api/v1/sharing/dataset/1"
FRAGMENT = {"hx-request": "true"}


@pytest.fixture
def ana(people_app: FastAPI, client_of: ClientOf) -> TestClient:
    """Ana, with a dataset of hers that everybody sees."""
    principal = principal_of(find_person(people_app, "Ana"), makes=Visibility.STUDIO)
    with acting_as("test", principal), state_of(people_app).database.write() as session:
        create_dataset(session, "Prints")
    return client_of("Ana")


def test_the_owner_opens_the_panel_and_the_choice_is_saved(
    ana: TestClient, client_of: ClientOf
) -> None:
    ben = client_of("Ben")
    page = ana.get("/datasets/prints").text
    assert f'hx-get="{PANEL}"' in page
    panel = ana.get(PANEL, headers=FRAGMENT).text
    assert 'value="studio" id="share-studio" checked' in panel
    answer = ana.post(PANEL, data={"visibility": "private"}, headers=FRAGMENT)
    assert answer.status_code == 200
    assert 'id="share-private" checked' in answer.text
    assert "What others made from it before stays theirs" in answer.text
    assert "What others made from it before" not in panel
    assert '<input type="hidden" name="visibility" value="studio">' in answer.text  # of Undo
    assert "private</span>" in ana.get("/datasets").text
    assert ben.get("/datasets/prints").status_code == 404
    assert ana.post(PANEL, data={"visibility": "studio"}).headers["location"] == PANEL
    assert "by <bdi>Ana</bdi> · studio" in ben.get("/datasets/prints").text


def test_a_person_is_added_may_edit_and_goes(ana: TestClient, client_of: ClientOf) -> None:
    ana.post(PANEL, data={"visibility": "private"})
    ben = client_of("Ben")
    added = ana.post(PANEL, data={"name": "Ben", "edits": "see"}, headers=FRAGMENT).text
    assert 'name="edits" value="none">' in added  # what Undo sends
    assert "by <bdi>Ana</bdi> · shared with you" in ben.get("/datasets/prints").text
    assert ben.post("/datasets/prints", data={"name": "Mine"}).status_code == 403
    assert 'value="edit"' in added
    to_viewer = ana.post(PANEL, data={"name": "Vic", "edits": "see"}, headers=FRAGMENT).text
    assert to_viewer.count('value="edit"') == added.count('value="edit"')  # only Ben may
    ana.post(PANEL, data={"name": "ben", "edits": "edit"})
    assert ben.post("/datasets/prints", data={"name": "Mine"}).status_code == 303
    ana.post(PANEL, data={"name": "Ben", "edits": "none"})
    assert ben.get("/datasets/prints").status_code == 404


def test_undo_is_offered_only_if_it_restores_what_goes_along(
    ana: TestClient, people_app: FastAPI
) -> None:
    """A grid and two images of it; `differ` sets one of the images apart before the change."""
    state = state_of(people_app)
    with working_as(people_app, "Ana"), state.database.write() as session:
        settings = {"prompt": "p", "seed": 1, "steps": 1, "guidance": 1, "width": 8, "height": 8}
        renders = [Render(base_model_id=1, cache_key=f"{n}", **settings) for n in range(2)]
        session.add_all([Grid(title="g", request={}, axes=[]), *renders])
        session.flush()
        session.add_all(
            GridCell(grid_id=1, place=n, render_id=row.id, cache_key=row.cache_key)
            for n, row in enumerate(renders)
        )
    lacking = "Saved, without Undo: its runs, grids or images had other settings."
    changes = (
        ("/share/render/1", "/share/grid/1", {"visibility": "private"}),
        ("/share/render/1", "/share/grid/1", {"name": "Ben", "edits": "edit"}),
    )
    for one, whole, fields in changes:
        ana.post(one, data=fields)  # the image now differs from its grid
        answers = [ana.post(whole, data=fields, headers=FRAGMENT).text for _ in range(2)]
        assert [lacking in text for text in answers] == [True, False]
        assert [">Undo</button>" in text for text in answers] == [False, True]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "Nobody", "edits": "see"}, "There is no person with this name."),
        ({"name": "Ana", "edits": "see"}, "This belongs to Ana already."),
        ({"name": "Vic", "edits": "edit"}, "Vic is a viewer, who changes nothing."),
        ({}, "There is no person with this name."),
    ],
)
def test_what_cannot_be_shared_is_said_in_the_panel(
    ana: TestClient, fields: dict[str, str], sentence: str
) -> None:
    answer = ana.post(PANEL, data=fields, headers=FRAGMENT)
    assert answer.status_code == 422
    assert sentence in answer.text


def test_others_see_whose_it_is_and_change_nothing(ana: TestClient, client_of: ClientOf) -> None:
    ben = client_of("Ben")
    assert "It belongs to <bdi>Ana</bdi>" in ben.get(PANEL).text
    assert ben.post(PANEL, data={"visibility": "private"}).status_code in (403, 422)
    assert ben.get("/share/dataset/2").status_code == 404
    assert ben.get("/share/io_job/1").status_code == 404
    assert "private" not in ana.get("/datasets").text


def test_a_program_reads_and_sets_who_sees_a_thing(ana: TestClient, client_of: ClientOf) -> None:
    program = client_of("Ana", "write")
    body = {"visibility": "private", "shares": [{"name": "Ben", "may_edit": True}]}
    expected = body | {"owner": "Ana", "may_edit": True, "may_own": True, "sources": []}
    assert program.put(SHARING, json=body).json() == expected
    assert program.get(SHARING).json() == expected
    seen = client_of("Ben", "read").get(SHARING).json()
    assert seen == expected | {"shares": [], "may_own": False}
    program.put(SHARING, json={"visibility": "private", "shares": []})
    assert client_of("Ben", "read").get(SHARING).status_code == 404
    wrong = program.put(SHARING, json=body | {"shares": [{"name": "Nobody"}]})
    assert (wrong.status_code, wrong.json()["detail"]) == (
        422,
        "There is no person with this name.",
    )
    assert client_of("Ben", "write").put(SHARING, json=body).status_code in (403, 404)


def test_without_accounts_there_is_no_panel(client: TestClient) -> None:
    for path in (PANEL, SHARING):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "This server has no accounts" in answer.text


def test_a_list_has_only_what_is_mine_or_of_others(ana: TestClient, client_of: ClientOf) -> None:
    ben = client_of("Ben")
    ben.post("/datasets", data={"name": "Boats"})
    for client, whose, shown in (
        (ana, "mine", {"prints"}),
        (ana, "shared", {"boats"}),
        (ben, "mine", {"boats"}),
        (ben, "", {"prints", "boats"}),
    ):
        page = client.get(f"/datasets?whose={whose}").text
        found = {slug for slug in ("prints", "boats") if f'href="/datasets/{slug}"' in page}
        assert found == shown
