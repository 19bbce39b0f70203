"""The result of a training becomes the version in use, or not, as chosen or as proposed."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.runs import progress
from app.registry.runs.requests import RunRequest, create_run
from app.registry.runs.service import run_samples
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from tests import fake_workers
from tests.fake_workers import FakeTraining
from worker.core.training.presets import Preset

HTML = {"accept": "text/html"}


@pytest.fixture
def training(client: TestClient, state: AppState) -> FakeTraining:
    """Run 2, which trains the next version of Chalk, whose version 1 has 40 steps."""
    adapter = fake_workers.adapter(state)
    with state.database.write() as session:
        config = {"steps": 40, "sample_prompts": ["a castle", "a rocket"]}
        request = RunRequest(1, preset=Preset.QUICK, config=config, adapter_id=adapter.key)
        create_run(session, request)
    found = FakeTraining(state)
    found.sample(0)
    return found


def in_use(state: AppState) -> tuple[int, str | None]:
    """The number of the version of Chalk in use, and the cover."""
    with state.database.read() as session:
        adapter = session.get_one(Adapter, 1)
        return adapters.get_version(session, adapter).version, adapter.cover_sha256


def live_address(client: TestClient) -> str:
    found = re.search(r'hx-get="([^"]+/live[^"]+)"', client.get("/runs/2").text)
    assert found is not None
    return html.unescape(found[1])


def test_a_result_of_few_steps_is_proposed_not_to_become_the_version_in_use(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.train(7)
    training.sample(7)
    page = html.unescape(client.get("/runs/2/stop").text)
    assert 'value="no" checked' in page
    assert "It has 7 steps, and version 1, which is in use, has 40." in page
    live, before = live_address(client), in_use(state)
    assert client.post("/api/v1/runs/2/stop").json()["make_latest"] is None
    training.finish()
    assert in_use(state) == before
    toast = html.unescape(client.get(live).text)
    assert "Version 2 of “Chalk” was made; version 1 stays in use. It has 7 steps" in toast
    undo = re.search(r'action="(/adapters/chalk/versions/2/use\?[^"]+)"', toast)
    assert undo is not None
    assert client.post(undo[1], follow_redirects=False).headers["location"] == "/runs/2"
    assert in_use(state)[0] == 2
    assert undo[1] not in html.unescape(client.get("/runs/2").text)


@pytest.mark.parametrize(
    ("steps", "used", "text", "button"),
    [
        (19, 1, "version 1 stays in use. It has 19 steps", "Use this version"),
        (20, 2, "is in use now, in place of version 1.", "Use version 1 again"),
    ],
)
def test_a_run_that_ends_by_itself_says_which_version_is_in_use_and_offers_the_other(
    client: TestClient,
    training: FakeTraining,
    state: AppState,
    steps: int,
    used: int,
    text: str,
    button: str,
) -> None:
    training.train(steps)
    training.sample(steps)
    live = live_address(client)
    training.finish()
    assert in_use(state)[0] == used
    for page in (client.get(live).text, client.get("/runs/2").text):
        assert text in page
        assert f'<button class="button">{button}</button>' in page
    assert 'class="toast"' in client.get(live).text


def test_samples_that_equal_those_of_the_base_are_a_reason_too(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.train(30)
    assert 'value="yes" checked' in client.get("/runs/2/stop").text
    training.sample(30)
    assert 'value="yes" checked' in client.get("/runs/2/stop").text
    with state.database.write() as session:
        rows = run_samples(session, 2)
        base = {row.prompt_index: row.sha256 for row in rows if row.step == 0}
        for row in rows:
            row.sha256 = base[row.prompt_index]
            session.add(row)
    page = client.get("/runs/2/stop").text
    assert 'value="no" checked' in page
    assert "Its samples equal those of the base model." in page


def test_the_choice_is_remembered_until_the_result_is_stored(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.train(7)
    live = live_address(client)
    answer = client.post("/runs/2/stop", data={"make_latest": "yes"}, follow_redirects=False)
    assert answer.headers["location"] == "/runs/2"
    assert client.get("/api/v1/runs/2").json()["make_latest"] is True
    training.finish()
    assert in_use(state)[0] == 2
    toast = html.unescape(client.get(live).text)
    assert "Version 2 of “Chalk” is in use now, in place of version 1." in toast
    assert 'action="/adapters/chalk/versions/1/use?back=' in toast


def test_a_good_result_can_be_kept_out_of_use(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.train(30)
    before = in_use(state)
    client.post("/api/v1/runs/2/stop", json={"make_latest": False})
    training.finish()
    assert in_use(state) == before
    assert "As chosen when the run was stopped." in client.get("/runs/2").text


def test_the_first_version_needs_no_choice_and_an_ended_run_has_none(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = FakeTraining(state)
    training.train(3)
    page = client.get("/runs/1/stop").text
    assert "The result becomes a new adapter." in page
    assert "make_latest" not in page
    client.post("/api/v1/runs/1/stop", json={"make_latest": False})
    training.finish()
    assert in_use(state)[0] == 1
    ended = client.get("/runs/1/stop", follow_redirects=False)
    assert (ended.status_code, ended.headers["location"]) == (303, "/runs/1")
    assert client.post("/runs/1/stop", headers=HTML).status_code == 409


def test_a_ruined_result_stays_out_of_use_whatever_was_chosen(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    training.train(30)
    client.post("/api/v1/runs/2/stop", json={"make_latest": True})
    training.finish(ruined="The loss is high.")
    assert in_use(state)[0] == 1


def test_a_high_loss_offers_to_cancel_first_then_the_last_good_checkpoint(
    client: TestClient, training: FakeTraining, state: AppState
) -> None:
    def measure(step: int, loss: float) -> None:
        with state.database.write() as session:
            progress.add_measures(session, training.claim, step, {progress.FIXED_LOSS: loss})

    measure(0, 1.0)
    for step, loss in ((10, 0.8), (20, 2.4)):
        training.train(10)
        training.checkpoint()
        measure(step, loss)
    with state.database.write() as session:
        progress.write_progress(session, training.claim, {"loss_rise": 2.4})
    page = client.get("/runs/2").text
    assert "The checkpoint at step 10 was not worse than the base model." in page
    places = [
        page.index(f'id="{name}"') for name in ("cancel-high-loss", "use-good", "stop-high-loss")
    ]
    assert places == sorted(places)
    assert 'action="/runs/2/checkpoints/10/use"' in page
