"""The registry's metadata in a file: of a version that is there, and of one about to be made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.registry.adapters.downloads import (
    facts_sha256,
    future_metadata,
    version_metadata,
)
from app.registry.adapters.service import AdapterChange, change_adapter
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.db import Database
from app.registry.tables.adapters import Adapter
from worker.core.families.family import BaseFamily
from worker.core.lora_files.metadata import AdapterMetadata

NEW = NewVersion(
    name="Chalk",
    base_family="sd1",
    sha256="a" * 64,
    size_bytes=1,
    rank=4,
    alpha=4.0,
    trigger_words=["chalk style"],
    training_seconds=12.5,
    cover_sha256="b" * 64,
    config={"resolution": 64, "steps": 3},
    details={"images": 24, "author": "Ada"},
    license="CC0-1.0",
)
FULL = AdapterMetadata(
    title="Chalk “board” é",
    slug="chalk-board-v2",
    family=BaseFamily.SD1,
    created=datetime(2026, 3, 4, tzinfo=UTC),
    base_name="starter",
    resolution=64,
    prediction_type="v_prediction",
    trigger_words=("chalk style", "board"),
    license="CC-BY-4.0",
    cover_sha256="c" * 64,
    description="Of a wedding.\nTwo.",
    tags=("board", "green"),
)
BARE = AdapterMetadata(
    title="Ink", slug="ink-v1", family=BaseFamily.SDXL, created=datetime(2026, 3, 4, tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("metadata", "sha256"),
    [
        (FULL, "7bc8cb9ebb142e4bec3fe5ff6462a6b100f2a32b863705cdc40d226af2901f13"),
        (BARE, "f05ffb4e9ebc45302a259bd7d9fd5024a14e71aa872541313f5185117cab9ade"),
    ],
)
def test_the_stored_hash_of_what_a_file_says_never_changes(
    metadata: AdapterMetadata, sha256: str
) -> None:
    assert facts_sha256(metadata) == sha256
    lasting = replace(
        metadata,
        family=BaseFamily.SD2,
        created=datetime.now(UTC),
        training_seconds=1.0,
        author="Ada",
        images=9,
        train_config={"steps": 1},
        tag_counts={"a dog": 1},
    )
    assert facts_sha256(lasting) == sha256  # of a version they never change


def test_a_version_about_to_be_made_says_what_it_will_say(database: Database) -> None:
    with database.write() as session:
        told = future_metadata(session, NEW, adapter_id=None)
        version = publish(session, NEW)
        said = version_metadata(session, version)
        assert replace(told, created=said.created) == said
        assert (said.slug, said.title, said.images, said.author) == ("chalk-v1", "Chalk", 24, "Ada")
        assert (said.license, said.cover_sha256, said.resolution) == ("CC0-1.0", "b" * 64, 64)
        assert (said.description, said.tags, said.tag_counts) == ("", (), {})


@pytest.mark.parametrize("cover", [None, "d" * 64])
def test_so_does_the_next_version_of_an_adapter_that_a_person_changed(
    database: Database, cover: str | None
) -> None:
    with database.write() as session:
        key = publish(session, NEW).adapter_id
        change_adapter(session, key, AdapterChange(name="Slate", license="MIT", notes="Mine."))
        session.flush()
        next_one = replace(NEW, sha256="e" * 64, cover_sha256=cover)
        told = future_metadata(session, next_one, adapter_id=key)
        assert session.get_one(Adapter, key).cover_sha256 == "b" * 64  # nothing was changed yet
        assert not session.dirty
        assert not session.new
        said = version_metadata(session, publish(session, next_one, adapter_id=key))
        assert replace(told, created=said.created) == said
        assert (said.slug, said.title, said.license) == ("chalk-v2", "Slate", "MIT")
        assert said.cover_sha256 == cover or said.cover_sha256 == "b" * 64


def test_a_deleted_adapter_gets_no_version(database: Database) -> None:
    with database.write() as session:
        first = publish(session, NEW)
        adapter = session.get_one(Adapter, first.adapter_id)
        adapter.deleted_at = datetime.now(UTC)
        session.add(adapter)
        session.flush()
        told = future_metadata(session, NEW, adapter_id=first.adapter_id)
        said = version_metadata(session, publish(session, NEW, adapter_id=first.adapter_id))
        assert replace(told, created=said.created) == said
        assert said.slug == "chalk-2-v1"
