"""The io worker and the Hub: the real client in a process, and a stand-in of the Hub."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from app.registry.added_models import service as added_models
from app.registry.added_models.service import ListedModel
from app.registry.base_models.service import BASE_MODELS
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from tests.conftest import embedded_info
from tests.fake_hub import Hub, open_hub
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.core import starter
from worker.core.starter import checksums
from worker.runtime.io_jobs import IoJobs

pytestmark = pytest.mark.usefixtures("forked_hub")  # but for a worker that is a process itself
REPO = "acme/tiny"
UNET = "unet/diffusion_pytorch_model.safetensors"
MIDDLE = 16 * 2**20  # the client writes in pieces of 10 MiB; the UNet has 33


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no cache of this machine reaches the Hub process."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as in every worker


@pytest.fixture(scope="module", autouse=True)
def embedded_base() -> None:
    """The real one, not the small one: its download can be held in the middle."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub that has the embedded base model."""
    with open_hub() as opened:
        opened.add_folder(REPO, starter.PATH)
        yield opened


@pytest.fixture
def outward(registry: Registry, hub: Hub) -> Registry:
    """A registry whose Hub is the stand-in."""
    settings = registry.settings.model_copy(update={"hub_endpoint": hub.url})
    return replace(registry, settings=settings)


def add(registry: Registry, source: str = REPO) -> int:
    with registry.database.write() as session:
        return added_models.add(session, BASE_MODELS, source, registry.settings).key


def shown(registry: Registry, base_id: int) -> ListedModel[BaseModel]:
    with registry.database.read() as session:
        base = session.get_one(BaseModel, base_id)
        return added_models.list_with_progress(session, BASE_MODELS, [base])[0]


def until(registry: Registry, base_id: int, status: str) -> ListedModel[BaseModel]:
    def reached() -> ListedModel[BaseModel] | None:
        row = shown(registry, base_id)
        assert row.status in ("downloading", "checking", status), row.error
        return row if row.status == status else None

    found: ListedModel[BaseModel] = wait_for(reached)
    return found


def io_work(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def held(registry: Registry, base_id: int) -> ListedModel[BaseModel]:
    """The download once it stands in the middle of the UNet."""
    before = (starter.PATH / "text_encoder/model.safetensors").stat().st_size

    def in_the_middle() -> ListedModel[BaseModel] | None:
        row = shown(registry, base_id)
        return row if row.download and row.download.done > before + 10 * 2**20 else None

    found: ListedModel[BaseModel] = wait_for(in_the_middle)
    return found


def test_the_size_of_a_download_is_told_before_it_starts(outward: Registry, hub: Hub) -> None:
    with outward.database.write() as session:
        args = (session, BASE_MODELS, REPO, outward.settings)
        base_id = added_models.add(*args, size_only=True).key
    needed = [file for file in starter.PATH.rglob("*") if file.suffix in (".json", ".safetensors")]
    with outward.working(io_work(outward)):
        row = until(outward, base_id, "failed")
        assert row.is_size_asked
        commit = outward.settings.data_dir / "models/acme--tiny" / hub.repos[REPO].commit
        assert not list(commit.rglob("*.safetensors"))
        size = outward.row(BaseModel, base_id).size_bytes
        assert size
        weights = sum(file.stat().st_size for file in needed if file.suffix == ".safetensors")
        assert weights < size <= sum(file.stat().st_size for file in needed) + 2_000_000
        assert add(outward) == base_id
        assert not until(outward, base_id, "ready").is_size_asked
    assert outward.row(BaseModel, base_id).size_bytes


def test_a_base_is_downloaded_looked_at_and_ready(outward: Registry, hub: Hub) -> None:
    base_id = add(outward)
    with outward.working(io_work(outward)):
        until(outward, base_id, "ready")
    base = outward.row(BaseModel, base_id)
    commit = hub.repos[REPO].commit
    assert (base.name, base.family) == ("tiny", "sd1")
    assert base.resolution == embedded_info().resolution
    assert (base.prediction_type, base.revision) == ("v_prediction", commit)
    assert base.local_path == str(outward.settings.data_dir / "models" / "acme--tiny" / commit)
    assert base.fingerprint == outward.row(BaseModel, outward.base_id).fingerprint
    (job,) = outward.rows(IoJob, kind="download_base")
    assert job.attempt == 1


def test_a_download_that_is_stopped_keeps_what_came_and_goes_on_later(
    outward: Registry, hub: Hub
) -> None:
    hub.hold_after[UNET] = MIDDLE
    base_id = add(outward)
    with outward.working(io_work(outward)):
        row = held(outward, base_id)
        assert row.download is not None
        assert (row.download.file, row.download.total) == (UNET, _starter_bytes())
        with outward.database.write() as session:
            added_models.cancel(session, BASE_MODELS, base_id)
        stopped = wait_for(lambda: (found := shown(outward, base_id)).status == "failed" and found)
        assert "was stopped at" in stopped.error
        (job,) = outward.rows(IoJob, kind="download_base")
        assert job.status == JobStatus.CANCELED
        hub.go.set()
        hub.asked.clear()
        assert add(outward) == base_id
        until(outward, base_id, "ready")
    assert [bool(asked.range) for asked in hub.gets(UNET)] == [True]


def _starter_bytes() -> int:
    """The size of the files of the embedded base that a download takes: not of its checksums."""
    files = (path for path in starter.PATH.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.name != checksums.NAME)


def test_a_worker_that_ends_gives_the_download_back_and_the_next_one_goes_on(
    outward: Registry, hub: Hub
) -> None:
    hub.hold_after[UNET] = MIDDLE
    base_id = add(outward)
    with outward.working(io_work(outward)):
        held(outward, base_id)
    (job,) = outward.rows(IoJob, kind="download_base")
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    hub.go.set()
    hub.asked.clear()
    with outward.working(io_work(outward)):
        until(outward, base_id, "ready")
    (asked,) = hub.gets(UNET)
    assert asked.range is not None
    assert int(asked.range.removeprefix("bytes=")[:-1]) >= 10 * 2**20


WORKER = (
    "import time; from app.registry.config import Settings; from worker.runtime import process; "
    "process.start(Settings(), ['io']); time.sleep(120)"
)


def test_a_killed_worker_leaves_no_process_and_the_next_one_goes_on(
    outward: Registry, hub: Hub, tmp_path: Path
) -> None:
    hub.hold_after[UNET] = MIDDLE
    base_id = add(outward)
    environment = {
        "BRUSHWORK_DATA_DIR": str(outward.settings.data_dir),
        "BRUSHWORK_BROKER_URL": f"filesystem://{tmp_path}/broker",
        "BRUSHWORK_LEASE_SECONDS": "2",
        "BRUSHWORK_HUB_ENDPOINT": hub.url,
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=os.environ | environment)
    try:
        held(outward, base_id)
        children = psutil.Process(worker.pid).children(recursive=True)
        assert any("worker.core.hub" in child.cmdline() for child in children)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    _, left = psutil.wait_procs(children, timeout=120)
    assert [child for child in left if child.status() != psutil.STATUS_ZOMBIE] == []
    hub.go.set()
    hub.asked.clear()
    with outward.working(io_work(outward)):
        until(outward, base_id, "ready")
    (job,) = outward.rows(IoJob, kind="download_base")
    assert job.attempt == 2  # its process was gone
    assert [bool(asked.range) for asked in hub.gets(UNET)] == [True]


def test_what_the_hub_has_not_or_forbids_is_said_of_the_base(outward: Registry, hub: Hub) -> None:
    hub.add("acme/closed", {"model.safetensors": b"x" * 99}, gated=True)
    hub.add("acme/text", {"model.safetensors": b"x" * 99})
    with outward.working(io_work(outward)):
        for source, reason in (
            ("acme/nothing", "“acme/nothing” was not found"),
            ("acme/closed", "is gated"),
            ("acme/text", "model.safetensors"),  # it came, and is no safetensors file
        ):
            base_id = add(outward, source)
            assert reason in str(until(outward, base_id, "failed").error)
    codes = {job.error_code for job in outward.rows(IoJob, status="failed")}
    assert codes == {"hub_not_found", "hub_gated", "base_model"}


def test_a_worker_told_to_stay_at_home_asks_nobody(outward: Registry, hub: Hub) -> None:
    base_id = add(outward)
    settings = outward.settings.model_copy(update={"hub": "off"})
    with outward.working(IoJobs(settings, outward.database, outward.store)):
        assert "Hugging Face access is off" in str(until(outward, base_id, "failed").error)
    assert hub.asked == []


def test_downloads_go_one_after_the_other_and_leave_room_for_other_work(
    outward: Registry, hub: Hub
) -> None:
    hub.hold_after[UNET] = MIDDLE
    hub.add_folder("acme/second", starter.PATH)
    first, second = add(outward), add(outward, "acme/second")
    with outward.database.write() as session:
        other = enqueue(session, IoJob(kind="no such kind")).key
    with outward.working(io_work(outward)), outward.working(io_work(outward)):
        held(outward, first)
        outward.until_final(IoJob, other)  # another thread is free for it
        row = shown(outward, second)
        assert row.download is not None
        assert row.download.is_waiting
        hub.go.set()
        until(outward, second, "ready")
        until(outward, first, "ready")
