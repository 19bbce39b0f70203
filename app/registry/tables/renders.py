"""Tables of images on request: renders, grids of them, and recipes that save a request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, PlainJSON, utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import Queue
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.tables.axes import Axis, sizes_of
from app.registry.tables.jobs import STATUS_CHECK, IoJob, Job
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable
from worker.core.inference.config import steps_to_run
from worker.core.words import SamplerName

MAX_SLOT = 64  # characters of the name of a draft's slot
MAX_TITLE = 120  # of a grid
MAX_NAME = 120  # of a recipe


class Render(Restorable, Job, table=True):
    """A render request and its result.

    A draft is in no list and deleted an hour after its end, unless it is kept.
    """

    __tablename__ = "render"
    __table_args__ = (sa.CheckConstraint(STATUS_CHECK, name="status"), AUTOINCREMENT)
    queue: ClassVar[Queue] = Queue.RENDER
    of_a_status: ClassVar[Sequence[str]] = (*Job.of_a_status, "preview")

    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    prompt: str = Field(sa_type=sa.Text)
    negative_prompt: str = Field(default="", sa_type=sa.Text)
    seed: int = Field(sa_type=sa.BigInteger)
    sampler: str = Field(default=SamplerName.DDIM.value, max_length=32)
    steps: int
    guidance: float
    clip_skip: int = Field(default=1, description="Layer of the text encoder, from the last.")
    width: int
    height: int
    count: int = 1
    adapters: list[dict[str, Any]] = Field(
        default_factory=list,
        sa_type=PlainJSON,  # the version ids refer to adapter versions
        description="Of each: adapter_id, version_id, name, slug, weight, text_encoder_weight, "
        "and block_weights where there are some.",
    )
    weights: list[list[float | None]] | None = Field(default=None, sa_type=sa.JSON)
    """A strip: the weights of the adapters for each image, all of one seed; None leaves an adapter
    out of an image."""
    source_sha256: str | None = Field(default=None, max_length=64, index=True)
    """Blob of the image it starts from."""
    strength: float | None = None
    """How much of that image changes, 0 to 1; None without one."""
    cache_key: str = Field(max_length=64, index=True, description="Equal requests, equal keys.")
    precision: str | None = Field(default=None, max_length=8)
    """Number type of the UNet, part of the cache key; None until it is known."""
    twin_id: int | None = Field(default=None, foreign_key="render.id", index=True)
    """The same seed without adapters."""
    progress: int = Field(default=0, description="Denoising steps done.")
    seconds: float | None = None
    from_cache: bool = False
    note: str | None = Field(default=None, description="A note for the user.")
    starred: bool = Field(default=False, description="Marked by a person, to be found again.")
    search_text: str = Field(default="", sa_type=sa.Text)
    """Prompt and adapters, folded, for searches."""
    draft_slot: str | None = Field(default=None, max_length=MAX_SLOT, index=True)
    """Set for a draft: a newer draft of its slot replaces it while unfinished."""
    preview: bytes | None = Field(default=None, sa_type=sa.LargeBinary)
    """A small WebP of the image so far, only while it is generated."""

    @classmethod
    def claimable(cls, session: Session, queue: str) -> sa.ColumnElement[bool]:
        """What nobody waits for lets runs go first."""
        return cls.lets_runs_go_first(session)

    @property
    def stack(self) -> list[ResolvedAdapter]:
        """The adapters with their weights."""
        return [ResolvedAdapter.model_validate(entry) for entry in self.adapters]

    @property
    def all_steps(self) -> int:
        """The denoising steps of all its images that are run."""
        return steps_to_run(self.steps, self.strength) * self.count

    def stack_of(self, index: int) -> list[ResolvedAdapter]:
        """The adapters of one image: with the weights of its place in a strip.

        A text encoder that has the weight of the UNet keeps doing so; another weight of it stays.
        """
        if self.weights is None:
            return self.stack
        return [
            used.with_weight(weight)
            for used, weight in zip(self.stack, self.weights[index], strict=True)
            if weight is not None
        ]


class RenderImage(NumberedRow, table=True):
    """One image of a render."""

    __tablename__ = "render_image"
    __table_args__ = (sa.UniqueConstraint("render_id", "index"),)

    render_id: int = Field(foreign_key="render.id", index=True)
    index: int
    seed: int = Field(sa_type=sa.BigInteger)
    sha256: str = Field(max_length=64, index=True, description="Blob of the PNG.")


class RenderAdapter(SQLModel, table=True):
    """Link between a render and an adapter; the adapter page finds its images by it."""

    __tablename__ = "render_adapter"

    adapter_id: int = Field(foreign_key="adapter.id", primary_key=True)
    render_id: int = Field(foreign_key="render.id", primary_key=True, index=True)
    hidden: bool = Field(default=False, description="Not shown on the page of the adapter.")
    was_cover: bool = Field(default=False, description="Its cover until the render was deleted.")


class RenderSource(SQLModel, table=True):
    """An image that renders start from, or that was uploaded for that."""

    __tablename__ = "render_source"

    sha256: str = Field(max_length=64, primary_key=True, description="Blob of the image.")
    width: int
    height: int
    used_at: datetime = Field(default_factory=utcnow, index=True)
    """When it was last uploaded or used."""


class SourceUser(SQLModel, table=True):
    """A person who uploaded an image to start from: with accounts, others do not see it by that."""

    __tablename__ = "source_user"

    sha256: str = Field(
        max_length=64,
        primary_key=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # the source keeps it
    )
    user_id: int = Field(primary_key=True)


class Grid(Restorable, Owned, NumberedRow, table=True):
    """A grid; its cells are numbered row by row, sheet by sheet."""

    __tablename__ = "grid"
    __table_args__ = (AUTOINCREMENT,)

    title: str = Field(max_length=MAX_TITLE)
    request: dict[str, Any] = Field(sa_type=PlainJSON)
    """The RenderRequest that all cells share, with base model, seed and versions."""
    axes: list[dict[str, Any]] = Field(sa_type=PlainJSON)
    """Columns, rows and sheets, as far as there are any."""
    winner: int | None = Field(default=None, description="Place of the chosen cell.")
    blind_test_id: int | None = Field(default=None, index=True)
    """The blind test that owns it: it is in no list."""
    created_at: datetime = Field(default_factory=utcnow)

    @property
    def varied(self) -> Sequence[Axis]:
        """Its axes: columns, rows, sheets."""
        return [Axis.model_validate(axis) for axis in self.axes]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of columns, rows and sheets."""
        return sizes_of(self.varied)


def drawn_by_sweeps(*jobs: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
    """The ids of the grids whose images sweeps measure, under conditions on these jobs."""
    grid_id = col(IoJob.args)["grid_id"].as_integer()
    return sa.select(grid_id).where(col(IoJob.kind) == JobKind.ADVANCE_SWEEP, grid_id > 0, *jobs)


def is_on_its_own() -> sa.ColumnElement[bool]:
    """Condition on grids: no blind test and no sweep had it drawn, so it is in the lists."""
    return col(Grid.blind_test_id).is_(None) & col(Grid.id).not_in(drawn_by_sweeps())


class GridCell(SQLModel, table=True):
    """A cell of a grid and the image in it."""

    __tablename__ = "grid_cell"

    grid_id: int = Field(foreign_key="grid.id", primary_key=True)
    place: int = Field(primary_key=True)
    render_id: int | None = Field(default=None, foreign_key="render.id", index=True)
    """None: the render was deleted for good."""
    image_index: int = Field(default=0, description="Index of the image in its render.")
    cache_key: str = Field(max_length=64, index=True)
    """Of a render of this image alone."""


class RecipeAdapter(ResolvedAdapter, frozen=True, extra="ignore"):
    """An adapter of a recipe; `alias`: the name that its version is found by, None: it is fixed."""

    alias: str | None = None


class Recipe(Restorable, Owned, NumberedRow, table=True):
    """A saved request for images; its slug stays when it is renamed."""

    __tablename__ = "recipe"
    __table_args__ = (AUTOINCREMENT,)

    slug: str = Field(max_length=140, unique=True)
    name: str = Field(max_length=MAX_NAME)
    base_model: str = Field(max_length=140, description="Slug of the base model.")
    prompt: str = Field(sa_type=sa.Text)
    negative_prompt: str = Field(default="", sa_type=sa.Text)
    seed: int | None = Field(default=None, sa_type=sa.BigInteger)
    """None: a random one each time."""
    sampler: str = Field(default=SamplerName.DDIM.value, max_length=32)
    steps: int
    guidance: float
    clip_skip: int = 1
    width: int
    height: int
    count: int = 1
    adapters: list[dict[str, Any]] = Field(
        default_factory=list,
        sa_type=PlainJSON,  # ids of adapters and versions
        description="As those of a render: found by their ids, also after a rename.",
    )
    source_sha256: str | None = Field(default=None, max_length=64, index=True)
    """The image that it starts from."""
    strength: float | None = Field(default=None, description="How much of that image changes.")
    mix: str = Field(default="", max_length=8)
    """`blend`: the page holds the sum of the weights."""
    cache_key: str = Field(max_length=64, description="That of a render of it: its cover.")
    created_at: datetime = Field(default_factory=utcnow)
    updated_at: datetime = Field(default_factory=utcnow)

    @property
    def stack(self) -> Sequence[RecipeAdapter]:
        """The adapters with their weights, as they were when it was saved."""
        return [RecipeAdapter.model_validate(entry) for entry in self.adapters]
