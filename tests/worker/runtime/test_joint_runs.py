"""A run on several datasets, trained for real: equal to a run on one dataset with these repeats."""

from __future__ import annotations

import os
import signal

from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.runs import Checkpoint, Run, RunDataset
from tests.worker.runtime.job_loops import Registry, wait_for
from tests.worker.runtime.test_train_jobs import starts_of, trainer_of, weights_of


def add_version(registry: Registry, name: str, items: list[dict[str, object]]) -> tuple[int, int]:
    """A dataset with one pinned version of these items."""
    with registry.database.write() as session:
        dataset = Dataset(name=name, slug=name.lower())
        session.add(dataset)
        session.flush()
        version = DatasetVersion(
            dataset_id=dataset.key, fingerprint=name, image_count=len(items), items=items
        )
        session.add(version)
        session.flush()
        return dataset.key, version.key


def queue(registry: Registry, *used: tuple[int, int, int]) -> int:
    """A run on these datasets, each with its version and repeats."""
    run_id = registry.new_run(validation_share=0.25)
    with registry.database.write() as session:
        run = session.get_one(Run, run_id)
        run.dataset_id, run.dataset_version_id, run.dataset_repeats = used[0]
        for place, (dataset_id, version_id, repeats) in enumerate(used[1:], start=2):
            session.add(
                RunDataset(
                    run_id=run_id,
                    place=place,
                    dataset_id=dataset_id,
                    dataset_version_id=version_id,
                    repeats=repeats,
                )
            )
    return run_id


def test_two_datasets_train_like_one_with_all_their_repeats(registry: Registry) -> None:
    items = registry.row(DatasetVersion, registry.version_id).items
    first, second = [items[0] | {"repeats": 2}, items[1]], items[2:]
    one = [first[0] | {"repeats": 6}, first[1] | {"repeats": 3}, *second]
    ink = add_version(registry, "Ink", first)
    wash = add_version(registry, "Wash", second)
    together = add_version(registry, "Together", one)
    joint = queue(registry, (*ink, 3), (*wash, 1))
    single = queue(registry, (*together, 1))
    train_jobs = registry.train_jobs(command=registry.trainers.command)
    started = trainer_of(train_jobs, registry)
    with registry.working(train_jobs):
        wait_for(lambda: registry.rows(Checkpoint, run_id=joint))
        os.kill(started[0].pid, signal.SIGKILL)
        run = registry.until_final(Run, joint)
        registry.until_final(Run, single)
    assert weights_of(registry, joint) == weights_of(registry, single)
    assert starts_of(registry, joint) == 2
    details = registry.row(AdapterVersion, run.adapter_version_id).details
    assert (details["images"], details["dataset"]) == (4, "Ink, Wash")
    assert details["datasets"] == [
        {"version": ink[1], "name": "Ink", "images": 2, "repeats": 3},
        {"version": wash[1], "name": "Wash", "images": 2, "repeats": 1},
    ]
    saved = [
        row for row in registry.rows(AdapterVersion, run_id=joint) if "datasets" in row.details
    ]
    assert len(saved) > 1  # the adapters of its checkpoints say it too
    alone = registry.rows(AdapterVersion, run_id=single)
    assert not any("datasets" in row.details for row in alone)
