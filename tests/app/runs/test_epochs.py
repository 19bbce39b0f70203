"""Epochs beside steps: of runs in the registry, their pages and the API."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import service as datasets
from app.registry.db import Database
from app.registry.runs.epochs import Epochs, epochs_of_runs, run_epochs
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.runs.test_service import dataset, start

SIX = {"batch_size": 2, "gradient_accumulation": 3}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, 10),
        (SIX, 10 / 6),
        ({"validation_share": 0.25}, 7.5),  # 2 of 8 images, of 1.25 uses each on average
        ({"validation_share": 0.01}, 8.75),  # at least one image
    ],
)
def test_an_epoch_uses_every_image_as_often_as_it_repeats(
    database: Database, ready_base: None, config: dict[str, Any], length: float
) -> None:
    key = dataset(database, pictures=8)
    with database.write() as session:
        first = datasets.list_images(session, key)[0]
        datasets.change_image(session, first.key, repeats=3)
    run = start(database, dataset_id=key, config={"batch_size": 1, "steps": 40} | config)
    with database.read() as session:
        epochs = run_epochs(session, run)
    assert epochs.steps == pytest.approx(length, abs=1e-3)
    assert epochs.at(20) == pytest.approx(20 / length, abs=1e-3)


def test_with_regularization_images_an_epoch_is_twice_as_long(
    database: Database, ready_base: None
) -> None:
    style, others = dataset(database, pictures=6), dataset(database, pictures=60)
    wishes = {"dataset_id": style, "config": SIX | {"steps": 8}}
    alone = start(database, **wishes)
    both = start(database, **wishes, regularization_dataset_id=others)
    with database.read() as session:
        found = epochs_of_runs(session, [alone, both])
    assert (found[alone.key].steps, found[both.key].steps) == (1, 2)


def test_a_damaged_config_has_no_epochs(database: Database, ready_base: None) -> None:
    run = start(database)
    with database.write() as session:
        row = session.get_one(Run, run.key)
        row.config = {**row.config, "batch_size": "many"}
        session.add(row)
        session.flush()
        assert run_epochs(session, row) == Epochs(None)
    assert Epochs(None).at(3) is None


def test_pages_and_api_show_epochs_beside_steps(client: TestClient, state: AppState) -> None:
    fake_workers.ready_base(state)
    images = fake_workers.dataset(state, pictures=8)
    run = fake_workers.queued_run(state, images, batch_size=2)
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.sample(10)
    training.checkpoint()
    address = f"/api/v1/runs/{run.key}"
    shown = client.get(address).json()
    assert (shown["epoch"], shown["total_epochs"], shown["steps_per_epoch"]) == (2.5, 10, 4)
    assert client.get("/api/v1/runs").json()[0]["epoch"] == 2.5
    assert {row["epoch"] for row in client.get(f"{address}/samples").json()} == {2.5}
    assert [row["epoch"] for row in client.get(f"{address}/checkpoints").json()] == [2.5]
    page = client.get(f"/runs/{run.key}").text
    assert "2.5 of 10 epochs" in page
    assert "epoch 2.5</span>" in page
    assert 'data-epoch="2.5"' in page
    assert "2.5 of 10 epochs" in client.get("/runs").text
    assert "Step 10 of 40, 2.5 of 10 epochs" in client.get("/home/runs").text
