"""Base models in folders that never answer, as those of a network drive that is away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IO_THREADS, IoJob
from tests.conftest import embedded_info
from tests.worker.runtime.job_loops import PATIENCE_SECONDS, Registry, running, wait_for
from worker.core import starter
from worker.runtime import process
from worker.runtime.inspection import jobs as inspections
from worker.runtime.inspection.jobs import inspect_in_time
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_loop import JobLoop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes in folders")


def silent_folder(parent: Path, number: int = 0) -> Path:
    """A base folder whose first file never answers."""
    folder = parent / f"silent-{number}"
    folder.mkdir()
    os.mkfifo(folder / "model_index.json")
    return folder


def inspectors() -> list[psutil.Process]:
    """The inspecting processes of this test."""
    return running("inspection.child")


@pytest.fixture
def loop(registry: Registry) -> Iterator[JobLoop]:
    """A loop of io jobs with all its threads."""
    work = IoJobs(registry.settings, registry.database, registry.store)
    opened = JobLoop(
        registry.database, work, lease_seconds=registry.settings.lease_seconds, threads=IO_THREADS
    )
    opened.start()
    registry.loops.append(opened)
    yield opened
    registry.loops.remove(opened)
    opened.request_stop()
    assert opened.join(PATIENCE_SECONDS)


def add_base(registry: Registry, folder: Path) -> tuple[int, int]:
    """The ids of a new base model and of the job that inspects it."""
    with registry.database.write() as session:
        base = added_models.add_path(session, base_models.BASE_MODELS, str(folder)).key
    (job,) = registry.rows(IoJob, kind="inspect_base", subject_id=base)
    return base, job.key


def test_a_base_is_inspected_by_a_process_without_torch() -> None:
    found = inspect_in_time("inspect_base", starter.PATH, check=lambda: None)
    assert (found.path, found.resolution) == (starter.PATH, embedded_info().resolution)
    assert inspectors() == []
    with pytest.raises(inspections.UnusableModelError, match="no base model"):
        inspect_in_time("inspect_base", Path("/nowhere/at/all"), check=lambda: None)


def test_folders_that_never_answer_take_no_thread_for_ever(
    registry: Registry, loop: JobLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspections, "LIMIT_SECONDS", 1.0)
    silent = [add_base(registry, silent_folder(tmp_path, number)) for number in range(4)]
    for base, job in silent:
        ended = registry.until_final(IoJob, job)
        assert (ended.status, ended.error_code, ended.attempt) == ("failed", "base_model", 1)
        assert "did not answer within 1 s" in str(ended.error)
        assert registry.row(BaseModel, base).status == "failed"
    base, job = add_base(registry, starter.PATH)
    assert registry.until_final(IoJob, job).status == "succeeded"
    assert inspectors() == []


def test_the_check_of_a_silent_folder_is_canceled_and_a_stopping_worker_gives_it_back(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    base, canceled = add_base(registry, silent_folder(tmp_path, 1))
    _, waiting = add_base(registry, silent_folder(tmp_path, 2))
    wait_for(lambda: len(inspectors()) == 2)
    registry.cancel(IoJob, canceled)
    assert registry.until_final(IoJob, canceled).status == "canceled"
    assert registry.row(BaseModel, base).status == "failed"
    loop.request_stop()
    assert loop.join(PATIENCE_SECONDS)
    row = registry.row(IoJob, waiting)
    assert (row.status, row.attempt) == ("queued", 0)
    assert inspectors() == []


def test_an_inspecting_process_ends_with_its_worker(tmp_path: Path) -> None:
    with psutil.Popen(
        [*inspections.COMMAND, "inspect_base", str(silent_folder(tmp_path))],
        stdin=-1,
        stdout=-1,
        cwd=Path.cwd(),
    ) as child:
        wait_for(lambda: child.is_running() and child.num_threads() == 2)
        assert child.stdin is not None
        child.stdin.close()  # as the kernel does when the worker is killed
        assert child.wait(PATIENCE_SECONDS) != 0


def test_a_job_that_hangs_in_the_worker_does_not_keep_it_from_stopping(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "IO_STOP_SECONDS", 0.5)
    work = IoJobs(registry.settings, registry.database, registry.store)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    work.handlers = {"inspect_base": lambda *_: fifo.read_bytes()}  # type: ignore[dict-item]
    loop = JobLoop(registry.database, work, lease_seconds=2.0)
    loop.start()
    _, job = add_base(registry, tmp_path)
    loop.wake()
    wait_for(lambda: registry.row(IoJob, job).status == "running")
    monkeypatch.setattr(process, "_loops", {"io": loop})
    process.stop()
    assert all(thread.daemon for thread in loop._workers)
    fifo.write_bytes(b"")  # let the thread of this test go
    assert loop.join(PATIENCE_SECONDS)
