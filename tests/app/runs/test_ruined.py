"""A run whose result is worse than the base model: its page, the list, the API, its version."""

from __future__ import annotations

import html
import re

from fastapi.testclient import TestClient

from app.registry.adapters.service import get_version
from app.registry.deletion.adapters import discard_version
from app.registry.runs import progress
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.fake_workers import FakeTraining

REASON = "The loss on fixed images is 1.200, and 0.400 without the adapter."


def ruined_run(state: AppState, *, adapter_id: int | None = None) -> FakeTraining:
    """A run of 30 steps with checkpoints at 10 and 20; only those were not ruined."""
    run = fake_workers.queued_run(state, fake_workers.dataset(state, f"Chalk {adapter_id}"))
    with state.database.write() as session:
        session.get_one(Run, run.key).adapter_id = adapter_id
    training = FakeTraining(state)
    for step in (10, 20, 30):
        training.train(10)
        training.checkpoint()
        training.sample(step)
    training.finish(ruined=REASON, good_steps=[25, 20, 10])
    return training


def text_of(page: str, element: str) -> str:
    """The text in an element, given by its id, up to the next section."""
    start = page.index(f'id="{element}"')
    words = re.sub("<[^>]+>", " ", page[start : page.index('class="columns"', start)])
    return " ".join(html.unescape(words).split())


def test_a_ruined_run_says_why_everywhere(client: TestClient, state: AppState) -> None:
    run_id = ruined_run(state).run_id
    page = client.get(f"/runs/{run_id}").text
    shown = text_of(page, "run-warnings")
    assert "This run is ruined: its result is worse than the base model." in shown
    assert REASON in shown
    head = page[page.index('id="run-head"') : page.index('id="run-progress"')]
    assert "Ruined</span>" in head
    assert "Finished</span>" not in head
    assert "Trained 30 steps, ruined" in page
    assert "Ruined</span>" in client.get("/runs").text
    found = client.get(f"/api/v1/runs/{run_id}").json()
    assert (found["status"], found["outcome"], found["outcome_reason"]) == (
        "succeeded", "ruined", REASON,
    )  # fmt: skip
    assert found["good_steps"] == [25, 20, 10]
    adapter = client.get(f"/api/v1/adapters/{found['adapter_id']}").json()
    assert (adapter["version"], adapter["ruined"]) == (1, REASON)
    for address in ("/", "/adapters", f"/adapters/{adapter['slug']}"):
        assert "ruined</span>" in client.get(address).text
    assert "Version 1 is ruined" in client.get(f"/adapters/{adapter['slug']}").text


def test_the_last_good_checkpoint_that_is_kept_is_offered_and_used(
    client: TestClient, state: AppState
) -> None:
    run_id = ruined_run(state).run_id
    page = client.get(f"/runs/{run_id}").text
    assert "The checkpoint at step 20 was not worse" in text_of(page, "run-warnings")
    (use,) = re.findall(r'action="([^"]+/use)"[^>]*><button class="button" id="use-good"', page)
    assert client.post(use).status_code == 200
    page = client.get(f"/runs/{run_id}").text
    assert "step 20 in use" in text_of(page, "run-warnings")
    adapter = client.get("/api/v1/adapters").json()[0]
    assert (adapter["version"], adapter["versions"], adapter["ruined"]) == (2, 2, None)


def test_a_ruined_version_does_not_become_the_one_in_use(
    client: TestClient, state: AppState
) -> None:
    sound = fake_workers.adapter(state)
    cover = sound.cover_sha256
    ruined_run(state, adapter_id=sound.key)
    found = client.get(f"/api/v1/adapters/{sound.key}").json()
    assert (found["version"], found["versions"], found["ruined"]) == (1, 2, None)
    assert (found["cover_url"] or "").endswith(cover or "")
    versions = client.get(f"/api/v1/adapters/{sound.key}/versions").json()
    assert [(row["version"], row["ruined"], row["aliases"]) for row in versions] == [
        (2, REASON, []),
        (1, None, ["latest"]),
    ]


def test_latest_goes_back_to_a_version_that_is_not_ruined(state: AppState) -> None:
    sound = fake_workers.adapter(state)
    ruined_run(state, adapter_id=sound.key)
    run = fake_workers.queued_run(state, fake_workers.dataset(state, "Third"))
    with state.database.write() as session:
        session.get_one(Run, run.key).adapter_id = sound.key
    third = FakeTraining(state)
    third.train(5)
    third.finish()
    with state.database.write() as session:
        discard_version(session, sound.key, 3)
    with state.database.read() as session:
        assert get_version(session, sound).version == 1


def test_a_high_loss_warns_while_the_run_trains_and_offers_to_stop(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = FakeTraining(state)
    training.train(10)
    address = f"/runs/{run.key}"
    seen = re.search(r'hx-get="([^"]+/live[^"]+)"', client.get(address).text)
    assert seen is not None
    live = html.unescape(seen[1])
    assert 'id="run-warnings"' not in client.get(live).text
    with state.database.write() as session:
        progress.write_progress(session, training.claim, {"loss_rise": 3.04})
        progress.add_measures(session, training.claim, 10, {progress.FIXED_LOSS: 1.2})
    changed = client.get(live).text
    assert "The loss on fixed images is 3.0 times that of the base model." in changed
    assert 'id="stop-high-loss"' in changed
    assert client.get(f"/api/v1{address}").json()["loss_rise"] == 3.04
    measured = client.get(f"/api/v1{address}/metrics?after=10").json()["series"]["fixed_loss"]
    assert measured == {"steps": [10], "values": [1.2000000476837158]}
    client.post(f"{address}/stop")
    assert 'id="stop-high-loss"' not in client.get(address).text


def test_a_rate_far_above_the_preset_warns_on_the_form_and_in_the_api(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    body = {"dataset_id": dataset.key, "preset": "quick", "config": {"learning_rate": 0.06}}
    answer = client.post("/api/v1/runs", json=body).json()
    assert any(text.startswith("Learning rate 0.06 is 30 times") for text in answer["warnings"])
    run_id = answer["id"]
    assert "Learning rate 0.06 is 30 times" in client.get(f"/train/new?from={run_id}").text
