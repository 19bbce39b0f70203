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
from app.registry.job_kinds.queues import Queue
from app.registry.paths import ROOT
from app.supervisor.processes import Program, python_program
from worker.core.device import OFFLINE_LIBRARIES

SERVER = "worker.runtime.forking.server"
CLIENT = ROOT / "worker" / "runtime" / "forking" / "client.py"
WEB = ("app.cli.main", "app.registry.tables.all", "app.registry.state")
REGISTRY = ("worker.runtime.worker_imports", "app.cli.worker")
LIBRARIES = ("worker.runtime.forking.libraries",)
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

    @property
    def web_socket(self) -> Path:
        """The socket of the first server for the web server and the migration."""
        return self.folder / "web.sock"

    @property
    def registry_socket(self) -> Path:
        """The socket of the first server."""
        return self.folder / "registry.sock"

    @property
    def libraries_socket(self) -> Path:
        """The socket of the second server."""
        return self.folder / "libraries.sock"

    def programs(self) -> list[Program]:
        """The two servers, in the order in which to start them."""
        web, registry, libraries = (
            (str(place), *modules)
            for place, modules in (
                (self.web_socket, WEB),
                (self.registry_socket, REGISTRY),
                (self.libraries_socket, LIBRARIES),
            )
        )
        first = self._server("fork-registry", *web, "--", *registry)
        second = replace(self._server("fork-libraries", *libraries), nice=self.nice)
        return [first, self._forked(second, self.registry_socket)]

    def early(self, program: Program) -> Program:
        """The program of the web server or the migration as a fork; both need only the registry."""
        return self._forked(program, self.web_socket)

    def worker(self, program: Program, queue: Queue) -> Program:
        """The program of a worker as a fork; it starts trainers as forks too."""
        is_render = queue == Queue.RENDER
        forked = self._forked(
            replace(program, command=(*program.command, "--libraries", str(self.libraries_socket))),
            self.libraries_socket if is_render else self.registry_socket,
        )
        return replace(forked, environment={**program.environment, **ENVIRONMENT})

    def _server(self, name: str, *arguments: str) -> Program:
        program = python_program(
            name,
            *arguments,
            module=SERVER,
            environment={**self.environment, **ENVIRONMENT},
        )
        return replace(program, hidden=SECRETS)

    def _forked(self, program: Program, server: Path) -> Program:
        client = (sys.executable, "-S", "-E", str(CLIENT), str(server), program.name)
        descriptors = (str(number) for number in program.pass_fds)
        return replace(program, command=(*client, *descriptors, "--", *program.command))
