"""Real Celery workers on a real Valkey: frozen, killed, drained, without their broker.

Train and io workers are forks, as in `brushwork serve`; a render worker imports all itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from app.registry.db import Database
from app.registry.job_kinds.kinds import InspectBaseArgs
from app.registry.jobs.service import enqueue_io
from app.registry.renders import service as playground
from app.registry.renders.requests import RenderRequest
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import Event, IoJob, WorkerPresence
from app.registry.tables.renders import Render
from app.registry.tables.runs import Checkpoint, Run
from app.registry.wakeups import WakeUps
from app.supervisor.broker import answers, servers
from tests.conftest import skip_unless_ci
from tests.versions import versions_of_run
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import PATIENCE_SECONDS, Registry, wait_for
from tests.worker.runtime.trainer_server import BASE
from worker.core import starter

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[3]
PROGRAM = "tests.worker.runtime.app_on_small_base"


class Worker:
    """A worker process; `forks` lists the forks of the server that it is one of, if it is one."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        forks: Callable[[], list[int]] | None = None,
    ) -> None:
        self.process = process
        self._name = name
        self._forks = forks

    @property
    def pid(self) -> int:
        """The worker's own; that of `process` may be its client's."""
        if self._forks is None:
            return self.process.pid
        (found,) = (pid for pid in self._forks() if name_of(pid) == self._name)
        return found

    def children(self) -> list[int]:
        """The processes that it started itself."""
        found: list[int] = []
        for listed in Path(f"/proc/{self.pid}/task").glob("*/children"):
            found += [int(pid) for pid in listed.read_text().split()]
        return found

    def trainers(self) -> list[int]:
        """Its trainer processes: forks of another process, and who asked for them."""
        assert self._forks is not None
        given = set().union(*(pipes(pid) for pid in self.children()))
        return [pid for pid in self._forks() if pid != self.pid and pipes(pid) & given]

    def is_training(self) -> bool:
        """True when a trainer of it has lowered its priority, as it does for a run."""
        lowest = os.getpriority(os.PRIO_PROCESS, 0)
        return any(os.getpriority(os.PRIO_PROCESS, pid) > lowest for pid in self.trainers())

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)


class Stack:
    """Workers and their broker, as processes of this test."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.socket = folder / "broker.sock"
        self.url = f"redis+socket://{self.socket}"
        self.wakeups = WakeUps(self.url)
        self.database = Database(registry.database.engine, self.wakeups.send)
        self._workers: list[Worker] = []
        self._broker: subprocess.Popen[bytes] | None = None

    def start_broker(self) -> None:
        server = next(servers(), None)
        if server is None:
            skip_unless_ci("no Valkey or Redis on this machine")
        flags = ["--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self._broker = subprocess.Popen(
            [str(server), *flags], stdout=subprocess.DEVNULL, cwd=self.socket.parent
        )
        wait_for(lambda: answers(self.socket))

    def kill_broker(self) -> None:
        assert self._broker is not None
        self._broker.kill()
        self._broker.wait()

    def start_worker(self, queue: str, *, is_fork: bool = True) -> Worker:
        """A worker of this queue, which comes up while the test goes on."""
        settings, trainers = self.registry.settings, self.registry.trainers
        environment = os.environ | {
            "BRUSHWORK_DATA_DIR": str(settings.data_dir),
            "BRUSHWORK_BROKER_URL": self.url,
            "BRUSHWORK_LEASE_SECONDS": str(settings.lease_seconds),
            "BRUSHWORK_DEVICE": "cpu",
            "BRUSHWORK_THREADS": "1",
            BASE: str(starter.PATH),
        }
        name = f"worker-{queue}-{len(self._workers)}"
        command: tuple[str, ...] = (sys.executable, "-m", PROGRAM, "worker", "--queue", queue)
        if queue == "train":
            command += ("--libraries", trainers.socket)
        if is_fork:
            command = trainers.forked(name, command)
        with self.log(queue).open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        self._workers.append(Worker(process, name, trainers.forks if is_fork else None))
        return self._workers[-1]

    def log(self, queue: str) -> Path:
        """The file that workers of this queue write to."""
        return self.registry.settings.data_dir / f"worker-{queue}.log"

    def until_known(self, queue: str, count: int) -> None:
        """Wait until the registry knows this many workers of this queue."""
        wait_for(lambda: len(self.registry.rows(WorkerPresence, queue=queue)) == count)

    def close(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()  # the server of a fork kills it, even if it is stopped
            worker.process.wait()
        self.wakeups.close()
        self.kill_broker()


def name_of(pid: int) -> str:
    """The line of `ps` for a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def pipes(pid: int) -> set[str]:
    """The pipes that a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("pipe:")}


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def stack(trained: TrainedRegistry) -> Iterator[Stack]:
    """A broker on the registry with a trained run."""
    if sys.platform != "linux":
        pytest.skip("looks into /proc")
    with tempfile.TemporaryDirectory(prefix="bw-") as folder:
        opened = Stack(trained.registry, Path(folder))
        opened.start_broker()
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="module")
def undisturbed(trained: TrainedRegistry) -> str:
    """The hash of the adapter that a run without any break has."""
    registry = trained.registry
    run_id = registry.new_run()
    with registry.working(registry.train_jobs()):
        registry.until_final(Run, run_id)
    return weights_of(registry, run_id)


def weights_of(registry: Registry, run_id: int) -> str:
    run = registry.row(Run, run_id)
    assert (run.status, run.error) == ("succeeded", None)
    version: AdapterVersion = registry.row(AdapterVersion, run.adapter_version_id)
    return version.sha256


def owners(registry: Registry, run_id: int) -> list[str]:
    """The events of a run, in order."""
    events = registry.rows(Event, subject="run", subject_id=run_id)
    return [event.kind for event in events]


def test_frozen_killed_and_drained_workers_lose_nothing(stack: Stack, undisturbed: str) -> None:
    registry = stack.registry
    workers = [stack.start_worker("train"), stack.start_worker("train")]
    stack.until_known("train", 2)

    frozen_in = begin(stack)
    (frozen,) = (worker for worker in workers if worker.is_training())
    stopped = frozen.trainers()
    with registry.database.write():  # so that it does not freeze while it has the lock of SQLite
        for pid in (frozen.pid, *stopped):
            os.kill(pid, signal.SIGSTOP)
    registry.until_final(Run, frozen_in)
    assert owners(registry, frozen_in).count("running") == 2
    before = len(registry.rows(Checkpoint, run_id=frozen_in))
    for pid in (frozen.pid, *stopped):
        with contextlib.suppress(ProcessLookupError):  # the worker that wakes up ends them
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: all(is_gone(pid) for pid in stopped))
    assert weights_of(registry, frozen_in) == undisturbed
    assert len(registry.rows(Checkpoint, run_id=frozen_in)) == before
    assert owners(registry, frozen_in).count("succeeded") == 1
    with registry.database.read() as session:
        assert [row.version for row in versions_of_run(session, frozen_in)] == [1]

    killed_in = begin(stack)
    (victim,) = (worker for worker in workers if worker.is_training())
    orphans = victim.trainers()
    victim.process.kill()
    wait_for(lambda: all(is_gone(pid) for pid in orphans))
    registry.until_final(Run, killed_in)
    assert owners(registry, killed_in).count("running") == 2
    assert weights_of(registry, killed_in) == undisturbed

    drained = begin(stack)
    (left,) = (worker for worker in workers if worker is not victim)
    pid = left.pid
    assert left.end() == 0
    assert registry.rows(WorkerPresence, pid=pid) == []
    run = registry.row(Run, drained)
    assert run.status in ("queued", "succeeded")
    if run.status == "queued":
        assert run.attempt == 0
        registry.cancel(Run, drained)


def begin(stack: Stack) -> int:
    """A run that trains and has a checkpoint."""
    registry = stack.registry
    run_id = registry.new_run()
    for _ in range(3):  # duplicates must not matter
        stack.wakeups.send("train")
    wait_for(lambda: registry.rows(Checkpoint, run_id=run_id))
    return run_id


def test_a_hint_wakes_a_render_worker_and_a_lost_one_does_no_harm(stack: Stack) -> None:
    registry = stack.registry
    worker = stack.start_worker("render", is_fork=False)
    stack.until_known("render", 1)
    (child,) = spawned(worker)
    os.kill(child, signal.SIGKILL)  # before it has loaded torch, which the next one does
    first = new_render(stack, "a kite")
    assert registry.until_final(Render, first).status == "succeeded"
    assert spawned(worker) != [child]
    stack.kill_broker()
    second = new_render(stack, "a drum")
    assert registry.until_final(Render, second).status == "succeeded"
    stack.start_broker()
    third = new_render(stack, "a boot")
    assert registry.until_final(Render, third).status == "succeeded"
    assert worker.end() == 0


def spawned(worker: Worker) -> list[int]:
    """The children of a worker that draw."""
    return [pid for pid in worker.children() if b"spawn" in cmdline(pid)]


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def new_render(stack: Stack, prompt: str) -> int:
    request = RenderRequest(prompt=prompt, seed=1, steps=2)
    with stack.database.write() as session:
        return playground.create_render(session, request, stack.registry.store).key


GARBAGE = (
    b"no JSON",
    b"\xff\xfe\x00",
    b"12",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"properties": {"delivery_tag": "a", "delivery_info": {}}, "body": "?", "headers": {}}',
    b'{"properties": {"delivery_tag": "b", "body_encoding": "base64", "delivery_info": {}}, '
    b'"body": "?", "headers": {"task": "worker.tasks.io", "id": "1"}, '
    b'"content-type": "application/json", "content-encoding": "utf-8"}',
    b'{"properties": {"delivery_tag": "c", "delivery_info": {}}, "body": "[[], {}, {}]", '
    b'"headers": {"task": "other.program", "id": "2"}, '
    b'"content-type": "application/json", "content-encoding": "utf-8"}',
)


def test_an_io_worker_does_jobs_side_by_side_and_drops_what_is_no_wake_up(stack: Stack) -> None:
    registry = stack.registry
    worker = stack.start_worker("io")
    stack.until_known("io", 1)
    with redis.Redis(unix_socket_path=str(stack.socket)) as broker:
        broker.rpush("brushwork:io", *GARBAGE)
        wait_for(lambda: broker.llen("brushwork:io") == 0)
    with stack.database.write() as session:
        keys = [
            enqueue_io(session, InspectBaseArgs(), subject_id=registry.base_id).key
            for _ in range(4)
        ]
    assert [registry.until_final(IoJob, key).status for key in keys] == ["succeeded"] * 4
    log = stack.log("io").read_text()
    assert len([line for line in log.splitlines() if "no wake-up" in line]) == len(GARBAGE)
    assert "Traceback" not in log
    pid = worker.pid
    assert worker.end() == 0
    assert registry.rows(WorkerPresence, pid=pid) == []
