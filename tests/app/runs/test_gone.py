"""Pages and requests that meet what was deleted, ended or changed a moment before."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.datasets import service as datasets
from app.registry.deletion import base_models as removal
from app.registry.runs import service
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from tests import fake_workers
from tests.app.runs.test_pages import HTML, form_of
from tests.fake_workers import FakeTraining


@pytest.fixture
def training(client: TestClient, state: AppState) -> FakeTraining:
    """A run that trains, with checkpoints and samples at 10 and 20 of 40 steps."""
    fake_workers.ready_base(state)
    fake_workers.queued_run(state, fake_workers.dataset(state))
    found = FakeTraining(state)
    found.sample(0)
    for step in (10, 20):
        found.train(10)
        found.checkpoint()
        found.sample(step)
    return found


def test_a_checkpoint_deleted_while_it_is_tried_or_downloaded_says_so(
    client: TestClient, training: FakeTraining
) -> None:
    training.cancel()
    form = form_of(client.get("/play?adapter=chalk-run-1@10").text, "play-form")
    assert client.delete("/api/v1/runs/1/checkpoints/10").status_code == 200
    sentence = "“Chalk” has no step 10; it may have been deleted."
    refused = client.post("/play", data=form | {"prompt": "half a thought"}, headers=HTML)
    assert refused.status_code == 422
    assert sentence in refused.text
    assert "half a thought</textarea>" in refused.text
    assert sentence in client.get("/play?adapter=chalk-run-1@10").text
    render = {"prompt": "x", "adapters": [{"id": 1, "version": 10}]}
    for answer in (
        client.get("/api/v1/adapters/1/download?version=10"),
        client.post("/api/v1/adapters/1/resize", json={"version": 10, "rank": 1}),
        client.post("/api/v1/renders", json=render),
        client.get("/adapters/chalk-run-1?v=10", headers={"accept": "application/json"}),
    ):
        assert answer.status_code in (404, 422)
        assert sentence in answer.text
    for action in ("use", "keep", "release"):
        gone = client.post(f"/runs/1/checkpoints/10/{action}", headers=HTML)
        assert gone.status_code == 404
        assert "It has checkpoints at steps: 20." in gone.text


def test_a_cancel_in_the_second_of_the_end_loses_nothing(
    client: TestClient, state: AppState, training: FakeTraining
) -> None:
    assert client.post("/runs/1/cancel", follow_redirects=False).status_code == 303
    adapter = training.finish()  # the worker was past the last step
    with state.database.read() as session:
        assert service.get_run(session, 1).status == "succeeded"
    assert f'href="/adapters/{adapter.slug}"' in client.get("/runs/1").text
    late = client.post("/runs/1/cancel", headers=HTML)
    assert late.status_code == 409
    assert "has already" in late.text
    assert client.get(f"/adapters/{adapter.slug}").status_code == 200


@pytest.mark.parametrize("what", ["dataset", "base", "adapter"])
def test_a_run_whose_parts_were_deleted_still_shows_and_gives_its_checkpoints(
    client: TestClient, state: AppState, training: FakeTraining, what: str
) -> None:
    adapter = training.finish()
    with state.database.write() as session:
        if what == "base":
            session.get_one(BaseModel, 1).source = "/models/gone"  # the embedded one stays
            removal.remove(session, 1, state.settings)
        elif what == "dataset":
            datasets.delete_dataset(session, 1)
        elif what == "adapter":
            adapters.delete_adapter(session, adapter.key)
    for address in (
        *("/runs", "/runs/1", "/runs/1/live", "/runs/1/compare", "/api/v1/runs/1"),
        *("/train/new?from=1", "/train/new?from=1&checkpoint=20", "/api/v1/runs/1/checkpoints"),
        *("/adapters/chalk-run-1?v=20", "/play?adapter=chalk-run-1@20"),
    ):
        assert client.get(address, headers=HTML).status_code == 200, address
    used = client.post("/runs/1/checkpoints/10/use", headers=HTML)
    assert used.status_code == 200
    version = 1 if what == "adapter" else 2
    assert f"Version {version} of “Chalk” is in use now: step 10." in used.text
