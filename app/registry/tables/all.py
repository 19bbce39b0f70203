"""Imports every table, so that the metadata is complete."""

from __future__ import annotations

from app.registry.job_kinds.kinds import JobKind
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
    people,
    prompt_sets,
    recipes,
    renders,
    runs,
    sweeps,
)
from app.registry.tables.owned import (
    follow,
    hide_names,
    register_parts,
    register_subjects,
    register_things,
)

JOB_TABLES = (runs.Run, renders.Render, jobs.IoJob)

THINGS = (
    datasets.Dataset,
    base_models.BaseModel,
    caption_models.CaptionModel,
    runs.Run,
    runs.OwnPreset,
    adapters.Adapter,
    renders.Render,
    grids.Grid,
    blind_tests.BlindTest,
    prompt_sets.PromptSet,
    sweeps.Sweep,
    recipes.Recipe,
    jobs.IoJob,
)
register_things(*THINGS)
hide_names(renders.Render, recipes.Recipe, adapters.AdapterVersion)
register_parts(
    {
        datasets.Image: {"dataset_id": datasets.Dataset},
        datasets.ImageCaption: {"image_id": datasets.Image},
        datasets.CaptionRevision: {"image_id": datasets.Image},
        datasets.DatasetEdit: {"dataset_id": datasets.Dataset},
        datasets.DatasetVersion: {"dataset_id": datasets.Dataset},
        auto_caption.CaptionProposal: {"image_id": datasets.Image},
        base_models.BaseSpeed: {"base_model_id": base_models.BaseModel},
        base_models.BasePrecision: {"base_model_id": base_models.BaseModel},
        runs.RunDataset: {"run_id": runs.Run},
        runs.MetricChunk: {"run_id": runs.Run},
        runs.Checkpoint: {"run_id": runs.Run},
        runs.Sample: {"run_id": runs.Run, "version_id": adapters.AdapterVersion},
        adapters.AdapterVersion: {"adapter_id": adapters.Adapter},
        adapters.AdapterAlias: {"adapter_id": adapters.Adapter},
        adapters.AdapterTag: {"adapter_id": adapters.Adapter},
        adapters.AdapterSearch: {"adapter_id": adapters.Adapter},
        adapters.AdapterFile: {"version_id": adapters.AdapterVersion},
        looks.AdapterLook: {"adapter_id": adapters.Adapter},
        renders.RenderImage: {"render_id": renders.Render},
        renders.RenderAdapter: {"render_id": renders.Render},
        grids.GridCell: {"grid_id": grids.Grid},
        blind_tests.BlindVote: {"test_id": blind_tests.BlindTest},
    },
    added_by_all=(datasets.DatasetVersion, blind_tests.BlindVote),
    changed_with={renders.RenderAdapter: ("adapter_id", adapters.Adapter)},
)
follow(adapters.Adapter, "run_id", runs.Run)
follow(grids.Grid, "blind_test_id", blind_tests.BlindTest)
register_subjects(
    dict.fromkeys((JobKind.INSPECT_BASE, JobKind.DOWNLOAD_BASE), base_models.BaseModel)
    | dict.fromkeys(
        (JobKind.DOWNLOAD_CAPTION_MODEL, JobKind.CHECK_CAPTION_MODEL), caption_models.CaptionModel
    )
    | dict.fromkeys((JobKind.CAPTION_IMAGES, JobKind.PREVIEW_CAPTION), datasets.Dataset)
    | dict.fromkeys(
        (
            JobKind.EXPORT_ADAPTER,
            JobKind.PUBLISH_ADAPTER,
            JobKind.RESIZE_ADAPTER,
            JobKind.SCALE_ADAPTER,
            JobKind.EVALUATE_WEIGHTS,
        ),
        adapters.AdapterVersion,
    )
    | {
        JobKind.KEEP_IN_FOLDER: adapters.Adapter,
        JobKind.EVALUATE_RUN: runs.Run,
        JobKind.ADVANCE_SWEEP: sweeps.Sweep,
    }
)
