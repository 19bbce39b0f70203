"""The fork servers of a stack: workers and trainers begin with their libraries loaded and shared.

Only on Linux and for a CPU: elsewhere a fork would break the libraries of the GPU or the system, so
every process imports its libraries itself. A missing fork server is not an error either: until the
supervisor has started it again, programs start by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.registry.config import SECRETS
from app.registry.job_kinds.states import Queue
from app.registry.paths import ROOT
from app.supervisor.processes import Program, python_program
from worker.core.device import OFFLINE_LIBRARIES

SERVER = "worker.runtime.forking.server"
CLIENT = ROOT / "worker" / "runtime" / "forking" / "client.py"
# of each socket its name, and the modules that are loaded before its first fork
WEB = ("web.sock", "app.cli.main", "app.registry.tables.all", "app.registry.state")
REGISTRY = ("registry.sock", "worker.runtime.worker_imports", "app.cli.worker")
LIBRARIES = ("libraries.sock", "worker.runtime.forking.libraries")
ACCELERATORS = ("nvidia0", "nvidiactl", "dxg", "kfd")  # NVIDIA, Windows' GPU in WSL 2, AMD
ENVIRONMENT = {
    # one thread each, so that nothing runs when the process forks
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # read on import by the libraries, and the same in every worker
    "OMP_WAIT_POLICY": "PASSIVE",
    **OFFLINE_LIBRARIES,
    "MALLOC_ARENA_MAX": "2",  # memory that one thread frees is used again by another
}


def can_fork(device: str, *, devices: Path = Path("/dev")) -> bool:
    """True on Linux when the workers compute on a CPU."""
    if sys.platform != "linux" or device not in ("cpu", "auto"):
        return False
    return device == "cpu" or not any((devices / name).exists() for name in ACCELERATORS)


@dataclass(frozen=True)
class ForkServers:
    """Two servers with their sockets in a private folder; the second is a fork of the first.

    The first loads the registry, forks the web server, then loads what is common to all workers
    and forks the train and the io worker. The second has torch and diffusers as well, which takes
    twice as long: the render worker and all trainers are its forks.
    """

    folder: Path
    environment: Mapping[str, str]
    nice: int = 0  # of the second one; the first also forks the web server

    def programs(self) -> list[Program]:
        """The two servers, in the order in which to start them."""
        web, registry, libraries = (
            (self._path_of(socket), *modules) for socket, *modules in (WEB, REGISTRY, LIBRARIES)
        )
        first = self._server("fork-registry", *web, "--", *registry)
        second = replace(self._server("fork-libraries", *libraries), nice=self.nice)
        return [first, self._forked(second, REGISTRY)]

    def early(self, program: Program) -> Program:
        """The program of the web server or the migration as a fork; both need only the registry."""
        return self._forked(program, WEB)

    def worker(self, program: Program, queue: Queue) -> Program:
        """The program of a worker as a fork; it starts trainers as forks too."""
        command = (*program.command, "--libraries", self._path_of(LIBRARIES[0]))
        server = LIBRARIES if queue == Queue.RENDER else REGISTRY
        forked = self._forked(replace(program, command=command), server)
        return replace(forked, environment={**program.environment, **ENVIRONMENT})

    def _path_of(self, socket: str) -> str:
        return str(self.folder / socket)

    def _server(self, name: str, *arguments: str) -> Program:
        program = python_program(
            name,
            *arguments,
            module=SERVER,
            environment={**self.environment, **ENVIRONMENT},
        )
        return replace(program, hidden=SECRETS)

    def _forked(self, program: Program, server: tuple[str, ...]) -> Program:
        client = (sys.executable, "-S", "-E", str(CLIENT), self._path_of(server[0]), program.name)
        descriptors = (str(number) for number in program.pass_fds)
        return replace(program, command=(*client, *descriptors, "--", *program.command))
