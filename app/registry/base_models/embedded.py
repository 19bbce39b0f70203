"""The row of the embedded base model, from one version of Brushwork to the next."""

from __future__ import annotations

from sqlmodel import Session, select

from app.registry.added_models.service import write_ready, write_unusable
from app.registry.base_models import service
from app.registry.slugs import unique_slug
from app.registry.tables.added_models import EMBEDDED, RETIRED, BaseModel, ModelStatus
from worker.core import starter
from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.starter.checksums import find_damage

MARK_CHARS = 12  # of the fingerprint, in the source of a retired one


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
        base = service.ensure_embedded(session)
        write_unusable(session, service.BASE_MODELS, base.key, str(error))
        return
    if _is_of_older_version(session, info):
        _retire(session, service.ensure_embedded(session))
        _revive(session, info)
    base = service.ensure_embedded(session)
    if base.status != ModelStatus.READY or base.fingerprint is None:
        write_ready(session, service.BASE_MODELS, base.key, info)


def _is_of_older_version(session: Session, info: BaseInfo) -> bool:
    known = service.ensure_embedded(session).fingerprint
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
