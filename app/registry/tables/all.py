"""Imports every table, so that the metadata is complete."""

from __future__ import annotations

from app.registry.tables import (  # noqa: F401
    access,
    adapters,
    auto_caption,
    base_models,
    caption_models,
    datasets,
    erased_hashes,
    file_checks,
    grids,
    idempotency,
    jobs,
    recipes,
    renders,
    runs,
    store_owner,
    thumbnails,
)

JOB_TABLES = (runs.Run, renders.Render, jobs.IoJob)
