"""Prompt sets: their versions, page and API, and what draws them."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry import prompt_sets
from app.registry.datasets import service as datasets
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import EvaluationResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.tables.prompt_sets import PromptSet
from app.web.runs.prompt_sets_api import ANIMALS
from tests import fake_workers
from tests.app.playground.test_pages import FRAGMENT, HTML
from tests.app.runs.test_evaluations import measured
from tests.app.runs.test_pages import form_of
from tests.fake_workers import FakeTraining

API = "/api/v1"
PAGE = "/prompt-sets"
OTHERS = [*ANIMALS[:-1], "a fox in snow"]
DRAWN = [f"{subject}, chalkboard style" for subject in OTHERS]


def create(client: TestClient, **body: object) -> dict[str, Any]:
    answer = client.post(f"{API}{PAGE}", json={"name": "Animals"} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{API}{PAGE}/{made['id']}"
    return made


@pytest.fixture
def animals(client: TestClient) -> dict[str, Any]:
    """A set of animals in its second version, in which the last one is a fox."""
    made = create(client, subjects=ANIMALS)
    answer = client.patch(f"{API}{PAGE}/{made['id']}", json={"subjects": OTHERS})
    found: dict[str, Any] = answer.json()
    return found


def trained(state: AppState) -> int:
    """A run that ended, on nine images of a fox, with a checkpoint."""
    fake_workers.ready_base(state)
    fake_workers.queued_run(state, fake_workers.dataset(state, pictures=9))
    training = FakeTraining(state)
    training.train(20)
    training.checkpoint()
    training.finish()
    return training.run_id


def text(client: TestClient, address: str = PAGE) -> str:
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == 200
    return " ".join(html.unescape(answer.text).split())


def test_other_subjects_are_a_new_version_and_the_old_one_stays(
    client: TestClient, state: AppState, animals: dict[str, Any]
) -> None:
    assert animals == {
        "id": 1,
        "slug": "animals",
        "name": "Animals",
        "version": 2,
        "subjects": OTHERS,
        "owner": None,
        "visibility": None,
    }
    renamed = client.patch(f"{API}{PAGE}/animals", json={"name": "Beasts", "subjects": OTHERS})
    assert renamed.json() == animals | {"name": "Beasts"}  # the same subjects are no new version
    with state.database.read() as session:
        for reference, version, subjects in (
            (1, 2, OTHERS),
            ("animals", 2, OTHERS),
            ("1@1", 1, ANIMALS),
            ("animals@2", 2, OTHERS),
        ):
            used, found = prompt_sets.find_version(session, reference)
            assert (used.id, used.name, used.version, found) == (1, "Beasts", version, subjects)
        for reference, problem in (
            ("animals@3", "“Beasts” has versions 1 to 2."),
            ("animals@x", "versions 1 to 2"),
            ("plants", "no such prompt set"),
            (9, "no such prompt set"),
        ):
            with pytest.raises(InvalidInput, match=problem) as caught:
                prompt_sets.find_version(session, reference)
            assert list(caught.value.fields) == ["prompt_set"]


@pytest.mark.parametrize(
    ("subjects", "problem"),
    [
        ([], "6 to 40 subjects, not 0"),
        (["", " \n "] * 4, "not 0"),
        (["a cat"], "not 1"),
        ([f"cat {number}" for number in range(41)], "not 41"),
        ([*ANIMALS, "A  BEAR"], "“A BEAR”: it is there twice"),
        ([*ANIMALS, "x" * 1_000_000], f"“{'x' * 40}”: This has 1,000,000 characters"),
        ([*ANIMALS, "a (cat:2)"], "plain words"),
        ([*ANIMALS, "a cat --w 64"], "plain words"),
    ],
)
def test_what_is_no_set_is_refused(state: AppState, subjects: list[str], problem: str) -> None:
    with state.database.write() as session:
        with pytest.raises(InvalidInput, match=re.escape(problem)) as caught:
            prompt_sets.create_set(session, "Animals", subjects)
        assert list(caught.value.fields) == ["subjects"]
        made = prompt_sets.create_set(session, "Animals", [*ANIMALS, ""])
        with pytest.raises(InvalidInput, match=re.escape(problem)):
            prompt_sets.change_set(session, made.key, subjects=subjects)
        assert made.versions == [ANIMALS]


def test_there_are_limits(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_sets, "MAX_SETS", 1)
    monkeypatch.setattr(prompt_sets, "MAX_VERSIONS", 1)
    with state.database.write() as session:
        made = prompt_sets.create_set(session, "Animals", ANIMALS)
        with pytest.raises(Conflict, match="1 prompt sets already"):
            prompt_sets.create_set(session, "More", ANIMALS)
        with pytest.raises(Conflict, match="1 versions"):
            prompt_sets.change_set(session, made.key, subjects=OTHERS)
        with pytest.raises(NotFound):
            prompt_sets.change_set(session, 9, subjects=OTHERS)


def test_subjects_are_proposed_that_a_dataset_does_not_show(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    with state.database.write() as session:
        for image in datasets.trained_images(session, dataset.key):
            image.caption = "two castles"
            session.add(image)
    everything, beside = (create(client, **body)["subjects"] for body in ({}, {"dataset_id": 1}))
    assert len(everything) == len(beside) == 24
    assert {"castle"} == {*everything} - {*beside}
    assert client.post(f"{API}{PAGE}", json={"name": "X", "dataset_id": "no"}).status_code == 404
    for address, listed in ((PAGE, everything), (f"{PAGE}?dataset=chalk", beside)):
        new = client.get(address).text.partition('id="set-1"')[0].partition('id="set-2"')[0]
        assert ">\n" + "\n".join(listed) + "</textarea>" in new


def test_sets_are_listed_deleted_and_restored(
    client: TestClient, state: AppState, animals: dict[str, Any]
) -> None:
    create(client, name="More", subjects=ANIMALS)
    found = client.get(f"{API}{PAGE}?limit=1")
    assert [one["name"] for one in found.json()] == ["More"]
    assert found.headers["x-total-count"] == "2"
    assert client.get(found.links["next"]["url"]).json() == [animals]
    deleted = client.delete(f"{API}{PAGE}/animals").json()
    assert client.get(f"{API}{PAGE}/animals").status_code == 404
    body = {"subjects": ANIMALS}
    assert client.patch(f"{API}{PAGE}/animals", json=body).status_code == 404
    listed = client.get(f"{API}/storage/deleted?kind=prompt_sets").json()
    assert [one["deleted"] for one in listed] == [deleted["deleted"]]
    assert "Deleted prompt sets" in text(client, "/storage/deleted?kind=prompt_sets")
    assert client.post(deleted["restore"]).json() == animals
    assert client.delete(deleted["forever"]).status_code == 409
    client.delete(f"{API}{PAGE}/animals")
    freed = client.delete(deleted["forever"]).json()
    assert freed["title"] == "the prompt set “Animals”"
    with state.database.read() as session:
        assert session.get(PromptSet, 1) is None


def test_the_page_creates_changes_and_deletes_sets(client: TestClient) -> None:
    typed = {"set_id": "0", "name": " Animals ", "subjects": "\r\n".join(ANIMALS)}
    assert "“Animals” has version 1 now." in html.unescape(client.post(PAGE, data=typed).text)
    page = text(client)
    assert f"6 subjects, version 1: <bdi>{', '.join(ANIMALS)}</bdi>" in page
    changed = typed | {"set_id": "1", "subjects": "\n".join(OTHERS)}
    assert "“Animals” has version 2 now." in html.unescape(client.post(PAGE, data=changed).text)
    for values, problem in (
        ({"set_id": "0", "name": "", "subjects": "a cat\n<b>"}, "Enter a name."),
        ({"set_id": "1", "name": "X", "subjects": "a cat\n<b>"}, "6 to 40 subjects, not 2"),
    ):
        refused = client.post(PAGE, data=values, headers={"accept": "text/html"})
        assert refused.status_code == 422
        assert problem in refused.text
        assert "a cat\n&lt;b&gt;" in refused.text  # what was typed
    assert client.post(PAGE, data=changed | {"set_id": "9"}).status_code == 404
    assert "“Animals” was deleted." in html.unescape(client.post(f"{PAGE}/1/delete").text)
    assert "version 2" not in text(client)
    client.post(f"{PAGE}/1/restore")
    assert "6 subjects, version 2" in text(client)


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("/runs/1/evaluations", "/runs/1/evaluation?"),
        ("/adapters/chalk/versions/1/evaluations", "/adapters/chalk/weights?v=1&"),
    ],
)
def test_an_evaluation_draws_a_set_and_keeps_its_name_and_version(
    client: TestClient, state: AppState, animals: dict[str, Any], address: str, page: str
) -> None:
    trained(state)
    assert "no such prompt set" in client.post(API + address, json={"prompt_set": "no"}).text
    used = {"id": 1, "name": "Animals", "version": 2, "named": ["a fox in snow"]}
    prompts = []
    for reference in ("animals", 1):
        order = client.post(API + address, json={"prompt_set": reference, "subjects": 24}).json()
        assert order["prompt_set"] == used
        grid = client.get(f"{API}/grids/{order['grid_id']}").json()
        prompts.append(grid["rows"]["labels"])
    assert prompts[0][: len(DRAWN)] == DRAWN
    assert prompts[0] == prompts[1]
    client.patch(f"{API}{PAGE}/1", json={"name": "Beasts", "subjects": ANIMALS})
    assert "6 subjects of “<bdi>Animals</bdi>”, version 2" in text(client, page)
    assert client.get(f"{API}/evaluations/{order['id']}").json()["prompt_set"] == used
    again = client.post(API + address, json={"prompt_set": "animals@2"}).json()
    assert again["prompt_set"] == used | {"name": "Beasts"}
    assert client.post(API + address, json={"subjects": 6}).json()["prompt_set"] is None

    assert '<option value="1">Beasts, 6 subjects</option>' in text(client, f"{page}new=true")
    client.post(page, data={"prompt_set": "1"})
    newest = client.get(f"{API}/evaluations?limit=1").json()[0]
    assert newest["prompt_set"] == {"id": 1, "name": "Beasts", "version": 3, "named": []}
    refused = client.post(page, data={"prompt_set": "9"}, headers={"accept": "text/html"})
    assert refused.status_code == 422
    assert "no such prompt set" in refused.text


@pytest.mark.parametrize("kind", ["evaluate_run", "evaluate_weights"])
def test_a_result_names_what_of_its_set_is_not_new(
    client: TestClient, state: AppState, animals: dict[str, Any], kind: str
) -> None:
    trained(state)
    of_run = kind == "evaluate_run"
    address = "/runs/1" if of_run else "/adapters/chalk/versions/1"
    client.post(f"{API}{address}/evaluations", json={"prompt_set": 1})
    fake_workers.draw(state)
    result = EvaluationResult(steps=(measured(20, 0.6),)) if of_run else EvaluationResult()
    with state.database.write() as session:
        while claimed := jobs.claim_next(session, IoJob, lease_seconds=60):
            job, claim = claimed
            values = {"result": result.stored()} if job.kind == kind else {}
            jobs.finish(session, IoJob, claim, JobStatus.SUCCEEDED, **values)
    page = text(client, "/runs/1/evaluation" if of_run else "/adapters/chalk/weights?v=1")
    assert "Captions of the images name a fox in snow: on these the style is not new." in page


def test_the_samples_of_a_run_come_from_a_set(
    client: TestClient, state: AppState, animals: dict[str, Any]
) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    many = create(client, name="Many")["subjects"][:8]
    body = {"dataset_id": 1, "prompt_set": "animals"}
    made = client.post(f"{API}/runs", json=body)
    assert made.status_code == 202, made.text
    run = client.get(f"{API}/runs/{made.json()['id']}").json()
    assert run["config"]["sample_prompts"] == DRAWN
    both = body | {"config": {"sample_prompts": ["a cat"]}}
    assert "not both" in client.post(f"{API}/runs", json=both).text
    unknown = client.post(f"{API}/runs", json=body | {"prompt_set": 9})
    assert (unknown.status_code, "prompt_set" in unknown.text) == (422, True)

    form = form_of(client.get("/train/new").text)
    filled = client.post("/train/new/prompts", data=form | {"prompt_set": "2", "name": "Wash"})
    after = form_of(filled.text)
    lines = after["sample_prompts"].splitlines()
    assert lines == [f"{subject}, chalkboard style" for subject in many]
    assert after["name"] == "Wash"
    client.post("/train/new", data=after)
    run = client.get(f"{API}/runs").json()[0]
    assert (run["name"], run["config"]["sample_prompts"]) == ("Wash", lines)


def test_an_axis_of_a_grid_is_filled_with_a_set(
    client: TestClient, state: AppState, animals: dict[str, Any]
) -> None:
    fake_workers.ready_base(state)
    fake_workers.adapter(state, "Chalk")
    page = client.get("/grids/new?adapter=chalk:0.8&prompt=a+fox", headers=HTML).text
    fields = form_of(page, "new-grid") | {"rows-what": "prompt"}
    assert "Prompts of a set" in text(client, "/grids/new?prompt={a|b}")
    for reference, filled in (("1", DRAWN), ("9", ["a fox"]), ("", ["a fox"])):
        asked = fields | {"fill": "rows", "rows-set": reference}
        answer = html.unescape(client.post("/grids/stack", data=asked, headers=FRAGMENT).text)
        assert ">\n" + "\n".join(filled) + "</textarea>" in answer
        assert answer.count(f'value="{filled[-1]}" checked') == 1
