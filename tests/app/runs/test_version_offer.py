"""Training a dataset again: the next version of its adapter, or a new adapter."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.create_version import NewVersion, adapter_of_parent, publish
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.runs.test_pages import HTML, form_of, runs_of

FRAGMENT = {"hx-request": "true"}
ASKED = "Make this version {number} of <bdi>Chalk</bdi>"


@pytest.fixture
def chalk(state: AppState) -> Adapter:
    fake_workers.measured_base(state)
    return fake_workers.adapter(state)


def start(client: TestClient, fields: dict[str, str]) -> int:
    """The status of the form once it was sent."""
    return client.post("/train/new", data=fields, headers=HTML, follow_redirects=False).status_code


def into(state: AppState) -> int | None:
    """The adapter that the newest run makes a version of."""
    with state.database.read() as session:
        return adapter_of_parent(session, runs_of(state)[0])


@pytest.mark.parametrize("address", ["/train/new?dataset=chalk", "/train/new?from=1"])
def test_the_next_version_is_offered_and_chosen(
    client: TestClient, state: AppState, chalk: Adapter, address: str
) -> None:
    page = client.get(address).text
    assert ASKED.format(number=2) in page
    fields = form_of(page)
    assert fields["adapter_id"] == str(chalk.key)
    assert start(client, fields) == 303
    assert into(state) == chalk.key
    again = client.get(address).text  # while the first waits
    assert ASKED.format(number=3) in again
    assert "1 run for it has not ended; versions are numbered as they end." in again
    assert "becomes the next version of “Chalk”" in client.get("/runs/2").text


def test_without_the_tick_and_in_the_api_a_new_adapter_is_made(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    fields = form_of(client.get("/train/new?dataset=chalk").text)
    del fields["adapter_id"]
    updated = client.post("/train/new/plan?part=fields", data=fields, headers=FRAGMENT).text
    assert "Make this version 2" in updated
    assert " checked" not in updated.partition('id="adapter_id"')[2].partition(">")[0]
    assert start(client, fields) == 303
    assert into(state) is None
    made = client.post("/api/v1/runs", json={"dataset_id": 1, "preset": "quick"})
    assert made.status_code == 202
    assert into(state) is None


@pytest.mark.parametrize("what", ["another trigger word", "another base", "deleted", "unlisted"])
def test_only_an_adapter_like_it_is_offered(
    client: TestClient, state: AppState, chalk: Adapter, what: str
) -> None:
    with state.database.write() as session:
        if what == "another trigger word":
            session.get_one(Dataset, 1).trigger_word = "slate"
        elif what == "another base":
            session.get_one(AdapterVersion, 1).base_model_id = None
        elif what == "unlisted":
            session.get_one(Adapter, chalk.key).run_id = 1
        else:
            adapters.delete_adapter(session, chalk.key)
    page = client.get("/train/new?dataset=chalk").text
    assert "Make this version" not in page
    assert "adapter_id" not in form_of(page)


def test_the_newest_of_several_adapters_is_offered(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    with state.database.write() as session:
        first = session.get_one(AdapterVersion, 1)
        taken = first.model_dump(
            include={"base_model_id", "dataset_version_id", "trigger_words", "rank", "alpha"}
        )
        new = NewVersion("Chalk two", "sd1", "c" * 64, 5, **taken)
        key = publish(session, new).adapter_id
    assert form_of(client.get("/train/new?dataset=chalk").text)["adapter_id"] == str(key)
    named = client.get(f"/train/new?dataset=chalk&adapter={chalk.key}").text
    assert form_of(named)["adapter_id"] == str(chalk.key)


def test_an_adapter_deleted_meanwhile_is_named_and_the_form_is_kept(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    fields = form_of(client.get("/train/new?dataset=chalk").text) | {"name": "Typed"}
    with state.database.write() as session:
        adapters.delete_adapter(session, chalk.key)
    answer = client.post("/train/new", data=fields, headers=HTML)
    assert answer.status_code == 422
    assert "“Chalk” was deleted." in answer.text
    assert "The run makes a new adapter if you start it now." in answer.text
    kept = form_of(answer.text)
    assert kept["name"] == "Typed"
    assert start(client, kept) == 303
    assert into(state) is None


def test_another_base_chosen_in_between_asks_again(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    fields = form_of(client.get(f"/train/new?from=1&adapter={chalk.key}").text)
    with state.database.write() as session:
        session.get_one(AdapterVersion, 1).base_model_id = None
    answer = client.post("/train/new", data=fields | {"offer": "1:1:sd15"}, headers=HTML)
    assert answer.status_code == 422
    assert "The dataset or the base model was changed after this was chosen." in answer.text
    assert "Its versions so far are for another base model." in answer.text
    asked = form_of(answer.text)
    assert "adapter_id" not in asked  # not chosen for another base
    assert start(client, asked | {"adapter_id": str(chalk.key)}) == 303
    assert into(state) == chalk.key


def test_a_form_from_before_the_question_keeps_its_meaning(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    fields = form_of(client.get("/train/new?dataset=chalk").text)
    for name in ("offer", "adapter_id"):
        del fields[name]
    assert start(client, fields) == 303
    assert into(state) is None
    older = {"dataset_id": "1", "adapter_id": str(chalk.key), "steps": "41", "gone": "1"}
    older |= {"shown": '{"steps": "40", "gone": "2"}', "preset": "quick", "base_model": "starter"}
    assert start(client, older) == 303
    assert into(state) == chalk.key
    assert runs_of(state)[0].config["steps"] == 41


def test_two_runs_for_one_adapter_make_two_versions_in_the_order_of_their_ends(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    for _ in range(2):
        assert start(client, form_of(client.get("/train/new?dataset=chalk").text)) == 303
    first, second = fake_workers.FakeTraining(state), fake_workers.FakeTraining(state)
    for training in (second, first):
        training.train(40)
        training.finish()
    with state.database.read() as session:
        made = {row.run_id: row for row in adapters.list_versions(session, chalk.key)}
        numbers = [made[training.run_id].version for training in (second, first)]
        assert numbers == [2, 3]
        assert session.get_one(Run, first.run_id).adapter_version_id == made[first.run_id].key


def test_a_continued_run_says_what_it_becomes(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    page = client.get("/train/new?from=1&checkpoint=20").text
    assert "This becomes version 2 of" in page
    assert "adapter_id" not in form_of(page)
