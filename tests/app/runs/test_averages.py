"""Averages of checkpoints: what can be averaged, and where that is ordered."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.job_kinds.kinds import MergeAdaptersArgs
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.fake_workers import FakeTraining


@pytest.fixture
def run_id(state: AppState) -> int:
    """An ended run with checkpoints at the steps 10, 20 and 30."""
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = FakeTraining(state)
    for _ in range(3):
        training.train(10)
        training.checkpoint()
    training.finish()
    return run.key


def test_it_takes_each_checkpoint_once_with_equal_weights(
    client: TestClient, state: AppState, run_id: int
) -> None:
    address = f"/api/v1/runs/{run_id}/checkpoints/average"
    answer = client.post(address, json={"steps": [30, 10, 30], "use": True})
    assert answer.status_code == 202
    assert answer.json()["tool"] == "merge"
    with state.database.read() as session:
        args = session.get_one(IoJob, answer.json()["id"]).arguments(MergeAdaptersArgs)
    assert [(part.version, part.weight) for part in args.parts] == [(10, 0.5), (30, 0.5)]
    assert args.run_id == run_id
    assert args.use
    assert args.rank == 4


@pytest.mark.parametrize(
    ("steps", "status", "words"),
    [([10, 10], 422, "Choose 2 to"), ([10, 15], 404, "at steps: 30, 20, 10")],
)
def test_what_cannot_be_averaged_is_refused(
    client: TestClient, run_id: int, steps: list[int], status: int, words: str
) -> None:
    answer = client.post(f"/api/v1/runs/{run_id}/checkpoints/average", json={"steps": steps})
    assert answer.status_code == status
    assert words in answer.text


def test_the_page_of_the_run_orders_one(client: TestClient, run_id: int) -> None:
    assert "Average checkpoints" in client.get(f"/runs/{run_id}").text
    address = f"/runs/{run_id}/checkpoints/average"
    assert (
        "Averaging"
        in client.post(address, data={"step": ["20", "30"]}, headers={"HX-Request": "true"}).text
    )
    sent = client.post(address, data={"step": ["20", "30"]}, follow_redirects=False)
    assert sent.status_code == 303
    assert "Averaging" in client.get(sent.headers["location"]).text
