"""The embedded base model, from one version of Brushwork to the next, with an old data folder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

import app.registry.base_models.service as embedded
from app.registry.base_models.service import find_base_model, inspect_embedded, require_ready
from app.registry.errors import InvalidInput
from app.registry.runs.rerun import train_again
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel, ModelStatus
from tests import fake_workers
from tests.conftest import embedded_info
from worker.core.bases.family import BaseModelError

OLDER = "a" * 64
SENTENCE = "“starter (64 px)” is no longer shipped with Brushwork"
MARK = "base no longer shipped"


@dataclass(frozen=True)
class OldData:
    """The data of an older version: its base model, and things made with it."""

    base_id: int
    adapter: str
    run: int
    queued: int
    render: int


@pytest.fixture
def old(client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch) -> OldData:
    """A data folder of a version that embedded another base model of 64 px."""
    monkeypatch.setattr(embedded, "find_damage", lambda: None)
    with state.database.write() as session:
        base = find_base_model(session, "starter")
        base.resolution, base.parameters = 64, {"unet": 9_000_000}
        session.add(base)
    adapter = fake_workers.adapter(state)
    asked = {"prompt": "castle", "seed": 1, "adapters": [{"adapter_id": adapter.key}]}
    render = client.post("/api/v1/renders", json=asked).json()["id"]
    fake_workers.draw(state)
    queued = fake_workers.queued_run(state, fake_workers.dataset(state, "More"))
    with state.database.write() as session:
        base = find_base_model(session, "starter")
        base.fingerprint = OLDER  # at last, because nothing is made with it from now on
        session.add(base)
    return OldData(base.key, adapter.slug, queued.key - 1, queued.key, render)


def start_new_version(state: AppState) -> None:
    """Do the web server's work at its start."""
    with state.database.write() as session:
        inspect_embedded(session)


def test_the_new_base_is_a_row_of_its_own(old: OldData, state: AppState) -> None:
    start_new_version(state)
    with state.database.read() as session:
        new = find_base_model(session, "starter")
        before = session.get_one(BaseModel, old.base_id)
    assert new.key != old.base_id
    assert (new.name, new.status) == ("starter", "ready")
    assert new.fingerprint == embedded_info().fingerprint
    assert (before.name, before.slug, before.fingerprint) == (
        "starter (64 px)",
        "starter-64-px",
        OLDER,
    )
    assert before.is_retired
    start_new_version(state)  # once is enough
    with state.database.read() as session:
        assert len(session.exec(select(BaseModel)).all()) == 2


def test_the_new_base_is_offered_before_those_that_were_added_earlier(
    old: OldData, state: AppState, client: TestClient
) -> None:
    with state.database.write() as session:
        mine = BaseModel(slug="mine", name="mine", source="/models/mine", status="ready")
        session.add(mine)
    start_new_version(state)
    shown = [row["name"] for row in client.get("/api/v1/base-models").json()]
    assert shown == ["starter", "mine", "starter (64 px)"]
    assert '<option value="starter" selected data-words' in client.get("/train/new").text


def test_what_was_made_with_the_old_base_is_listed_and_marked(
    old: OldData, state: AppState, client: TestClient
) -> None:
    pages = [f"/adapters/{old.adapter}", f"/runs/{old.run}", f"/renders/{old.render}"]
    for page in pages:
        assert MARK not in client.get(page).text
    start_new_version(state)
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200
        assert MARK in answer.text
        assert "starter (64 px)" in answer.text
    assert old.adapter in client.get("/adapters").text
    row = client.get("/base-models").text.partition("starter (64 px)")[2]
    assert "No longer shipped" in row
    assert "Its adapters, runs and images stay." in row
    retired = [row for row in client.get("/api/v1/base-models").json() if row["retired"]]
    assert [(row["id"], row["status"]) for row in retired] == [(old.base_id, "removed")]
    assert SENTENCE in retired[0]["error"]
    assert client.get(f"/api/v1/base-models/{old.base_id}").json() == retired[0]


def test_an_old_adapter_is_downloaded_as_before(
    old: OldData, state: AppState, client: TestClient
) -> None:
    link = "/api/v1/adapters/1/download?format=kohya&dtype=fp16"
    before = client.get(link)
    start_new_version(state)
    after = client.get(link)
    assert (after.status_code, after.content) == (200, before.content)  # stored, not written anew


def test_a_base_that_nothing_was_made_with_is_not_listed(
    state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_damage", lambda: None)
    with state.database.write() as session:
        find_base_model(session, "starter").fingerprint = OLDER
    start_new_version(state)
    assert [row["name"] for row in client.get("/api/v1/base-models").json()] == ["starter"]


@pytest.mark.parametrize("is_started", [True, False])
def test_nothing_new_is_made_with_the_old_base(
    old: OldData, state: AppState, client: TestClient, is_started: bool
) -> None:
    """Neither after the start of the new version, nor in the moment before."""
    if is_started:
        start_new_version(state)
    requests = {
        "/api/v1/renders": {"prompt": "castle", "adapters": [{"adapter_id": 1}]},
        "/api/v1/runs": {"dataset_id": 1, "base_model": old.base_id},
        "/api/v1/base-models/extract": {"name": "M", "base": old.base_id, "tuned": old.base_id},
        "/api/v1/adapters/1/fuse": {"name": "Fused"},
    }
    for address, body in requests.items():
        answer = client.post(address, json=body)
        assert answer.status_code == 422, (address, answer.text)
        assert "is no longer shipped" in answer.text, address
    with state.database.write() as session, pytest.raises(InvalidInput, match="no longer shipped"):
        train_again(session, old.run)


def test_the_playground_says_that_an_old_adapter_has_no_base(
    old: OldData, state: AppState, client: TestClient
) -> None:
    start_new_version(state)
    page = client.get(f"/play?adapter={old.adapter}:1").text
    assert "which is no longer shipped. No base model here fits it." in page
    with state.database.write() as session:  # somebody added the old files by their path
        session.add(
            BaseModel(
                slug="old",
                name="old files",
                source="/models/old",
                status=ModelStatus.READY,
                family="sd1",
                resolution=64,
                parameters={"unet": 9_000_000},
            )
        )
    page = client.get(f"/play?adapter={old.adapter}:1").text
    assert "no longer shipped" not in page


def test_an_old_run_is_trained_again_on_the_base_of_today(
    old: OldData, state: AppState, client: TestClient
) -> None:
    start_new_version(state)
    page = client.get(f"/train/new?from={old.run}").text
    assert '<option value="starter" selected data-words' in page
    assert "starter-64-px" not in page


def test_the_older_version_takes_its_row_back(old: OldData, state: AppState) -> None:
    start_new_version(state)
    with state.database.write() as session:  # as if the files of the retired one were back
        base, newer = session.get_one(BaseModel, old.base_id), find_base_model(session, "starter")
        base.source = f"starter@{embedded_info().fingerprint[:12]}"
        newer.fingerprint = "b" * 64
        newer_id = newer.key
    start_new_version(state)
    with state.database.read() as session:
        again = find_base_model(session, "starter")
        assert again.key == old.base_id
        assert (again.status, again.slug) == ("ready", "starter")
        assert session.get_one(BaseModel, newer_id).is_retired


def test_damaged_files_retire_nothing(
    old: OldData, state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_damage", lambda: "unet/model.safetensors is damaged.")
    start_new_version(state)
    assert "unet/model.safetensors is damaged." in client.get("/base-models").text
    with state.database.read() as session:
        base = find_base_model(session, "starter")
        assert (base.key, base.status) == (old.base_id, "failed")
        with pytest.raises(InvalidInput, match="is damaged"):
            require_ready(base)


def test_a_base_without_files_fails_until_they_are_back(
    state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: object) -> None:
        raise BaseModelError("The base model is incomplete: unet/ has no weights.")

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "inspect_base", missing)
        start_new_version(state)
    assert "unet/ has no weights" in client.get("/base-models").text
    answer = client.post("/api/v1/renders", json={"prompt": "castle"})
    assert answer.status_code == 422
    assert "unet/ has no weights" in answer.text
    start_new_version(state)
    assert client.post("/api/v1/renders", json={"prompt": "castle"}).status_code == 202
