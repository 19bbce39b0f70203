"""The chart of a run as its page sends it: marks, table and description."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from app.registry.runs import progress
from app.registry.runs.progress import MetricPoints
from app.registry.state import AppState
from app.registry.tables.runs import Sample
from tests import fake_workers


def marks_of(page: str) -> dict[str, str]:
    """The addresses of the marks by their labels."""
    links = re.findall(r'<a class="chart-mark[^>]* href="([^"]+)" aria-label="([^"]+)"', page)
    return {label: href for href, label in links}


def test_each_step_with_samples_or_a_checkpoint_has_a_mark_that_leads_to_it(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state), steps=2_000)
    training = fake_workers.FakeTraining(state)
    training.sample(0)
    training.train(20)
    training.checkpoint(requested=True)
    training.train(20)
    training.checkpoint()
    training.sample(40)
    training.train(10)
    training.sample(50)
    assert marks_of(client.get(f"/runs/{run.key}").text) == {
        "Step 20, checkpoint without samples, kept by you": "#step-20",
        "Step 40, samples and checkpoint": "#step-40",
        "Step 50, samples": "#step-50",
    }
    with state.database.write() as session:
        for step in range(60, 251):
            sha256 = fake_workers.blob(state, b"castle")
            row = Sample(
                run_id=run.key, step=step, prompt_index=0, prompt="castle", seed=0, sha256=sha256
            )
            session.add(row)
    marks = marks_of(client.get(f"/runs/{run.key}").text)
    assert 30 < len(marks) <= 49
    assert "Step 250, samples" in marks
    assert marks["Step 20, checkpoint without samples, kept by you"] == (
        f"/runs/{run.key}?before=21#step-20"
    )


def test_marks_are_sent_again_only_when_they_changed(client: TestClient, state: AppState) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.sample(10)

    def ask(page: str) -> str:
        address = re.search(r'hx-get="(/runs/\d+/live[^"]+)"', page)
        assert address
        return client.get(address[1].replace("&amp;", "&")).text

    first = ask(client.get(f"/runs/{run.key}").text)
    assert 'id="run-marks"' not in first
    training.checkpoint()
    second = ask(first)
    assert marks_of(second) == {"Step 10, samples and checkpoint": "#step-10"}
    assert 'id="run-marks"' not in ask(second)


def test_the_learning_rate_is_in_the_table_and_the_description(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(4)
    page = client.get(f"/runs/{run.key}").text
    assert '<th class="number" scope="col">Learning rate</th>' in page
    assert '<td class="number">2.5e-4</td>' in page  # step 1 of 8 steps of warmup to 0.002
    assert "Learning rate 0.001 at step 4, its highest." in page
    with state.database.write() as session:
        halved = MetricPoints(5, {"loss": [0.1, 0.1], "learning_rate": [5e-4, 2e-5]})
        progress.write_progress(session, training.claim, {"step": 6}, halved)
    page = client.get(f"/runs/{run.key}").text
    assert "Learning rate 2e-5 at step 6; highest 0.001 at step 4." in page


def test_a_run_of_before_learning_rates_were_recorded_has_the_loss_alone(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    with state.database.write() as session:
        points = MetricPoints(1, {"loss": [0.3, 0.2]})
        progress.write_progress(session, training.claim, {"step": 2}, points)
    page = client.get(f"/runs/{run.key}").text
    assert "Smoothed loss fell from 0.300 at step 1" in page
    assert "Learning rate" not in page[page.index('id="run-loss-rows"') :][:2_000]
