"""Operations on base models; the embedded one is registered like any other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from sqlmodel import Session, select

from app.registry.actor import FIRST_USER, Visibility, making_for
from app.registry.added_models import service as added_models
from app.registry.added_models.downloads import newest_downloads
from app.registry.added_models.service import ModelKind, write_ready, write_unusable
from app.registry.base_models.speeds import trained_layers
from app.registry.errors import NotReady, invalid_field
from app.registry.hub_source import HubSource
from app.registry.job_kinds.kinds import DownloadBaseArgs, InspectBaseArgs, JobKind
from app.registry.slugs import RowId, insert_with_slug, unique_slug
from app.registry.tables.added_models import (
    CHANGING,
    EMBEDDED,
    NOT_SHIPPED,
    RETIRED,
    BaseModel,
    BaseSpeed,
    ModelStatus,
)
from app.registry.tables.owned import everything, source_of
from worker.core import starter
from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.families.variants import Variant
from worker.core.starter.checksums import find_damage
from worker.core.training.config import TrainConfig

DEFAULT_PRECISION = "fp16"  # of a download from a repository that has several
MARK_CHARS = 12  # of the fingerprint, in the source of a retired one


def _download_args(
    session: Session, base: BaseModel, source: HubSource, precision: str | None
) -> DownloadBaseArgs:
    """The arguments of a download; the precision is by default that of the last one."""
    if precision is None:
        newest = newest_downloads(session, JobKind.DOWNLOAD_BASE, [base.key]).get(base.key)
        last = newest.readable_arguments() if newest else None
        precision = last.precision if isinstance(last, DownloadBaseArgs) else DEFAULT_PRECISION
    return DownloadBaseArgs(
        repo=source.repo, revision=source.revision, file=source.file, precision=precision
    )


BASE_MODELS = ModelKind(
    table=BaseModel,
    name="base model",
    places="a diffusers folder or .safetensors file",
    file_ending=".safetensors",
    other_file="Only .safetensors files can be read: others can run code when they are opened, or "
    "have rounded weights, as GGUF has. Choose a .safetensors file or a diffusers folder.",
    field="base_model",
    check=InspectBaseArgs(),
    download=JobKind.DOWNLOAD_BASE,
    make_download=_download_args,
    download_folder=lambda settings: settings.hub_models,
    corrected=frozenset({"variant"}),
)

BaseReference = Annotated[str, Field(max_length=1_000)] | RowId
"""A base model in JSON: its slug, its source or its id."""


def ensure_embedded(session: Session) -> BaseModel:
    """The embedded base model; registers it if needed."""
    embedded = select(BaseModel).where(BaseModel.source == EMBEDDED)
    with everything(session):
        base = session.exec(embedded).first()
    if base is not None:
        return base
    with making_for(FIRST_USER, Visibility.STUDIO):  # nobody's, whoever asks first
        base = insert_with_slug(session, BaseModel, EMBEDDED, fallback=EMBEDDED, source=EMBEDDED)
        if base is None:  # another process just did
            return session.exec(embedded).one()
        added_models.order_check(session, BASE_MODELS, base)
    return base


def list_base_models(session: Session) -> list[BaseModel]:
    """All base models that are not removed: the embedded one first, then the oldest.

    The embedded one of a new version has a newer row than those that a person added before.
    """
    bases = added_models.list_models(session, BASE_MODELS)
    return sorted(bases, key=lambda base: base.source != EMBEDDED)


def base_of(session: Session, base_id: int) -> BaseModel:
    """The base model that something was made with; a stand-in named “private” if it is hidden."""
    return source_of(session, BaseModel, base_id)


def get_base_model(session: Session, base_id: int) -> BaseModel:
    """Look up a base model. Raises NotFound."""
    return added_models.get_model(session, BASE_MODELS, base_id)


def find_base_model(session: Session, reference: BaseReference | None) -> BaseModel:
    """Look up a base model by slug, source or id; None means the embedded one."""
    if reference is None:
        return ensure_embedded(session)
    return added_models.find_model(session, BASE_MODELS, reference)


def correct_variant(session: Session, base_id: int, variant: Variant) -> BaseModel:
    """Store the variant of a base model. Raises NotFound, and InvalidInput if it has none."""
    base = get_base_model(session, base_id)
    if base.variant is None:
        raise invalid_field("variant", f"“{base.name}” is of a family without variants.")
    base.variant = variant
    session.add(base)
    return base


def require_ready(base: BaseModel) -> None:
    """Raise InvalidInput or NotReady if a base model cannot be used now, with the reason."""
    if base.status != ModelStatus.FAILED and (base.is_retired or not _is_shipped(base)):
        sentence = NOT_SHIPPED.format(name=base.name)
    else:
        sentence = added_models.problem_of(BASE_MODELS, base)
        if base.status in CHANGING:
            raise NotReady(sentence)
    if sentence:
        raise invalid_field("base_model", sentence)


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


def inspect_embedded(session: Session) -> None:
    """Make the row of the embedded base model that of this version's files; takes milliseconds.

    New users train on it first, possibly before an io worker has started. If an earlier version
    embedded another one, its row is retired, and adapters, runs and images keep it. Files that are
    damaged retire nothing: the row gets the reason, and is ready again at the first start with
    sound files.
    """
    try:
        info = inspect_base(starter.PATH)
        if _is_of_older_version(session, info) and (damage := find_damage()):
            raise BaseModelError(damage)
    except BaseModelError as error:
        base = ensure_embedded(session)
        write_unusable(session, BASE_MODELS, base.key, str(error))
        return
    if _is_of_older_version(session, info):
        _retire(session, ensure_embedded(session))
        _revive(session, info)
    base = ensure_embedded(session)
    if base.status != ModelStatus.READY or base.fingerprint is None:
        write_ready(session, BASE_MODELS, base.key, info)


def _is_of_older_version(session: Session, info: BaseInfo) -> bool:
    known = ensure_embedded(session).fingerprint
    return known is not None and known != info.fingerprint


def _retire(session: Session, base: BaseModel) -> None:
    """Give up source, slug and name to the row of the base model that is embedded now."""
    side = f"{base.resolution} px" if base.resolution else "older"
    base.source = f"{RETIRED}{(base.fingerprint or '')[:MARK_CHARS]}"
    base.name = f"{base.name} ({side})"
    base.slug = unique_slug(session, BaseModel, base.name, fallback=EMBEDDED)
    base.status, base.error = ModelStatus.REMOVED, None
    session.add(base)
    session.flush()


def _revive(session: Session, info: BaseInfo) -> None:
    """Take back the row of these files, if they were embedded in an older version too."""
    source = f"{RETIRED}{info.fingerprint[:MARK_CHARS]}"
    base = session.exec(select(BaseModel).where(BaseModel.source == source)).first()
    if base is not None:
        base.source, base.name, base.slug = EMBEDDED, EMBEDDED, EMBEDDED
        base.status = ModelStatus.CHECKING
        session.add(base)
        session.flush()
