"""Everything on one machine: processes are killed, all of them sleep, the database is locked.

One run trains through all of it, and another one waits behind it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save
from sqlmodel import SQLModel, col, select

from app.registry.adapters import service as adapters
from app.registry.job_kinds.kinds import JobKind
from app.registry.storage import open_store
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from app.registry.tables.runs import Checkpoint, Run
from tests.faults import jobs
from tests.faults.conftest import work_of
from tests.faults.jobs import Work
from tests.faults.recovery import Stopwatch
from tests.faults.sqlite_lock import locked_sqlite
from tests.faults.stacks import (
    BROKER,
    IO,
    LIBRARY_SERVER,
    OUTAGE_SECONDS,
    REGISTRY_SERVER,
    RENDER,
    TRAIN,
    TRAINER,
    WEB,
    FaultyStack,
)
from tests.images import make_png
from tests.worker.runtime.job_loops import SIDE, wait_for
from worker.core import starter
from worker.core.lora_files.base_layers import adaptable_shapes

T = TypeVar("T", bound=SQLModel)


@pytest.fixture
def work(embedded: FaultyStack, works: list[Work]) -> Work:
    return work_of(embedded, works)


@pytest.mark.parametrize("process", [TRAINER, TRAIN, LIBRARY_SERVER, REGISTRY_SERVER])
def test_a_training_goes_on_from_its_checkpoint_whatever_is_killed_and_however_often(
    embedded: FaultyStack, work: Work, process: str, stopwatch: Stopwatch
) -> None:
    work.until_checkpoint()
    before, checkpoint = work.progress(), jobs.newest_checkpoint(embedded, work.training)
    stopwatch.start()
    victims = embedded.kill(process)
    wait_for(lambda: set(embedded.named(process)) - set(victims))
    stopwatch.stop(f"{process} killed: another one runs")
    wait_for(lambda: work.progress().claims > before.claims, seconds=jobs.PATIENCE_SECONDS)
    stopwatch.stop(f"{process} killed: the run is claimed again")
    work.until_further(1, since=before)
    stopwatch.stop(f"{process} killed: the training is further than before")
    run = work.state(work.training)
    assert run["resumed_at_step"] >= checkpoint
    assert run["attempt"] <= 2  # of three, and counted since the last checkpoint
    assert len(jobs.events(embedded, Run, work.training, "running")) == before.claims + 1
    assert work.is_at_work()


@pytest.mark.parametrize("process", [WEB, BROKER, IO, RENDER])
def test_a_training_does_not_notice_what_else_is_killed(
    embedded: FaultyStack, work: Work, process: str, stopwatch: Stopwatch
) -> None:
    with work.untouched():
        stopwatch.start()
        victims = embedded.kill(process)
        wait_for(lambda: set(embedded.named(process)) - set(victims))
        stopwatch.stop(f"{process} killed: another one runs")
        wait_for(embedded.is_answering)
        jobs.until_rendered(embedded, jobs.new_render(embedded, f"a kite without {process}"))
        stopwatch.stop(f"{process} killed: an image ordered after the restart is there")
        work.until_further()


def test_a_render_of_a_killed_worker_is_made_by_the_next(
    embedded: FaultyStack, work: Work, stopwatch: Stopwatch
) -> None:
    with work.untouched():
        with embedded.client() as api:
            body = {"prompt": "a slow lion", "seed": 5, "steps": 100, "width": SIDE, "height": SIDE}
            render = api.post("/renders", json=body).raise_for_status().json()["id"]
        wait_for(lambda: jobs.get(embedded, f"/renders/{render}")["status"] == "running")
        stopwatch.start()
        embedded.kill(RENDER)
        assert jobs.until_final(embedded, f"/renders/{render}")["status"] == "succeeded"
        stopwatch.stop(f"{RENDER} killed in a render: its images are there")


def test_a_machine_that_sleeps_costs_nobody_an_attempt(
    embedded: FaultyStack, work: Work, stopwatch: Stopwatch
) -> None:
    with work.untouched():
        render = jobs.new_render(embedded, "a drum in the night")
        before = work.progress()
        with embedded.asleep():
            time.sleep(OUTAGE_SECONDS)
        stopwatch.start()
        work.until_further(1, since=before)
        stopwatch.stop("machine awake: the training goes on")
        jobs.until_rendered(embedded, render)
        work.until_checkpoint()


def test_a_locked_database_costs_nobody_an_attempt_and_is_a_503(
    embedded: FaultyStack, work: Work, stopwatch: Stopwatch
) -> None:
    with work.untouched():
        before = work.progress()
        render = jobs.new_render(embedded, "a boot before the lock")
        with locked_sqlite(embedded.data_dir / "brushwork.db"), embedded.client() as api:
            ends = time.monotonic() + OUTAGE_SECONDS
            assert api.get("/runs").status_code == 200
            refused = api.post("/datasets", json={"name": "Locked"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            with work.computing():
                time.sleep(max(0.0, ends - time.monotonic()))
        stopwatch.start()
        wait_for(lambda: work.progress().step > before.step)
        stopwatch.stop("SQLite unlocked: progress of the training written")
        jobs.until_rendered(embedded, render)
        stopwatch.stop("SQLite unlocked: waiting render done")
        work.until_checkpoint()


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    embedded: FaultyStack, work: Work, stopwatch: Stopwatch
) -> None:
    while len(stored_checkpoints(embedded, work)) < 2:
        work.until_checkpoint()
    pids = [*embedded.named(TRAIN), *embedded.named(TRAINER)]
    for pid in pids:  # so that no newer one is stored
        os.kill(pid, signal.SIGSTOP)
    newest, older = stored_checkpoints(embedded, work)[:2]
    blob = embedded.data_dir / "blobs" / newest.sha256[:2] / newest.sha256[2:4] / newest.sha256
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.write_bytes(content)
    before = work.progress()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stopwatch.start()
    wait_for(lambda: work.progress().claims > before.claims, seconds=jobs.PATIENCE_SECONDS)
    stopwatch.stop("newest checkpoint damaged, worker killed: the run is claimed again")
    work.until_further(1, since=before)
    stopwatch.stop("newest checkpoint damaged, worker killed: further than before")
    assert work.state(work.training)["resumed_at_step"] == older.step


def stored_checkpoints(stack: FaultyStack, work: Work) -> list[Checkpoint]:
    """The checkpoints of the training, newest first."""
    with stack.registry.read() as session:
        rows = select(Checkpoint).where(Checkpoint.run_id == work.training)
        return list(session.exec(rows.order_by(col(Checkpoint.step).desc())))


def test_originals_of_an_upload_are_gone_when_the_web_server_was_killed_in_it(
    embedded: FaultyStack, work: Work
) -> None:
    dataset_id = jobs.new_dataset(embedded, "Cut", images=1)
    images = f"/datasets/{dataset_id}/images"
    with embedded.client() as api:
        before = len(api.get(images).json())
    parts = [
        f"--cut\r\nContent-Disposition: form-data; name=files; filename=large-{number}.png\r\n"
        "Content-Type: image/png\r\n\r\n".encode()
        + make_png(number, (900, 900))
        + b"\r\n"
        for number in range(20, 40)
    ]
    body = b"".join(parts) + b"--cut--\r\n"
    head = (
        f"POST /api/v1{images} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=cut\r\nSec-Fetch-Site: same-origin\r\n\r\n"
    )
    with work.untouched():
        address = urlsplit(embedded.url)
        with socket.create_connection((address.hostname, address.port or 0), timeout=240) as client:
            client.sendall(head.encode() + body)
            wait_for(lambda: uploads(embedded))
            embedded.kill(WEB)
        wait_for(embedded.is_answering)
        assert uploads(embedded) == []
        assert not [*(embedded.data_dir / "blobs" / "incoming").iterdir()]
        with embedded.client() as api:
            assert len(api.get(images).json()) == before


def test_an_import_that_hangs_is_ended_and_the_next_one_is_not(
    embedded: FaultyStack, work: Work, tmp_path: Path, stopwatch: Stopwatch
) -> None:
    """An import reads the headers of all base models; the folder of one answers no more."""
    base = tmp_path / "base"
    shutil.copytree(starter.PATH, base)
    index = base / "model_index.json"
    content = index.read_bytes()
    worker = embedded.named(IO)
    with work.untouched(), embedded.client() as api:
        base_id = api.post("/base-models", json={"source": str(base)}).raise_for_status().json()
        place = f"/base-models/{base_id['id']}"
        wait_for(lambda: jobs.get(embedded, place)["status"] == "ready")
        index.unlink()
        os.mkfifo(index)
        stopwatch.start()
        ended = jobs.until_final(embedded, order_import(embedded))
        stopwatch.stop("import of 15 s at most in a folder that never answers: ended")
        assert ended["status"] == "failed", ended
        assert "so it was ended, and nothing of it was stored" in ended["error"]
        index.unlink()
        index.write_bytes(content)
        stopwatch.start()
        assert jobs.until_final(embedded, order_import(embedded))["status"] == "succeeded"
        stopwatch.stop("import that hangs was ended: the next one is there")
        api.delete(f"/storage/forever{place}").raise_for_status()
    assert embedded.named(IO) == worker
    wait_for(lambda: not [*(embedded.data_dir / "scratch").glob("io-*")])


def order_import(stack: FaultyStack) -> str:
    """The place of a queued import of a small LoRA for the starter."""
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    shape = adaptable_shapes(starter.PATH)[
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    ]
    tensors = {
        f"{stem}.lora_down.weight": torch.ones(4, shape[1]),
        f"{stem}.lora_up.weight": torch.ones(shape[0], 4),
        f"{stem}.alpha": torch.tensor(2.0),
    }
    blob = open_store(None, stack.data_dir).put_bytes(save(tensors))
    with stack.registry.write() as session:
        job = adapters.order_import(session, sha256=blob.sha256, filename="hung.safetensors")
    return f"/adapters/imports/{job.key}"


def uploads(stack: FaultyStack) -> list[str]:
    """The folders of uploads that are not decoded yet."""
    return [file.name for file in (stack.data_dir / "scratch").glob("upload-*") if file.is_dir()]


def test_at_the_end_every_job_was_done_once(embedded: FaultyStack, work: Work) -> None:
    work.finish()


def test_a_sweep_ends_well_whatever_is_killed_in_it(embedded: FaultyStack) -> None:
    dataset_id = jobs.new_dataset(embedded, "Swept", images=8)
    body = {
        "run": {"dataset_id": dataset_id, "preset": "quick", "config": jobs.CONFIG | {"steps": 8}},
        "axes": {"learning_rate": [0.001, 0.0001]},
        "seeds": 2,
        "subjects": 6,
    }
    with embedded.client() as api:
        sweep_id = api.post("/sweeps", json=body).raise_for_status().json()["id"]
    until_one(embedded, Run, sweep_id=sweep_id, status="running")
    embedded.kill(TRAIN)
    for run in rows(embedded, Run, sweep_id=sweep_id):
        assert jobs.until_final(embedded, f"/runs/{run.key}")["status"] == "succeeded"
    until_one(embedded, Render, status="running")
    embedded.kill(RENDER)
    until_one(embedded, IoJob, kind=JobKind.ADVANCE_SWEEP, status="running")
    embedded.kill(IO)
    sweep = jobs.until_final(embedded, f"/sweeps/{sweep_id}")
    assert (sweep["status"], sweep["error"]) == ("succeeded", None), sweep
    assert sweep["reason"]
    runs = [run for one in sweep["configurations"] for run in one["runs"]]
    assert {run["status"] for run in runs} == {"succeeded"}
    assert all(len(jobs.events(embedded, Run, run["run_id"], "succeeded")) == 1 for run in runs)


def until_one(stack: FaultyStack, table: type[SQLModel], **values: object) -> None:
    """Return when there is a row with these values."""
    wait_for(lambda: rows(stack, table, **values), seconds=jobs.PATIENCE_SECONDS)


def rows(stack: FaultyStack, table: type[T], **values: object) -> Sequence[T]:
    """The rows of a table with these values."""
    with stack.registry.read() as session:
        return session.exec(select(table).filter_by(**values)).all()


def test_a_run_that_ends_its_worker_three_times_fails_and_the_next_one_is_trained(
    embedded: FaultyStack, stopwatch: Stopwatch
) -> None:
    """The last test of this stack, whose train worker is idle now."""
    dataset_id = jobs.new_dataset(embedded, "Poison", images=1)
    poisoned = jobs.new_run(
        embedded, dataset_id, steps=jobs.MANY_STEPS, checkpoint_every=jobs.MANY_STEPS
    )
    sound = jobs.new_run(embedded, dataset_id, steps=4)
    for attempt in (1, 2, 3):
        until_running(embedded, poisoned, attempt)
        embedded.kill(TRAIN)
    stopwatch.start()
    failed = jobs.until_final(embedded, f"/runs/{poisoned}")
    assert (failed["status"], failed["error_code"]) == ("failed", "worker_lost")
    assert jobs.until_final(embedded, f"/runs/{sound}")["status"] == "succeeded"
    stopwatch.stop("third kill of a poisoned run: the run behind it has ended well")


def until_running(stack: FaultyStack, run_id: int, attempt: int) -> None:
    """Return when a worker is at this attempt."""

    def is_running() -> bool:
        run = jobs.get(stack, f"/runs/{run_id}")
        return (run["status"], run["attempt"]) == ("running", attempt)

    wait_for(is_running, seconds=jobs.PATIENCE_SECONDS)
