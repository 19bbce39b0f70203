"""Imports every table, so that the metadata is complete."""

from __future__ import annotations

from app.registry.tables import (  # noqa: F401
    access,
    adapters,
    auto_caption,
    base_models,
    blind_tests,
    blobs,
    caption_models,
    datasets,
    grids,
    jobs,
    looks,
    prompt_sets,
    recipes,
    renders,
    runs,
    sweeps,
)

JOB_TABLES = (runs.Run, renders.Render, jobs.IoJob)
