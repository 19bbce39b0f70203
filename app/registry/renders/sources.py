"""Images that renders start from: of a render, of a dataset, or uploaded.

A source is a stored image, upright sRGB, known by the hash of its blob. It stays as long as a
render, a recipe or a grid starts from it; another one is forgotten some hours after its last use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, Self

import sqlalchemy as sa
from pydantic import ConfigDict, Field, model_validator
from sqlmodel import Session, col, select

from app.registry.actor import current_user_id
from app.registry.blobs import thumbnails, visible
from app.registry.blobs.deletion import discard
from app.registry.blobs.disk_quota import book_files
from app.registry.datasets import intake
from app.registry.datasets import service as datasets
from app.registry.db import database_now, upsert, utcnow
from app.registry.errors import InvalidInput, NotFound, QuotaUsedUp, invalid_field
from app.registry.slugs import RowId
from app.registry.state import AppState
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset
from app.registry.tables.owned import everything
from app.registry.tables.renders import Grid, Recipe, Render, RenderImage, RenderSource, SourceUser
from app.registry.uploads import UploadedFile
from worker.core.documented import DocumentedModel
from worker.core.inference.config import MAX_SIDE, MIN_SIDE, SIDE_STEP
from worker.core.lora_files.weights import MAX_STRIP

SOURCES_KEPT = timedelta(hours=6)  # after the last use, where nothing starts from it
FORGOTTEN_AT_ONCE = 1_000  # few enough for the time limit of the job
SOURCE_MISSING = "The image to start from is gone. Choose it again."
ONE_OF = "Name one image: `render_id`, `image_id` or `sha256`."
MAX_DIGITS = 9  # of a side
UPLOAD_NAME = "image.png"  # whatever it is called, it is taken for an image
TEXT = re.compile(
    r"(render):(\d{1,19})(?::(\d{1,3}))?|(dataset):(\d{1,19})|([0-9a-f]{64})", re.ASCII
)


class SourceImage(DocumentedModel):
    """An image to start from, named in one of three ways."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    render_id: RowId | None = Field(None, description="Id of a render, for one of its images.")
    image: int = Field(0, ge=0, lt=MAX_STRIP)
    """Which image of the render, counted from 0."""
    image_id: RowId | None = Field(None, description="Id of an image of a dataset.")
    sha256: str | None = Field(None, max_length=64, pattern=r"^[0-9a-f]{64}$")
    """Hash of an image that was uploaded, or that a render started from."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(name is not None for name in (self.render_id, self.image_id, self.sha256)) != 1:
            raise ValueError(ONE_OF)
        return self

    @classmethod
    def parse(cls, text: str) -> SourceImage:
        """Read `render:12:0`, `render:12`, `dataset:5` or a hash. Raises InvalidInput."""
        found = TEXT.fullmatch(text) if len(text) < 100 else None
        try:
            match found.groups() if found else ():
                case ("render", number, image, _, _, _):
                    return cls(render_id=int(number), image=int(image or 0))
                case (_, _, _, "dataset", number, _):
                    return cls(image_id=int(number))
                case (*_, str(sha256)):
                    return cls(sha256=sha256)
        except ValueError:  # a number that no row has
            pass
        raise InvalidInput(SOURCE_MISSING, fields={"source": SOURCE_MISSING})


@dataclass(frozen=True)
class FoundSource:
    """A source that exists, its size in pixels, and what it is, in words.

    `is_private`: what is made from it has to be private.
    """

    sha256: str
    width: int
    height: int
    words: str
    is_private: bool = False


def find_source(session: Session, named: SourceImage) -> FoundSource:
    """Look up a source. Raises NotFound, also for images that were deleted."""
    if named.render_id is not None:
        return _of_render(session, named.render_id, named.image)
    if named.image_id is not None:
        image = datasets.get_image(session, named.image_id)
        dataset = session.get_one(Dataset, image.dataset_id)
        if dataset.deleted_at is not None:
            raise NotFound(SOURCE_MISSING)
        words = f"{image.filename} of {dataset.name}"
        is_private = visible.is_private(dataset)
        return FoundSource(image.clean_sha256, image.width, image.height, words, is_private)
    row = session.get(RenderSource, named.sha256)
    if row is None or not visible.may_see_image(session, row.sha256):
        raise NotFound(SOURCE_MISSING)
    is_private = visible.is_private_image(session, row.sha256)
    return FoundSource(row.sha256, row.width, row.height, "an image", is_private)


def _of_render(session: Session, render_id: int, index: int) -> FoundSource:
    of_index = (col(RenderImage.render_id) == render_id) & (col(RenderImage.index) == index)
    query = select(Render, RenderImage).join(RenderImage).where(of_index)
    row = session.exec(query.where(col(Render.deleted_at).is_(None))).first()
    if row is None:
        raise NotFound(SOURCE_MISSING)
    render, image = row
    words = f"image {render.key}" if render.count == 1 else f"image {render.key}, {index + 1}"
    is_private = visible.is_private(render)
    return FoundSource(image.sha256, render.width, render.height, words, is_private)


def remember(session: Session, source: FoundSource) -> None:
    """Note that a source is used now, so that its file stays."""
    used = {"used_at": utcnow()}
    row = {"sha256": source.sha256, "width": source.width, "height": source.height, **used}
    upsert(session, RenderSource, [row], used)


def receive(state: AppState, content: IO[bytes]) -> FoundSource:
    """Check and store an uploaded image; the same file twice is one source.

    Raises InvalidInput with the reason for a file that cannot be used.
    """
    taken = intake.take_in(
        [UploadedFile(UPLOAD_NAME, content)],
        decoder=state.decoder,
        store=state.store,
        scratch=state.settings.scratch,
    )
    if not taken.accepted:
        raise invalid_field("source", taken.rejected[0][1])
    (image,) = taken.accepted
    source = FoundSource(image.clean_sha256, image.width, image.height, "an image")
    made = Thumbnail(
        sha256=image.clean_sha256,
        small_sha256=image.small_sha256 or image.thumbnail_sha256,
        large_sha256=image.thumbnail_sha256,
    )
    try:
        with state.database.write() as session:
            remember(session, source)
            thumbnails.save(session, [made])
            if (user_id := current_user_id()) is not None:
                person = {"user_id": user_id}
                upsert(session, SourceUser, [{"sha256": source.sha256, **person}], person)
                book_files(session, state.store, user_id, {source.sha256})
    except QuotaUsedUp:
        discard(state, {*made.model_dump().values()} - {None})
        raise
    return source


def forget_unused(session: Session, among: Collection[str] | None = None) -> list[str]:
    """Delete the sources that nothing starts from and whose last use is hours ago; their hashes.

    `among`: only these; else the oldest, FORGOTTEN_AT_ONCE at most.
    """
    query = select(RenderSource.sha256).where(_is_unused(session))
    if among is not None:
        query = query.where(col(RenderSource.sha256).in_(among))
    oldest = query.order_by(col(RenderSource.used_at)).limit(FORGOTTEN_AT_ONCE)
    with everything(session):
        hashes = list(session.exec(oldest))
    for table in (RenderSource, SourceUser):
        gone = sa.delete(table).where(col(table.sha256).in_(hashes))
        session.connection().execute(gone)
    return hashes


def has_unused(session: Session) -> bool:
    """True if there is a source to be forgotten."""
    query = select(RenderSource.sha256).where(_is_unused(session))
    return session.exec(query.limit(1)).first() is not None


def _is_unused(session: Session) -> sa.ColumnElement[bool]:
    source = col(RenderSource.sha256)
    of_grid = col(Grid.request)["source", "sha256"].as_string()
    users = [
        sa.exists().where(starting == source)
        for starting in (col(Render.source_sha256), col(Recipe.source_sha256), of_grid)
    ]
    is_old = col(RenderSource.used_at) < database_now(session) - SOURCES_KEPT
    return is_old & ~sa.or_(*users)


def size_like(
    source: FoundSource, side: int, width: Any, height: Any, *, step: int = SIDE_STEP
) -> tuple[Any, Any]:
    """(width, height) in pixels of a request: what it leaves out has the aspect of the source.

    With neither, the area of a square of `side`. Other text stays, to be refused. `step`: what
    sides are multiples of.
    """
    aspect = source.width / source.height
    if width is None and height is None:
        return _side(side * math.sqrt(aspect), step), _side(side / math.sqrt(aspect), step)
    if width is None:
        return _side(_number(height, side) * aspect, step), height
    if height is None:
        return width, _side(_number(width, side) / aspect, step)
    return width, height


def nearest_side(value: Any, step: int) -> int | None:
    """The possible side nearest to what was asked for; None for text without a number of pixels."""
    text = str(value)
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return _side(int(text), step) if is_number else None


def _number(value: Any, usual: int) -> int:
    text = str(value)[:6]
    return int(text) if text.isascii() and text.isdigit() else usual


def _side(pixels: float, step: int) -> int:
    """The nearest possible side."""
    return min(MAX_SIDE, max(MIN_SIDE, round(pixels / step) * step))
