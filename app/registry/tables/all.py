"""Imports every table, so that the metadata is complete."""

from __future__ import annotations

from app.registry.job_kinds.kinds import JobKind
from app.registry.tables import (
    adapters,
    added_models,
    blind_tests,
    blobs,
    datasets,
    jobs,
    prompt_sets,
    renders,
    runs,
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
    added_models.BaseModel,
    added_models.CaptionModel,
    runs.Run,
    runs.OwnPreset,
    adapters.Adapter,
    renders.Render,
    renders.Grid,
    blind_tests.BlindTest,
    prompt_sets.PromptSet,
    runs.Sweep,
    renders.Recipe,
    jobs.IoJob,
)
register_things(*THINGS)
hide_names(renders.Render, renders.Recipe, adapters.AdapterVersion)
register_parts(
    {
        datasets.Image: {"dataset_id": datasets.Dataset},
        datasets.ImageCaption: {"image_id": datasets.Image},
        datasets.CaptionRevision: {"image_id": datasets.Image},
        datasets.DatasetEdit: {"dataset_id": datasets.Dataset},
        datasets.DatasetVersion: {"dataset_id": datasets.Dataset},
        datasets.CaptionProposal: {"image_id": datasets.Image},
        added_models.BaseSpeed: {"base_model_id": added_models.BaseModel},
        added_models.BasePrecision: {"base_model_id": added_models.BaseModel},
        runs.RunDataset: {"run_id": runs.Run},
        runs.MetricChunk: {"run_id": runs.Run},
        runs.Checkpoint: {"run_id": runs.Run},
        runs.Sample: {"run_id": runs.Run, "version_id": adapters.AdapterVersion},
        adapters.AdapterVersion: {"adapter_id": adapters.Adapter},
        adapters.AdapterAlias: {"adapter_id": adapters.Adapter},
        adapters.AdapterTag: {"adapter_id": adapters.Adapter},
        adapters.AdapterSearch: {"adapter_id": adapters.Adapter},
        adapters.AdapterFile: {"version_id": adapters.AdapterVersion},
        blobs.AdapterLook: {"adapter_id": adapters.Adapter},
        renders.RenderImage: {"render_id": renders.Render},
        renders.RenderAdapter: {"render_id": renders.Render},
        renders.GridCell: {"grid_id": renders.Grid},
        blind_tests.BlindVote: {"test_id": blind_tests.BlindTest},
    },
    added_by_all=(datasets.DatasetVersion, blind_tests.BlindVote),
    changed_with={renders.RenderAdapter: ("adapter_id", adapters.Adapter)},
)
follow(adapters.Adapter, "run_id", runs.Run)
follow(renders.Grid, "blind_test_id", blind_tests.BlindTest)
register_subjects(
    dict.fromkeys((JobKind.INSPECT_BASE, JobKind.DOWNLOAD_BASE), added_models.BaseModel)
    | dict.fromkeys(
        (JobKind.DOWNLOAD_CAPTION_MODEL, JobKind.CHECK_CAPTION_MODEL), added_models.CaptionModel
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
        JobKind.ADVANCE_SWEEP: runs.Sweep,
    }
)
