"""Trainer processes without the CPU seconds of their imports: forked from one that has them.

They are the real ones, forked by the real fork server, except that the base of the tests is in its
memory already and that they take no warm-up step. `trained` in conftest.py
starts one that is no fork.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from app.supervisor.guard import descendants
from app.supervisor.processes import GUARD
from worker.runtime.device import child_environment
from worker.runtime.forking import fork_command
from worker.runtime.trainer_process import COMMAND

PRELOAD = "tests.worker.runtime.preloaded_trainer"
BASE = "SMALL_STARTER"  # the base that PRELOAD loads


class TrainerServer:
    """Starts the fork server once a test asks for it."""

    def __init__(self, base: Path) -> None:
        """`base`: the folder of the base that most trainers use."""
        self._base = base
        self._folder = tempfile.TemporaryDirectory(prefix="bw-")  # short: a socket's path must be
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """The command of a trainer process."""
        if sys.platform != "linux":
            return COMMAND
        return fork_command(self.socket, "trainer", COMMAND)

    @property
    def socket(self) -> str:
        """The socket of the fork server, which is started if it does not run."""
        place = str(Path(self._folder.name) / "trainers.sock")
        if self._process is None:
            server = (sys.executable, "-m", "worker.runtime.forking.server", place, PRELOAD)
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), "--", *server],
                stdin=subprocess.PIPE,  # the guard ends it when this process ends
                env=child_environment(1) | {BASE: str(self._base)},
            )
        return place

    def forks(self) -> list[int]:
        """The trainers that run, and the server they are forks of."""
        return [] if self._process is None else descendants(self._process.pid)

    def close(self) -> None:
        """End the process and the trainers that are left."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        self._folder.cleanup()
