"""Mutable metadata in a download: a file with other metadata is outdated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from sqlmodel import Session, select

from app.registry.adapters.models import Adapter, AdapterTag, AdapterVersion
from app.registry.base_models.models import BaseModel

USUAL_RESOLUTION = 512


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Metadata of the registry in a file, without a version's immutable properties.

    `resolution` in pixels. Notes and tags are empty in files without them.
    """

    title: str
    slug: str
    base_name: str
    resolution: int
    prediction_type: str
    trigger_words: tuple[str, ...] = ()
    licence: str = ""
    cover_sha256: str | None = None
    notes: str = ""
    tags: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the metadata, equal in every process."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def file_facts(session: Session, version: AdapterVersion, *, with_tags: bool = False) -> FileFacts:
    """The current metadata for a download of this version; notes and tags only `with_tags`."""
    adapter = session.get_one(Adapter, version.adapter_id)
    base = session.get(BaseModel, version.base_model_id) if version.base_model_id else None
    predicted = version.config.get("prediction_type") or (base and base.prediction_type)
    tags = select(AdapterTag.tag).where(AdapterTag.adapter_id == adapter.key)
    return FileFacts(
        title=adapter.name,
        slug=file_slug(adapter.slug, version.version),
        base_name=base.name if base else "",
        resolution=version.config.get("resolution")
        or (base and base.resolution)
        or USUAL_RESOLUTION,
        prediction_type=str(predicted or "epsilon"),
        trigger_words=tuple(adapter.trigger_words),
        licence=adapter.licence,
        cover_sha256=adapter.cover_sha256,
        notes=adapter.notes if with_tags else "",
        tags=tuple(sorted(session.exec(tags))) if with_tags else (),
    )


def file_slug(slug: str, version: int) -> str:
    """The name inside a file, which web UIs show: that of the default download."""
    return f"{slug}-v{version}"
