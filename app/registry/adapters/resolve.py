"""Look up the adapters that a render or a tool names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from worker.core.inference.config import MAX_CLIP_SKIP


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


def trained_skip(config: Mapping[str, Any]) -> int:
    """The CLIP skip of a training config; 1 when it is missing or invalid."""
    skip = config.get("clip_skip")
    return skip if type(skip) is int and 1 <= skip <= MAX_CLIP_SKIP else 1
