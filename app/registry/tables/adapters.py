"""Tables of adapters, with immutable versions, movable aliases and tags."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel, col

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, PlainJSON, utcnow
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable, hide_deleted
from worker.core.families.family import family_label
from worker.core.lora_files.weights import USUAL_WEIGHT, WeightCard

LATEST = "latest"  # the alias of the version that is used when none is named
WEIGHT_CARDS = "weight_cards"  # of the details
LIVE = sa.text("deleted_at IS NULL AND run_id IS NULL")  # what lists contain
COUNTED = ("visibility", "owner_id", "run_id")  # so that counts read no rows, with accounts, too
HIDDEN = ("visibility", "base_family", "starred", "owner_id", "run_id", "deleted_at", "id")
HAS_RUN = sa.text("run_id IS NOT NULL")  # so that no list is read by it
DELETED = sa.text("deleted_at IS NOT NULL")
# by code points on every database, whatever language the server sorts by
SORT_NAME = sa.String(240).with_variant(sa.String(240, collation="C"), "postgresql")


class Adapter(Restorable, Owned, NumberedRow, table=True):
    """A named adapter; its weights are in its versions.

    With a `run_id` it holds the adapters of that run's checkpoints, each as the version with the
    number of its step. It is in no list, but its versions can be used wherever a version can.
    """

    __tablename__ = "adapter"
    __table_args__ = (
        *(
            sa.Index(
                "_".join(("ix_adapter_live", *first, order)),
                *first,
                order,
                "id",
                *(COUNTED if order == "updated_at" else ()),
                sqlite_where=LIVE,
                postgresql_where=LIVE,
            )
            for first in ((), ("base_family",), ("starred",))
            for order in ("updated_at", "sort_name")
        ),
        sa.Index("ix_adapter_visibility", *HIDDEN),
        sa.Index(
            "ix_adapter_deleted",
            "deleted_at",
            "id",
            sqlite_where=DELETED,
            postgresql_where=DELETED,
        ),
        sa.Index(
            "ix_adapter_run_id",
            "run_id",
            unique=True,
            sqlite_where=HAS_RUN,
            postgresql_where=HAS_RUN,
        ),
        AUTOINCREMENT,
    )

    run_id: int | None = Field(default=None, description="The run whose checkpoints it holds.")
    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=120)
    sort_name: str = Field(default="", sa_type=SORT_NAME)
    """Key for sorting by name; written by `search`."""
    trigger_words: list[str] = Field(default_factory=list, sa_type=PlainJSON)
    notes: str = Field(default="", sa_type=sa.Text)
    license: str = Field(default="", max_length=80, description="License, such as CC-BY-4.0.")
    starred: bool = False
    base_family: str = Field(max_length=16)
    cover_sha256: str | None = Field(default=None, max_length=64, index=True)
    imported_cover_sha256: str | None = Field(default=None, max_length=64, index=True)
    """The cover that came with an imported file, once another one is chosen."""
    last_version: int = Field(default=0, description="Number of the last version, if deleted.")
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)

    @property
    def family_label(self) -> str:
        """Label of the base family."""
        return family_label(self.base_family)

    @property
    def is_listed(self) -> bool:
        """False if it holds the checkpoints of a run."""
        return self.run_id is None

    def version_label(self, number: int) -> str:
        """The name of one of its versions, such as “version 2” or “step 150”."""
        return f"version {number}" if self.is_listed else f"step {number:,}"


class AdapterVersion(Restorable, NumberedRow, table=True):
    """An immutable trained or imported set of weights, with its origin.

    Only its usual weight can be edited, and of a checkpoint whether it is kept. Weight cards are
    added to its details once they are measured.
    """

    __tablename__ = "adapter_version"
    __table_args__ = (sa.UniqueConstraint("adapter_id", "version"), AUTOINCREMENT)

    adapter_id: int = Field(foreign_key="adapter.id", index=True)
    version: int
    kept: bool = Field(default=False, description="Of a checkpoint that a person saved or keeps.")
    ruined: str | None = None
    """Why the training that made it was ruined; None: it was not."""
    sha256: str = Field(max_length=64, index=True, description="Blob of the canonical fp32 file.")
    size_bytes: int = Field(sa_type=sa.BigInteger)
    tensor_sha256: str | None = Field(
        default=None,
        max_length=64,
        index=True,
        description="SHA-256 of the canonical tensors; identical weights have the same hash.",
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # of tensors, not of a file
    )
    file_tensor_sha256: str | None = Field(
        default=None, max_length=64, index=True, sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}}
    )
    """SHA-256 of the tensors in the imported file or the default download."""
    run_id: int | None = None
    dataset_version_id: int | None = Field(
        default=None, foreign_key="dataset_version.id", index=True
    )
    on_several_datasets: bool = Field(default=False, index=True)
    """True if `details` has a list of its datasets."""
    base_model_id: int | None = Field(default=None, foreign_key="base_model.id", index=True)
    weight_sketch: bytes | None = Field(default=None, sa_type=sa.LargeBinary)
    """Sketch of its weights, packed; empty: they cannot be read."""
    rank: int
    alpha: float
    steps: int | None = None
    usual_weight: float = USUAL_WEIGHT
    """Weight that is used when none is named; a person sets it."""
    trigger_words: list[str] = Field(default_factory=list, sa_type=PlainJSON)
    trainable_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    base_parameters: int | None = Field(default=None, sa_type=sa.BigInteger)
    peak_memory_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    training_seconds: float | None = None
    config: dict[str, Any] = Field(default_factory=dict, sa_type=PlainJSON)
    details: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    code_version: str | None = Field(default=None, max_length=80)
    """Version of the program that created it."""
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def weight_cards(self) -> dict[str, WeightCard]:
        """Where its style starts to show, is best, and breaks, by the key of the base model."""
        cards = self.details.get(WEIGHT_CARDS, {})
        return {key: WeightCard(**card) for key, card in cards.items()}

    @property
    def is_imported(self) -> bool:
        """True if it was made from a file, which may lack what is not stated in it."""
        return "imported" in self.details


hide_deleted(AdapterVersion)


def is_listed() -> sa.ColumnElement[bool]:
    """Condition for adapters that do not hold the checkpoints of a run."""
    return col(Adapter.run_id).is_(None)


def is_in_library() -> sa.ColumnElement[bool]:
    """Condition for the adapters of the library: listed, and not deleted."""
    return is_listed() & col(Adapter.deleted_at).is_(None)


class AdapterAlias(SQLModel, table=True):
    """A movable name for one version, such as `latest`."""

    __tablename__ = "adapter_alias"

    adapter_id: int = Field(foreign_key="adapter.id", primary_key=True)
    alias: str = Field(max_length=40, primary_key=True)
    version_id: int = Field(foreign_key="adapter_version.id")


class AdapterTag(SQLModel, table=True):
    """A tag of an adapter."""

    __tablename__ = "adapter_tag"

    adapter_id: int = Field(foreign_key="adapter.id", primary_key=True)
    tag: str = Field(max_length=40, primary_key=True, index=True)


class AdapterSearch(SQLModel, table=True):
    """The folded search text of an adapter; only `search` reads and writes it.

    Its index is the FTS5 table `adapter_fts` on SQLite and the column `grams` on PostgreSQL.
    """

    __tablename__ = "adapter_search"

    adapter_id: int = Field(foreign_key="adapter.id", ondelete="CASCADE", primary_key=True)
    text: str = Field(sa_type=sa.Text)


class AdapterFile(NumberedRow, table=True):
    """A download that was written from the canonical form and verified.

    `proof` says how each program reads it; files without one are from older versions and are
    written again. `with_tags`: it contains notes, tags and the tags of captions, on request.
    """

    __tablename__ = "adapter_file"
    __table_args__ = (sa.UniqueConstraint("version_id", "format", "dtype", "with_tags"),)

    version_id: int = Field(foreign_key="adapter_version.id", index=True)
    format: str = Field(max_length=16)
    dtype: str = Field(max_length=8)
    with_tags: bool = False
    sha256: str = Field(max_length=64, index=True)
    facts_sha256: str | None = Field(
        default=None, max_length=64, sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}}
    )
    """Of the metadata in it that may change; null: not kept."""
    proof: dict[str, Any] = Field(default_factory=dict, sa_type=PlainJSON)
    size_bytes: int = Field(sa_type=sa.BigInteger)
    created_at: datetime = Field(default_factory=utcnow)
