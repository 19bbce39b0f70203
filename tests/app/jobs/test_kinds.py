"""Every kind of io job reads and writes the rows of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest

from app.registry.adapters import service as adapters
from app.registry.db import Database
from app.registry.job_kinds.job_types import JOB_TYPES, LONG_KINDS, read_arguments, read_result
from app.registry.job_kinds.kinds import (
    ByteProgress,
    DamagedJob,
    ExportAdapterArgs,
    ExtractAdapterArgs,
    FuseAdapterArgs,
    ImportAdapterArgs,
    ImportAdapterResult,
    JobArgs,
    JobKind,
    JobResult,
    MergeAdaptersArgs,
    PublishAdapterArgs,
    StepProgress,
    SweepArgs,
)
from app.registry.jobs import service as jobs
from app.registry.tables.jobs import IoJob
from worker.core.words import FileFormat, WeightDtype

A, B = "a" * 64, "b" * 64
PART = {
    "adapter_id": 3,
    "version_id": 7,
    "version": 2,
    "slug": "ink",
    "name": "Ink",
    "weight": 0.8,
    "text_encoder_weight": None,
}
FIGURES = {
    "modules": 9,
    "rank_min": 2,
    "rank_max": 4,
    "energy_min": 0.97,
    "energy_mean": 0.98,
    "relative_error": 0.1,
}
VERSION = {"adapter_id": 3, "slug": "ink", "name": "Ink", "version": 2}
STEPS = {"done": 4, "total": 9}
BYTES = {"file": "unet/x.safetensors", "bytes_done": 5, "bytes_total": 9}
# rows as the version before the typed models wrote them
STORED_ARGS: list[tuple[str, dict[str, Any]]] = [
    ("inspect_base", {}),
    ("download_base", {"repo": "a/b", "revision": None, "file": None, "precision": "fp16"}),
    ("download_base", {"repo": "a/b", "revision": "v1", "file": "x.st", "precision": "fp32"}),
    ("export_adapter", {"format": "kohya", "dtype": "fp16"}),
    ("export_adapter", {"format": "bundle", "dtype": "bf16", "with_tags": True}),
    ("keep_in_folder", {"folder": "ComfyUI", "version": "latest", "file": "ink.safetensors"}),
    (
        "keep_in_folder",
        {"folder": "Forge", "version": "v1", "file": "a.st", "removes": True, "hashes": [A]},
    ),
    ("import_adapter", {"sha256": A, "filename": "ink.safetensors"}),
    (
        "import_adapter",
        {
            "sha256": A,
            "filename": "ink.safetensors",
            "adapter_id": 3,
            "base_model_id": 1,
            "sidecars": [{"name": "ink.json", "sha256": B}],
        },
    ),
    ("fetch_hub_adapter", {"repo": "a/b", "revision": "v1", "file": None}),
    (
        "publish_adapter",
        {
            "repo": "ink",
            "update": False,
            "private": True,
            "base_model": "",
            "pictures": [{"sha256": A, "prompt": "a fox"}],
        },
    ),
    (
        "merge_adapters",
        {
            "name": "Both",
            "parts": [PART, PART | {"adapter_id": 4, "text_encoder_weight": -0.5}],
            "method": "linear",
            "rank": None,
            "density": 0.5,
            "seed": 0,
        },
    ),
    ("resize_adapter", {"rank": None, "energy": 0.9, "dynamic": True}),
    ("resize_adapter", {"rank": 4, "energy": None, "dynamic": False}),
    (
        "fuse_adapter",
        {
            "name": "Inked",
            "parts": [PART],
            "layout": "single",
            "dtype": "keep",
            "keep": "download",
        },
    ),
    ("extract_adapter", {"tuned_id": 2, "rank": 16, "name": "Difference"}),
    ("scale_adapter", {"blocks": {"input": 0.5, "middle": 1.0, "output": 0.0}, "use": True}),
    ("measure_overlap", {"other_id": 8}),
    ("dry_run", {"config": {"steps": 9, "rank": 4}, "dataset_ids": [2, 5]}),
    (
        "evaluate_run",
        {
            "grid_id": 3,
            "steps": [20, 40],
            "subjects": ["cat"],
            "prompts": ["cat, ink"],
            "trained": [0, 2],
            "held_out": [1],
            "captions": ["a fox", "", "a boat"],
        },
    ),
    (
        "evaluate_weights",
        {
            "grid_id": 3,
            "subjects": ["cat"],
            "prompts": ["cat, ink"],
            "weights": [0.5, 1.0, 2.0],
            "base_model_id": 1,
            "dataset_id": 4,
        },
    ),
    ("advance_sweep", {}),
    (
        "advance_sweep",
        {
            "grid_id": 3,
            "subjects": ["cat"],
            "prompts": ["cat, ink"],
            "stage": "half",
            "run_ids": [4, 5],
            "steps": [100, 100],
        },
    ),
    ("sweep", {}),
    ("make_thumbnails", {}),
    ("measure_looks", {}),
    ("measure_image", {"image": "AAAA"}),
    ("check_files", {}),
    ("delete_drafts", {}),
    ("caption_images", {"provider": "builtin", "image_ids": [4, 2]}),
    (
        "caption_images",
        {
            "provider": "ollama",
            "address": "http://127.0.0.1:11434",
            "model": "llava",
            "prompt": "Say it",
            "do_not_name": ["ink"],
            "image_ids": [4],
            "mode": "append",
        },
    ),
    ("preview_caption", {"provider": "local", "model_id": 3, "image_id": 4}),
    ("download_caption_model", {"repo": "a/b", "revision": None}),
    ("check_caption_model", {}),
]
STORED_RESULTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in JOB_TYPES),
    ("download_base", BYTES),
    ("download_caption_model", BYTES),
    ("export_adapter", {"sha256": A}),
    ("export_adapter", {"code_version": "1.0", "facts_sha256": A}),
    ("import_adapter", STEPS),
    ("import_adapter", {"adapter_id": 3, "version": 2, "duplicate": True}),
    ("import_adapter", {"adapter_id": 3, "version": 2, "duplicate": False, "notes": ["Read."]}),
    ("fetch_hub_adapter", BYTES),
    ("fetch_hub_adapter", {"import_id": 5}),
    ("publish_adapter", {"repo": "a/ink", "url": "https://x", "commit": "c", "private": False}),
    ("merge_adapters", STEPS),
    ("merge_adapters", FIGURES | VERSION),
    ("resize_adapter", FIGURES | VERSION),
    ("fuse_adapter", {"layers": 3, "size_bytes": 7, "base_model_id": 2, "slug": "x", "name": "X"}),
    ("fuse_adapter", {"layers": 3, "size_bytes": 7, "sha256": A, "filename": "x.safetensors"}),
    ("scale_adapter", FIGURES | VERSION),
    ("extract_adapter", FIGURES | VERSION),
    ("measure_overlap", {"cosine": 0.5, "changed": 2, "layers": [["unet.x", 0.5, 0.1, 0.2]]}),
    (
        "dry_run",
        {
            "device": "CPU, 1 thread",
            "seconds_per_step": 0.25,
            "seconds_low": 0.2,
            "seconds_high": 0.3,
            "sample_seconds": None,
            "peak_memory_bytes": 1_200_000_000,
            "layers": 24,
            "all_layers": 66,
            "changes": ["The batch size is now 1."],
        },
    ),
    ("evaluate_run", STEPS),
    (
        "evaluate_run",
        {
            "steps": [
                {
                    "step": 20,
                    "style": 0.6,
                    "low": 0.5,
                    "high": 0.7,
                    "adherence": None,
                    "variety": 1.0,
                    "copy_ratio": 0.8,
                    "leak": None,
                    "drift": None,
                    "inside": None,
                    "left_out": "",
                    "is_equal": False,
                    "closest": [[0, 0.4]],
                }
            ],
            "recommended": 20,
            "reason": "It is the only one.",
            "deciding": [3, 1],
            "notes": [],
        },
    ),
    (
        "evaluate_weights",
        {
            "notes": ["Adherence is not measured."],
            "weights": [
                {
                    "weight": 0.5,
                    "style": 0.6,
                    "low": 0.5,
                    "high": 0.7,
                    "patches": 0.4,
                    "adherence": None,
                }
            ],
            "card": {"start": None, "best": 0.5, "breaks": 1.5, "base": "starter"},
        },
    ),
    ("sweep", {"files": 1, "size_bytes": 4}),
    ("make_thumbnails", STEPS),
    ("measure_looks", STEPS),
    ("measure_image", {"look": "AAAA"}),
    ("check_files", {"files": 3, "size_bytes": 9, "problems": 1, "left": 0}),
    ("delete_drafts", {"files": 3, "size_bytes": 9}),
    ("caption_images", {"done": 4, "total": 4, "written": 3}),
    ("preview_caption", {"caption": "a fox", "title": "Built in", "removed": ["ink"]}),
    ("preview_caption", {"note": "It was cut off."}),
]


def test_every_kind_is_registered_once() -> None:
    assert list(JOB_TYPES) == list(JobKind)
    assert {kind for kind, _ in STORED_ARGS} == set(JobKind)
    args = [job_type.args for job_type in JOB_TYPES.values()]
    assert len({*args}) == len(JobKind)


def test_long_kinds_are_those_that_a_stopping_worker_returns_to_the_queue() -> None:
    assert set(LONG_KINDS) == {
        "download_base",
        "fetch_hub_adapter",
        "publish_adapter",
        "merge_adapters",
        "resize_adapter",
        "scale_adapter",
        "fuse_adapter",
        "extract_adapter",
        "evaluate_run",
        "evaluate_weights",
        "advance_sweep",
        "sweep",
        "caption_images",
        "download_caption_model",
    }


@pytest.mark.parametrize(("kind", "stored"), STORED_ARGS)
def test_stored_arguments_are_read_and_written_as_they_were(
    kind: str, stored: dict[str, Any]
) -> None:
    args = read_arguments(kind, stored)
    assert type(args) is JOB_TYPES[kind].args
    assert args.stored() == stored
    assert read_arguments(kind, stored | {"of_a_newer_version": 1}) == args


@pytest.mark.parametrize(("kind", "stored"), STORED_RESULTS)
def test_stored_results_are_read_and_written_as_they_were(
    kind: str, stored: dict[str, Any]
) -> None:
    result = read_result(kind, stored)
    assert type(result) is JOB_TYPES[kind].result
    assert result.stored() == stored
    assert read_result(kind, stored | {"of_a_newer_version": 1}).stored() == stored


def test_each_value_has_its_type() -> None:
    read = {kind: read_arguments(kind, stored) for kind, stored in STORED_ARGS}
    merge, fuse = read["merge_adapters"], read["fuse_adapter"]
    assert isinstance(merge, MergeAdaptersArgs)
    assert isinstance(fuse, FuseAdapterArgs)
    assert [part.text_encoder_weight for part in merge.parts] == [None, -0.5]
    assert fuse.parts[0].version_id == 7
    publish, imported = read["publish_adapter"], read["import_adapter"]
    assert isinstance(publish, PublishAdapterArgs)
    assert isinstance(imported, ImportAdapterArgs)
    assert (publish.pictures[0].sha256, imported.sidecars[0].name) == (A, "ink.json")


@pytest.mark.parametrize(
    ("kind", "damaged", "sentence"),
    [
        ("export_adapter", {"format": "kohya"}, "dtype: This is required."),
        ("export_adapter", {"format": "gif", "dtype": "fp16"}, "format: "),
        ("extract_adapter", {"tuned_id": "x", "rank": 1, "name": "x"}, "tuned_id: Enter a whole"),
        ("fuse_adapter", {"parts": [PART | {"weight": 99}]}, "parts.0.weight: The weight is 99; "),
    ],
)
def test_damaged_arguments_are_named(kind: str, damaged: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DamagedJob) as raised:
        read_arguments(kind, damaged)
    assert raised.value.detail.startswith("The stored arguments of this job are damaged. ")
    assert sentence in raised.value.detail
    assert IoJob(kind=kind, args=damaged).readable_arguments() is None


def test_a_damaged_result_and_an_unknown_kind_are_named() -> None:
    with pytest.raises(DamagedJob, match=r"stored result of this job is damaged\. adapter_id: "):
        IoJob(kind="import_adapter", result={"adapter_id": "x"}).outcome(ImportAdapterResult)
    with pytest.raises(DamagedJob, match="no job of the kind “dance”"):
        read_arguments("dance", {})
    assert IoJob(kind="dance").readable_arguments() is None


def test_a_job_is_read_as_the_models_of_its_kind_or_their_bases() -> None:
    job = IoJob(kind="import_adapter", args={"sha256": A, "filename": "x"}, result=STEPS)
    assert job.arguments(JobArgs) == job.arguments(ImportAdapterArgs)
    assert job.outcome(JobResult) == job.outcome(ImportAdapterResult)
    assert job.outcome(StepProgress).share == 4 / 9
    with pytest.raises(AssertionError):
        job.arguments(ExtractAdapterArgs)
    with pytest.raises(AssertionError):
        job.outcome(ByteProgress)


def test_a_job_is_stored_with_the_kind_and_json_of_its_arguments(database: Database) -> None:
    args = ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.FP16)
    with database.write() as session:
        key = jobs.enqueue_io(session, args, subject_id=7).key
        last = jobs.enqueue_io(session, SweepArgs(), priority=100, max_attempts=1).key
    with database.read() as session:
        job, sweep = session.get_one(IoJob, key), session.get_one(IoJob, last)
    assert (job.kind, job.subject_id, job.priority, job.max_attempts) == ("export_adapter", 7, 0, 3)
    assert job.args == {"format": "peft", "dtype": "fp16"}
    assert job.arguments(ExportAdapterArgs) == args
    assert (sweep.kind, sweep.args, sweep.priority, sweep.max_attempts) == ("sweep", {}, 100, 1)


def test_an_order_is_found_in_the_rows_of_other_versions(database: Database) -> None:
    stored = [
        {"format": "kohya", "dtype": "fp16"},
        {"format": "kohya", "dtype": "fp16", "with_tags": True},
        {"format": "peft", "dtype": "fp16", "with_tags": False, "of_a_newer_version": 1},
        {"format": "kohya"},  # damaged
    ]
    with database.write() as session:
        rows = [
            jobs.enqueue(session, IoJob(kind="export_adapter", subject_id=1, args=args))
            for args in stored
        ]
        plain, tagged, newer, _ = (row.key for row in rows)
    wanted = {
        plain: (FileFormat.KOHYA, False),
        tagged: (FileFormat.KOHYA, True),
        newer: (FileFormat.PEFT, False),
    }
    with database.read() as session:
        for key, (file_format, with_tags) in wanted.items():
            found = adapters.newest_order(
                session,
                1,
                ExportAdapterArgs(format=file_format, dtype=WeightDtype.FP16, with_tags=with_tags),
            )
            assert found is not None
            assert found.key == key
        none = adapters.newest_order(
            session, 1, ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.BF16)
        )
        assert none is None
