"""Operations on base models; the embedded one is registered like any other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.base_models.speeds import trained_layers
from app.registry.errors import Conflict, InvalidInput, NotFound, NotReady
from app.registry.job_kinds.kinds import InspectBaseArgs
from app.registry.jobs.service import enqueue_io
from app.registry.model_sources import MAX_NAME, SourceWords, bad_source, require_path
from app.registry.slugs import insert_with_slug
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import EMBEDDED, BaseModel, BaseSpeed
from worker.core import starter
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.training.config import TrainConfig

NOT_SHIPPED = (
    "The base model “{name}” is no longer shipped with Brushwork, so nothing new can be made with "
    "it. What was made with it stays. Choose another base model."
)
ALREADY = "This base model has already been added as “{name}”."
WORDS = SourceWords("Base models", "a diffusers folder or .safetensors file")
ADDABLE = (
    ModelStatus.FAILED,
    ModelStatus.REMOVED,
)  # statuses of base models that can be added again

BaseReference = Annotated[str, Field(max_length=1_000)] | int
"""A base model in JSON: its slug, its source or its id."""


def ensure_embedded(session: Session) -> BaseModel:
    """The embedded base model; registers it if needed."""
    base = session.exec(select(BaseModel).where(BaseModel.source == EMBEDDED)).first()
    if base is None:
        try:
            base = _add_row(session, source=EMBEDDED, name=EMBEDDED)
        except Conflict:  # another process just did
            base = session.exec(select(BaseModel).where(BaseModel.source == EMBEDDED)).one()
    return base


def add_base_model(
    session: Session, source: str, *, allowed_folders: Sequence[Path] | None
) -> BaseModel:
    """Register a folder or `.safetensors` file, which an io worker then inspects.

    `allowed_folders`: None allows any path on this machine.
    """
    path = _require_path(source, allowed_folders)
    existing = session.exec(select(BaseModel).where(BaseModel.source == str(path))).first()
    if existing is not None:
        if existing.status not in ADDABLE:
            raise Conflict(ALREADY.format(name=existing.name))
        existing.status, existing.error = ModelStatus.CHECKING, None
        session.add(existing)
        enqueue_io(session, InspectBaseArgs(), subject_id=existing.key)
        return existing
    return _add_row(session, source=str(path), name=path.stem if path.is_file() else path.name)


def insert_new(session: Session, *, source: str, name: str) -> BaseModel:
    """A new base model. Raises Conflict if another request just added the same source."""
    base = insert_with_slug(session, BaseModel, name, fallback="base", source=source)
    if base is None:
        raise Conflict(ALREADY.format(name=name))
    return base


def _add_row(session: Session, *, source: str, name: str) -> BaseModel:
    base = insert_new(session, source=source, name=name[:MAX_NAME])
    enqueue_io(session, InspectBaseArgs(), subject_id=base.key)
    return base


def _require_path(source: str, allowed_folders: Sequence[Path] | None) -> Path:
    path = require_path(source, allowed_folders, WORDS)
    if path.is_file() and path.suffix != ".safetensors":
        raise bad_source(
            "Only .safetensors files can be read, because other formats can run code when opened. "
            "Choose a .safetensors file or a diffusers folder."
        )
    return path


def list_base_models(session: Session) -> list[BaseModel]:
    """All base models that are not removed: the embedded one first, then the oldest.

    The embedded one of a new version has a newer row than those that a person added before.
    """
    here = select(BaseModel).where(BaseModel.status != ModelStatus.REMOVED)
    return list(session.exec(here.order_by(col(BaseModel.source) != EMBEDDED, col(BaseModel.id))))


def get_base_model(session: Session, base_id: int) -> BaseModel:
    """Look up a base model. Raises NotFound."""
    base = session.get(BaseModel, base_id)
    if base is None:
        raise NotFound("This base model does not exist.")
    return base


def find_base_model(session: Session, reference: BaseReference | None) -> BaseModel:
    """Look up a base model by id, slug or source; None means the embedded one."""
    if reference is None:
        return ensure_embedded(session)
    text = str(reference)
    query = select(BaseModel).where((col(BaseModel.slug) == text) | (col(BaseModel.source) == text))
    base = session.exec(query).first()
    if base is None and text.isascii() and text.isdigit() and len(text) < 10:
        base = session.get(BaseModel, int(text))
    if base is None:
        known = ", ".join(row.slug for row in list_base_models(session))
        sentence = f"Unknown base model “{text[:80]}”. Choose one of: {known}."
        raise InvalidInput(sentence, fields={"base_model": sentence})
    return base


def require_ready(base: BaseModel) -> None:
    """Raise InvalidInput or NotReady if a base model cannot be used now, with the reason."""
    if base.status == ModelStatus.FAILED:
        sentence = f"The base model “{base.name}” cannot be used: {base.error}"
    elif base.is_retired or not _is_shipped(base):
        sentence = NOT_SHIPPED.format(name=base.name)
    elif base.status == ModelStatus.CHECKING:
        raise NotReady(f"The base model “{base.name}” is being inspected. Try again in a moment.")
    elif base.status == ModelStatus.DOWNLOADING:
        raise NotReady(
            f"The base model “{base.name}” is being downloaded. The base models page shows its "
            "progress."
        )
    elif base.status == ModelStatus.REMOVED:
        sentence = f"The base model “{base.name}” was removed. Add it again to use it."
    else:
        sentence = missing_files(base)
    if not sentence:
        return
    raise InvalidInput(sentence, fields={"base_model": sentence})


def missing_files(base: BaseModel) -> str:
    """A sentence if the files of a base model are gone; "" if they are there."""
    if base.location.exists():
        return ""
    if base.local_path:
        return f"The files of “{base.name}” are missing. Download it again on the base models page."
    return f"The files of “{base.name}” are missing from {base.source}. Put them back."


def _is_shipped(base: BaseModel) -> bool:
    """False for the row of the embedded base model of an older version that is not retired yet.

    A worker can see it in the moments before the web server of the new version has started.
    """
    if base.source != EMBEDDED or base.fingerprint is None:
        return True
    try:
        return base.fingerprint == _read_fingerprint(starter.PATH)
    except BaseModelError:
        return True  # damaged, and loading it says how


@cache
def _read_fingerprint(path: Path) -> str:
    """The fingerprint of the files that this version embeds. Raises BaseModelError."""
    return inspect_base(path).fingerprint


def nearest_speed(
    session: Session, base: BaseModel, config: TrainConfig, *, resolution: int
) -> BaseSpeed | None:
    """The measurement on this base model that is closest to the config; None if there is none.

    Measurements of the same layers come first, because only they give the trained parameters.
    """
    layers = trained_layers(config)
    speeds = session.exec(
        select(BaseSpeed).where(
            BaseSpeed.base_model_id == base.key, BaseSpeed.resolution == resolution
        )
    ).all()
    return min(
        speeds,
        key=lambda speed: (
            speed.layers != layers,
            abs(speed.batch_size - config.batch_size),
            abs(speed.rank - config.rank),
        ),
        default=None,
    )
