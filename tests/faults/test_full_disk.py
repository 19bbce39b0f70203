"""The disk of a whole stack fills up while a run trains, and has space again later."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.disks import fill, mounted_disk
from tests.faults import jobs
from tests.faults.conftest import watched_stack
from tests.faults.recovery import Stopwatch
from tests.faults.stacks import OUTAGE_SECONDS, FaultyStack
from tests.images import make_png
from tests.worker.runtime.job_loops import wait_for

DISK = "size=96m"


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyStack]:
    """A stack whose data folder has a small disk of its own."""
    with (
        mounted_disk(tmp_path_factory.mktemp("disks") / "small", DISK) as disk,
        watched_stack(disk) as stack,
    ):
        yield stack


def test_a_full_disk_costs_no_job_and_no_row(small_disk: FaultyStack, stopwatch: Stopwatch) -> None:
    # it computes until its next checkpoint, for which it waits until there is room; the disk fills
    # soon after one, when the state before it was deleted
    work = jobs.begin_work(small_disk, checkpoint_every=100)
    with work.untouched():
        work.until_checkpoint()
        work.until_further()
        before = work.progress()
        with filled_disk(small_disk.data_dir), small_disk.client() as api, work.computing():
            ends = time.monotonic() + OUTAGE_SECONDS
            image = {"files": ("large.png", make_png(7, (900, 900)))}
            assert api.post(f"/datasets/{work.dataset_id}/images", files=image).status_code == 507
            assert api.get("/runs").status_code == 200
            assert api.post("/renders", json={"prompt": "a full cup"}).status_code in (202, 507)
            ready = httpx.get(f"{small_disk.url}/readyz", timeout=20)
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert httpx.get(f"{small_disk.url}/system", timeout=20).status_code == 200
            time.sleep(max(0.0, ends - time.monotonic()))
        stopwatch.start()
        work.until_further(since=before)
        stopwatch.stop("disk has space again: the training goes on")
        work.until_checkpoint()
        stopwatch.stop("disk has space again: next checkpoint stored")
        jobs.until_rendered(small_disk, jobs.new_render(small_disk, "an empty cup"))
    work.finish()
    wait_for(lambda: leftovers(small_disk) == [])
    with contextlib.closing(sqlite3.connect(small_disk.data_dir / "brushwork.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


@contextlib.contextmanager
def filled_disk(folder: Path) -> Iterator[None]:
    """The disk of this folder is full within the block."""
    fill(folder)
    try:
        yield
    finally:
        (folder / "filler").unlink()


def leftovers(stack: FaultyStack) -> list[Path]:
    """Files of uploads and blobs that were not finished."""
    folders = [stack.data_dir / "blobs" / "incoming", stack.data_dir / "scratch"]
    return [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
