"""Processes without the CPU seconds of their imports: forked from one that has them.

Trainers are the real ones, forked by the real fork server, except that the base of the tests is in
its memory already and that they take no warm-up step. `trained` in conftest.py starts one that is
no fork.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.supervisor.guard import descendants
from app.supervisor.processes import GUARD
from worker.runtime.device import child_environment
from worker.runtime.forking import fork_command
from worker.runtime.trainer_process import COMMAND

QUICK = (sys.executable, "-m", "tests.worker.runtime.quick_trainer")
SLEEPY = (*QUICK, "0.3")  # seconds for a step: it still trains when a test has seen that it does
HUB = "tests.worker.runtime.forked_hub"
PRELOAD = "tests.worker.runtime.preloaded_trainer"
BASE = "SMALL_STARTER"  # the base that PRELOAD loads


class Preloaded:
    """A fork server with one module imported, which is started once a test asks for it."""

    def __init__(self, module: str, **environment: str) -> None:
        self._module = module
        self._environment = environment
        self._folder = tempfile.TemporaryDirectory(prefix="bw-")  # short: a socket's path must be
        self._process: subprocess.Popen[bytes] | None = None

    def forked(self, name: str, command: Sequence[str]) -> tuple[str, ...]:
        """The command that runs a `python -m` as a fork, which `ps` shows under this name."""
        if sys.platform != "linux":
            return tuple(command)
        return fork_command(self.socket, name, command)

    @property
    def socket(self) -> str:
        """The socket of the fork server, which is started if it does not run."""
        place = str(Path(self._folder.name) / "forks.sock")
        if self._process is None:
            server = (sys.executable, "-m", "worker.runtime.forking.server", place, self._module)
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), "--", *server],
                stdin=subprocess.PIPE,  # the guard ends it when this process ends
                env=child_environment(1) | self._environment,
            )
        return place

    def forks(self) -> list[int]:
        """The forks that run, and the server itself."""
        return [] if self._process is None else descendants(self._process.pid)

    def close(self) -> None:
        """End the process and the forks that are left."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        self._folder.cleanup()


class TrainerServer(Preloaded):
    """Has the base of the tests in its memory: its folder is `base`."""

    def __init__(self, base: Path) -> None:
        super().__init__(PRELOAD, **{BASE: str(base)})

    @property
    def command(self) -> tuple[str, ...]:
        """The command of a real trainer process."""
        return self.forked("trainer", COMMAND)

    @property
    def quick(self) -> tuple[str, ...]:
        """The command of a trainer process that makes up what it learns: `quick_trainer.py`."""
        return self.forked("trainer", QUICK)

    @property
    def sleepy(self) -> tuple[str, ...]:
        """The same, which sleeps a while in each step: for tests that intervene in a training."""
        return self.forked("trainer", SLEEPY)


class HubServer(Preloaded):
    """Has the client of the Hub, whose `home` is a folder where nobody is logged in."""

    def __init__(self, home: Path) -> None:
        online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        super().__init__("worker.core.hub.__main__", HF_HOME=str(home), **online)

    @property
    def command(self) -> tuple[str, ...]:
        """The command of a process that carries out an order to the Hub."""
        return self.forked("hub", (sys.executable, "-m", HUB))
