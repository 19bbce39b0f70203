"""Work of the tools that somebody asks to end: nothing of it is left, however late that comes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from app.registry.adapters import service, tools
from app.registry.job_kinds.kinds import ResizeAdapterArgs
from app.registry.storage.store import Blob
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from tests.fake_workers import weighted
from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.runtime.job_loops import Registry
from tests.worker.runtime.test_tool_jobs import add, done, work_of
from worker.core import starter
from worker.core.lora_files import canonical
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.runtime import tool_jobs
from worker.runtime.job_progress import JobProgress


def test_a_cancel_while_it_fuses_leaves_no_half_base(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    begun, go_on = threading.Event(), threading.Event()
    told = JobProgress.__call__

    def slowly(progress: JobProgress, at: int, total: int) -> None:
        told(progress, at, total)
        if at == 50:
            begun.set()
            assert go_on.wait(60)
            progress._looked = 0.0

    monkeypatch.setattr(JobProgress, "__call__", slowly)
    with registry.database.write() as session:
        job = tools.order_fuse(session, "Inked", [weighted(ink.key)])
    with registry.working(work_of(registry)):
        assert begun.wait(60)
        half = list((registry.settings.data_dir / "fused").iterdir())
        assert [path.name.startswith(".inked-") for path in half] == [True]
        registry.cancel(IoJob, job.key)
        go_on.set()
        ended = done(registry, job)
    assert (ended.status, ended.result) == ("canceled", {})
    assert list((registry.settings.data_dir / "fused").iterdir()) == []
    assert len(registry.rows(BaseModel)) == 1


@pytest.mark.parametrize("kind", ["merge", "resize", "base_model", "download"])
def test_a_cancel_that_comes_when_all_is_done_still_leaves_nothing(
    kind: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ordered(kind, registry, tmp_path)
    keep, register = registry.store.put_file, tool_jobs._register

    def cancel_then_keep(path: Path) -> Blob:
        registry.cancel(IoJob, job.key)  # the last module is done, the end not written yet
        return keep(path) if path.is_file() else registry.store.put_bytes(b"a folder")

    def cancel_then_register(*args: Any) -> None:
        registry.cancel(IoJob, job.key)
        register(*args)

    monkeypatch.setattr(registry.store, "put_file", cancel_then_keep)
    monkeypatch.setattr(tool_jobs, "_register", cancel_then_register)
    with registry.working(work_of(registry)):
        ended = done(registry, job)
    assert (ended.status, ended.result, ended.error) == ("canceled", {}, None)
    assert len(registry.rows(AdapterVersion)) == 2
    assert len(registry.rows(BaseModel)) == 1
    assert not any((registry.settings.data_dir / "fused").glob("*"))


def ordered(kind: str, registry: Registry, folder: Path) -> IoJob:
    """Work of a tool that waits, on two adapters."""
    ink, chalk = add(registry, folder, "Ink", 1), add(registry, folder, "Chalk", 2)
    with registry.database.write() as session:
        if kind == "merge":
            parts = [weighted(ink.key), weighted(chalk.key)]
            return tools.order_merge(session, "Both", parts)
        if kind == "resize":
            smaller = ResizeAdapterArgs(rank=1, energy=None, dynamic=False)
            return tools.order_resize(session, ink.key, smaller)
        job = tools.order_fuse(session, "Inked", [weighted(ink.key)])
        job.args = job.args | {"keep": kind}
        return job


def test_a_cancel_that_comes_when_an_import_is_read_leaves_no_adapter(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = registry.store.put_file(sent_file(tmp_path))
    with registry.database.write() as session:
        job = service.order_import(session, sha256=given.sha256, filename="moss.safetensors")
    keep = registry.store.put_file

    def cancel_then_keep(path: Path) -> Blob:
        registry.cancel(IoJob, job.key)
        return keep(path)

    monkeypatch.setattr(registry.store, "put_file", cancel_then_keep)
    with registry.working(work_of(registry)):
        ended = done(registry, job)
    assert (ended.status, ended.error) == ("canceled", None)
    assert registry.rows(AdapterVersion) == []


def sent_file(folder: Path) -> Path:
    """A LoRA for `starter` that the registry does not know."""
    with BaseCheckpoint(starter.PATH) as base:
        shapes = dict(sorted(base.target_shapes.items())[::20])
    canonical.save_adapter(random_adapter(shapes), folder / "moss.safetensors")
    return folder / "moss.safetensors"
