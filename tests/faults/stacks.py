"""Real stacks to break: `brushwork serve` with short leases, and its processes by name."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.paths import ROOT
from app.supervisor.guard import descendants
from tests.app.supervisor.conftest import alive
from tests.stack.conftest import Stack, start_stack, stop_stack
from tests.worker.runtime.job_loops import wait_for

LEASE_SECONDS = 2.0
OUTAGE_SECONDS = 15 * LEASE_SECONDS
TRAINER, TRAIN, RENDER, IO = "trainer", "worker-train", "worker-render", "worker-io"
WEB, BROKER, REGISTRY_SERVER, LIBRARY_SERVER = "web", "broker", "fork-registry", "fork-libraries"
WORKERS = (TRAIN, RENDER, IO)


@dataclass(frozen=True)
class FaultyStack:
    """A running stack, and its registry as another process sees it."""

    stack: Stack
    registry: Database

    @property
    def data_dir(self) -> Path:
        """Its data folder."""
        return self.stack.data_dir

    @property
    def url(self) -> str:
        """Where its pages are."""
        return self.stack.url

    def client(self) -> httpx.Client:
        """A client of its REST API."""
        return httpx.Client(base_url=f"{self.url}/api/v1", timeout=240)

    def pids(self) -> list[int]:
        """The supervisor and all processes below it."""
        return [self.stack.process.pid, *descendants(self.stack.process.pid)]

    def named(self, name: str) -> list[int]:
        """The living processes that `ps` shows under this name."""
        if name in (BROKER, REGISTRY_SERVER):  # no forks: only their guards know their names
            pids = self._written_down(name)
        else:
            pids = [pid for pid in self.pids() if _name(pid) == name]
        return [pid for pid in pids if alive(pid)]

    def _written_down(self, name: str) -> list[int]:
        with contextlib.suppress(OSError, ValueError):
            return [int((self.data_dir / "run" / f"{name}.pid").read_text())]
        return []

    def kill(self, name: str) -> list[int]:
        """Kill all processes of this name; the process ids that are gone."""
        wait_for(lambda: self.named(name))
        victims = self.named(name)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in victims))
        return victims

    def cpu_seconds(self, name: str) -> float:
        """The computing time of the processes of this name so far."""
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.named(name))

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Every process is stopped within the block, as on a machine that sleeps."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def is_answering(self) -> bool:
        """True if the web server answers."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=20).status_code == 200
        except httpx.HTTPError:
            return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def running_stack(
    data_dir: Path, environment: Mapping[str, str] | None = None, *, database_url: str = ""
) -> Iterator[FaultyStack]:
    """A stack with leases of two seconds; `database_url` is where this process finds its rows."""
    settings = {
        "BRUSHWORK_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
        "BRUSHWORK_DEVICE": "cpu",
        "BRUSHWORK_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    stack = start_stack(
        [sys.executable, "-m", "app"], data_dir, **(settings | dict(environment or {}))
    )
    url = Settings(_env_file=None, data_dir=data_dir, database_url=database_url or None)
    registry = Database(make_engine(url.sqlalchemy_url))
    try:
        yield FaultyStack(stack, registry)
    finally:
        registry.dispose()
        stop_stack(stack)
