"""Look up the adapters that a render or a tool names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, func, select

from app.registry.adapters import service
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.errors import NotFound
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.tables.adapters import Adapter, is_in_library
from app.registry.wording import join_words
from worker.core.inference.config import MAX_CLIP_SKIP

MAX_WORDS = 200
MOST_NAMED = 5


def resolve(session: Session, named: WeightedAdapter) -> tuple[ResolvedAdapter, AdapterAndVersion]:
    """The adapter as it is stored, and its rows. Raises NotFound."""
    adapter = service.get_adapter(session, named.adapter_id)
    version = service.get_version(session, adapter, named.version)
    resolved = ResolvedAdapter(
        adapter_id=adapter.key,
        version=version.version,
        weight=version.usual_weight if named.weight is None else named.weight,
        text_encoder_weight=named.text_encoder_weight,
        block_weights=named.block_weights,
        version_id=version.key,
        name=adapter.name,
        slug=adapter.slug,
        sha256=version.sha256,
        base_model_id=version.base_model_id,
        clip_skip=trained_skip(version.config),
    )
    return resolved, (adapter, version)


def find_version(session: Session, words: str) -> AdapterAndVersion:
    """The version that a person named: the slug or name of its adapter, with `@2` or `@best`.

    Raises NotFound, also for a name that several adapters have.
    """
    head, _, version = words.strip()[:MAX_WORDS].partition("@")
    is_named = func.lower(col(Adapter.name)) == func.lower(head.strip())
    own = select(Adapter).where(Adapter.slug == head.strip())
    named = select(Adapter).where(is_named, is_in_library()).limit(MOST_NAMED)
    found = session.exec(own).all() or session.exec(named).all()
    if len(found) != 1:
        slugs = join_words(adapter.slug for adapter in found)
        several = f"Several adapters are called “{head}”: name one of {slugs}."
        raise NotFound(several if found else f"There is no adapter “{head[:80]}”.")
    adapter = service.get_adapter(session, found[0].key)
    return adapter, service.get_version(session, adapter, version.strip() or None)


def trained_skip(config: Mapping[str, Any]) -> int:
    """The CLIP skip of a training config; 1 when it is missing or invalid."""
    skip = config.get("clip_skip")
    return skip if type(skip) is int and 1 <= skip <= MAX_CLIP_SKIP else 1
