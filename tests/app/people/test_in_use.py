"""What somebody else has counts for addresses and deletions, also where nobody may see it."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from app.registry import prompt_sets
from app.registry.actor import Principal, Role, Visibility, acting_as
from app.registry.datasets import service as datasets
from app.registry.db import Database, utcnow
from app.registry.deletion import datasets as dataset_deletion
from app.registry.errors import Conflict, InUse
from app.registry.renders.removal import equal_renders
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from tests.app.people.conftest import state_of

ANA = Principal(2, Role.MEMBER, "Ana")
BEN = Principal(3, Role.MEMBER, "Ben", Visibility.PRIVATE)


@pytest.fixture
def database(people_app: FastAPI) -> Database:
    """Ana's dataset, which all see, and a private run of Ben on it."""
    database = state_of(people_app).database
    with acting_as("test", ANA), database.write() as session:
        dataset = Dataset(slug="ink", name="Ink")
        base = BaseModel(slug="b", name="B", source="b")
        session.add_all([dataset, base])
        session.flush()
        pinned = DatasetVersion(
            dataset_id=dataset.key, fingerprint="f", image_count=0, items=[{"clean_sha256": "a"}]
        )
        session.add(pinned)
    keys = {
        "dataset_id": dataset.key, "dataset_version_id": pinned.id, "base_model_id": base.key
    }  # fmt: skip
    with acting_as("test", BEN), database.write() as session:
        session.add(Run(name="Secret", config={}, total_steps=1, **keys))
    return database


def test_the_address_of_what_became_private_is_taken(database: Database) -> None:
    with acting_as("test", BEN), database.write() as session:
        made = datasets.create_dataset(session, "Wash")
        made.slug, made.visibility = "wash", "private"
    with acting_as("test", ANA), database.write() as session:
        assert datasets.create_dataset(session, "Wash").slug == "wash-2"


def test_a_private_run_keeps_a_dataset_and_is_not_named(database: Database) -> None:
    with acting_as("test", ANA), database.write() as session, pytest.raises(InUse) as refused:
        datasets.delete_dataset(session, 1)
    assert refused.value.detail.startswith("A private run uses this dataset.")


def test_deleting_a_dataset_with_its_runs_leaves_those_of_others(database: Database) -> None:
    with database.write() as session:
        session.get_one(Run, 1).status = "succeeded"
        session.get_one(Dataset, 1).deleted_at = utcnow()
    with acting_as("test", ANA), database.write() as session:
        deletion = dataset_deletion.delete_dataset(session, 1, with_runs=True)
    assert "Secret" not in str(deletion)
    with database.read() as session:
        run = session.get_one(Run, 1)
        assert session.get_one(DatasetVersion, run.dataset_version_id).items


def test_equal_images_of_others_are_left_alone(database: Database) -> None:
    for person in (BEN, ANA):
        with acting_as("test", person), database.write() as session:
            render = Render(
                base_model_id=1, prompt="p", seed=1, steps=1, guidance=1, width=8, height=8,
                cache_key="k", visibility="studio",
            )  # fmt: skip
            session.add(render)
            session.flush()
            assert [one.key for one in equal_renders(session, render)] == [render.key]


def test_prompt_sets_that_nobody_else_sees_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_sets, "MAX_SETS", 1)
    subjects = [f"subject {number}" for number in range(prompt_sets.FEWEST_SUBJECTS)]
    with acting_as("test", BEN), database.write() as session:
        prompt_sets.create_set(session, "Secret", subjects)
    with acting_as("test", ANA), database.write() as session:
        assert prompt_sets.list_sets(session) == []
        with pytest.raises(Conflict, match="There are 1 prompt sets already"):
            prompt_sets.create_set(session, "Mine", subjects)
