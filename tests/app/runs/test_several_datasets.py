"""Runs on several datasets, each with its repeats: in the registry and the API."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import service as adapters
from app.registry.adapters.downloads import version_metadata
from app.registry.blobs import deletion as freeing
from app.registry.comparison.runs import compare_runs
from app.registry.datasets import service as datasets
from app.registry.datasets.transfer.versions import list_versions
from app.registry.datasets.used_datasets import used_datasets, version_datasets
from app.registry.db import Database
from app.registry.deletion import datasets as dataset_deletion
from app.registry.deletion import runs as deletion
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.runs import requests, service
from app.registry.runs.epochs import run_epochs
from app.registry.runs.listing import RunFilter, list_runs, run_choices
from app.registry.runs.pinned_images import pinned_images
from app.registry.runs.requests import RunRequest
from app.registry.runs.rerun import train_again
from app.registry.runs.several_datasets import (
    MAX_DATASETS,
    DatasetWish,
    dataset_field,
    place_of_field,
    repeats_field,
)
from app.registry.state import AppState
from app.registry.tables.runs import Run, RunDataset
from tests import fake_workers
from tests.app.runs.test_service import dataset
from tests.row_locks import start_and_wait
from worker.core.training.presets import Preset


def refusal(database: Database, first: int, *further: DatasetWish, **wishes: Any) -> dict[str, str]:
    request = RunRequest(dataset_id=first, further=further, **wishes)
    with pytest.raises(InvalidInput) as refused, database.write() as session:
        requests.create_run(session, request)
    return refused.value.fields


def start(database: Database, first: int, *further: DatasetWish, **wishes: Any) -> Run:
    request = RunRequest(dataset_id=first, further=further, **wishes)
    with database.write() as session:
        return requests.create_run(session, request)


def joint_run(state: AppState, names: Sequence[str] = ("Ink", "Wash")) -> tuple[Run, list[int]]:
    """A queued run on these datasets of three images; the first one has two repeats."""
    fake_workers.ready_base(state)
    keys = [fake_workers.dataset(state, name).key for name in names]
    further = [DatasetWish(key, 3) for key in keys[1:]]
    config = {"steps": 40, "batch_size": 1, "sample_prompts": ["a castle"]}
    run = start(state.database, keys[0], *further, repeats=2, config=config)
    return run, keys


def test_requests_with_the_same_datasets_do_not_wait_for_each_other(
    database: Database, ready_base: None
) -> None:
    low, high = sorted(dataset(database) for _ in range(2))
    others = Thread(target=start, args=(database, high), kwargs={"regularization_dataset_id": low})
    with database.write() as session:
        datasets.get_dataset(session, low, lock=True)
        start_and_wait(others, database)
        datasets.get_dataset(session, high, lock=True)  # which the other request does not have yet
    others.join()
    with database.read() as session:
        assert [run.dataset_id for run in session.exec(select(Run))] == [high]


def test_a_run_pins_every_dataset_with_its_repeats(database: Database, ready_base: None) -> None:
    ink, wash = dataset(database, pictures=4), dataset(database, pictures=6)
    with database.write() as session:
        often = datasets.list_images(session, wash)[0]
        datasets.change_image(session, often.key, repeats=5)
    config = {"batch_size": 1, "steps": 40}
    run = start(database, ink, DatasetWish(wash, 3), repeats=2, config=config)
    with database.read() as session:
        used = used_datasets(session, run)
        assert [(one.place, one.id, one.repeats, one.image_count) for one in used] == [
            (1, ink, 2, 4),
            (2, wash, 3, 6),
        ]
        assert service.run_image_count(session, run) == 10
        assert run_epochs(session, run).steps == 4 * 2 + (5 + 5) * 3
        second = pinned_images(session, run, place=2)
        assert [image.repeats for image in second.items] == [15, 3, 3, 3, 3, 3]
        with pytest.raises(NotFound, match="no dataset 3"):
            pinned_images(session, run, place=3)


def test_the_preset_counts_the_images_of_all_datasets(database: Database, ready_base: None) -> None:
    ink, wash = dataset(database, pictures=250), dataset(database, pictures=250)
    quick = {"preset": Preset.QUICK}  # of which so few images are many
    alone, both = start(database, ink, **quick), start(database, ink, DatasetWish(wash), **quick)
    assert both.total_steps > alone.total_steps
    with database.read() as session:
        assert [row.repeats for row in session.exec(select(RunDataset)).all()] == [1]


@pytest.mark.parametrize(
    ("repeats", "sentence"),
    [
        (0, "Enter a whole number of repeats from 1 to 100."),
        (10_000, "Enter a whole number of repeats from 1 to 100."),
        ("many", "Enter a whole number of repeats from 1 to 100."),
        ("", "Enter a whole number of repeats from 1 to 100."),
        ("9" * 5_000, "Enter a whole number of repeats from 1 to 100."),
        (True, "Enter a whole number of repeats from 1 to 100."),
        (11, "that is more than 1,000 in an epoch. Enter at most 10."),
    ],
)
def test_wrong_repeats_are_named_at_their_field(
    database: Database, ready_base: None, repeats: object, sentence: str
) -> None:
    ink, wash = dataset(database), dataset(database)
    with database.write() as session:
        image = datasets.list_images(session, wash)[0]
        datasets.change_image(session, image.key, repeats=100)
    fields = refusal(database, ink, DatasetWish(wash, repeats))
    assert list(fields) == ["dataset_repeats_2"]
    assert sentence in fields["dataset_repeats_2"]
    assert list(refusal(database, wash, DatasetWish(ink), repeats=repeats)) == ["dataset_repeats"]


def test_wrong_datasets_are_named_at_their_fields(database: Database, ready_base: None) -> None:
    ink, empty, gone = dataset(database), dataset(database, pictures=0), dataset(database)
    with database.write() as session:
        datasets.delete_dataset(session, gone)
    wishes = [DatasetWish(key) for key in (ink, empty, gone, 0)]
    fields = refusal(database, ink, *wishes, regularization_dataset_id=empty)
    assert fields == {
        "dataset_id_2": "“Chalk” is in this run already. Choose another dataset, or give it more "
        "repeats.",
        "dataset_id_3": "“Chalk” has no images yet. Add some, then train.",
        "dataset_id_4": "This dataset does not exist; it may have been deleted. Choose another.",
        "dataset_id_5": "Choose a dataset, or remove this one.",
        "regularization_dataset_id": "This is a training dataset itself. Choose another dataset.",
    }
    many = [DatasetWish(ink)] * (MAX_DATASETS + 29)
    assert (
        "These are 50 datasets; a run takes at most 20."
        in refusal(database, ink, *many)["datasets"]
    )
    with database.read() as session:
        assert session.exec(select(Run)).all() == []


def test_the_trigger_word_is_that_of_the_first_dataset_unless_another_is_asked_for(
    database: Database, ready_base: None
) -> None:
    ink, wash = dataset(database, trigger="fox"), dataset(database, trigger="wash")
    run = start(database, ink, DatasetWish(wash))
    assert run.trigger_word == "fox"
    other = start(database, wash, DatasetWish(ink), trigger_word=" sumi ")
    assert other.trigger_word == "sumi"
    assert all("sumi" in prompt for prompt in other.config["sample_prompts"])
    assert start(database, ink, trigger_word="").trigger_word is None
    with database.read() as session:
        assert service.trigger_warnings(session, run) == []  # all captions are "a fox"
        (warning,) = service.trigger_warnings(session, other)
    assert warning == "No caption contains the trigger word “sumi”, so it will have no effect."
    with database.write() as session:
        image = datasets.list_images(session, wash)[0]
        datasets.caption_image(session, image.key, "a wolf")
        (warning,) = service.trigger_warnings(session, run)
    assert "No caption of “Chalk” contains the trigger word “fox”" in warning
    assert "comma" in refusal(database, ink, trigger_word="a, b")["trigger_word"]
    assert "at most 60" in refusal(database, ink, trigger_word="x" * 61)["trigger_word"]


def test_a_dataset_of_a_joint_run_counts_as_used(state: AppState) -> None:
    run, (_, wash) = joint_run(state)
    with state.database.write() as session:
        with pytest.raises(Conflict, match="The run “Ink” uses this dataset"):
            datasets.delete_dataset(session, wash)
        row = datasets.get_dataset(session, wash)
        assert datasets.summary(session, row).run_count == 1
        (version,) = list_versions(session, wash)
        assert [user.id for user in version.runs] == [run.key]
    with state.database.read() as session:
        found = list_runs(session, RunFilter(dataset_id=wash)).items
        assert [[one.name for one in row.datasets] for row in found] == [["Ink", "Wash"]]
        assert list_runs(session, RunFilter(q="wash")).total == 1
        choices = run_choices(session, RunFilter()).datasets
        assert [choice.label for choice in choices] == ["Ink", "Wash"]


def test_a_joint_run_is_trained_again_and_compared(state: AppState) -> None:
    run, (ink, wash) = joint_run(state)
    with state.database.write() as session:
        image = datasets.list_images(session, wash)[0]
        datasets.caption_image(session, image.key, "a wolf")
        again, sentences = train_again(session, run.key)
        assert [(one.id, one.repeats) for one in used_datasets(session, again)] == [
            (ink, 2),
            (wash, 3),
        ]
        assert sentences == [
            "The dataset “Wash” changed since: 1 caption changed. This run trains on the 3 images "
            "as they were in the first run."
        ]
        further = [DatasetWish(wash)]
        request = RunRequest(dataset_id=ink, further=further)
        changed = requests.create_run(session, request)
        found = compare_runs(session, run.key, changed.key)
    words = {row.name: (row.a_words, row.b_words) for row in found.data}
    assert words["dataset"] == ("Ink × 2, Wash × 3", "Ink, Wash")
    assert words["images"] == ("6", "6")
    assert found.notes == [
        f"Between run {run.key} and run {changed.key} the dataset “Wash” changed: 1 caption "
        "changed."
    ]


def test_deleting_joint_runs_and_datasets_for_good_leaves_nothing_behind(state: AppState) -> None:
    run, (ink, wash) = joint_run(state)
    training = fake_workers.FakeTraining(state)
    training.train(40)
    training.finish()
    with state.database.write() as session:
        adapter, version = adapters.trained_version(session, session.get_one(Run, run.key))
        assert [one.label for one in version_datasets(session, version)] == ["Ink × 2", "Wash × 3"]
        tags = version_metadata(session, version, with_tags=True).tag_counts
        assert tags == {"a fox": 6}
        (pinned,) = list_versions(session, wash)
        assert [user.id for user in pinned.adapters] == [adapter.key]
        datasets.delete_dataset(session, wash)
    said = freeing.delete(state, lambda session: dataset_deletion.delete_dataset(session, wash))
    assert "because 1 run was trained on them" in " ".join(said.stays)
    freeing.delete(state, lambda session: deletion.delete_run(session, run.key))
    freeing.delete(state, lambda session: dataset_deletion.delete_dataset(session, wash))
    with state.database.read() as session:
        assert session.exec(select(RunDataset)).all() == []
        row = adapters.get_version(session, adapter)
        assert "Wash" not in str(row.details)
        assert [one.dataset.key for one in version_datasets(session, row)] == [ink]
        assert [one["images"] for one in row.details["datasets"]] == [3, 3]


def test_the_api_takes_a_list_of_datasets(client: TestClient, state: AppState) -> None:
    _, (ink, wash) = joint_run(state)
    body = {"datasets": [{"dataset_id": ink}, {"dataset_id": wash, "repeats": 4}]}
    answer = client.post("/api/v1/runs", json=body | {"trigger_word": "sumi"})
    assert answer.status_code == 202
    key = answer.json()["id"]
    run = client.get(f"/api/v1/runs/{key}").json()
    assert (run["dataset_id"], run["trigger_word"]) == (ink, "sumi")
    shown = [(one["dataset_id"], one["name"], one["repeats"]) for one in run["datasets"]]
    assert shown == [(ink, "Ink", 1), (wash, "Wash", 4)]
    listed = client.get("/api/v1/runs", params={"dataset_id": wash}).json()
    assert [row["datasets"][-1]["repeats"] for row in listed] == [4, 3]
    images = client.get(f"/api/v1/runs/{key}/images", params={"dataset": 2}).json()
    assert [image["repeats"] for image in images] == [4, 4, 4]
    assert client.get(f"/api/v1/runs/{key}/images", params={"dataset": 3}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "dataset_id"),
        ({"datasets": []}, "datasets"),
        ({"dataset_id": 1, "datasets": [{"dataset_id": 1}]}, "dataset_id"),
        ({"datasets": [{"dataset_id": 1}, {"dataset_id": 1}]}, "datasets.1.dataset_id"),
        ({"datasets": [{"dataset_id": 1, "repeats": 0}]}, "datasets.0.repeats"),
        ({"datasets": [{"dataset_id": 999}]}, "datasets.0.dataset_id"),
        ({"datasets": [{"dataset_id": 1}] * 50}, "datasets"),
        ({"datasets": [{"dataset_id": "x"}]}, "datasets.0.dataset_id"),
    ],
)
def test_a_wrong_list_of_datasets_is_named_in_the_api(
    client: TestClient, state: AppState, body: dict[str, Any], field: str
) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    answer = client.post("/api/v1/runs", json=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert client.get("/api/v1/runs").json() == []


def test_a_field_names_the_place_of_its_dataset() -> None:
    for place in (1, 2, MAX_DATASETS):
        assert place_of_field(dataset_field(place)) == (place, False)
        assert place_of_field(repeats_field(place)) == (place, True)
    for other in ("regularization_dataset_id", "dataset_id_", "dataset_id_x", "datasets"):
        assert place_of_field(other) is None
