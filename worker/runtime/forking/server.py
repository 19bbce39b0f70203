"""Imports modules once, then forks a process for every client that asks to run another module.

    python -m worker.runtime.forking.server SOCKET MODULE… [-- SOCKET MODULE…]…

A client of the first socket is served as soon as the first modules are imported, and so on.

The server has one thread, does no work and knows no secret: a fork reads its environment from the
client itself. It kills a fork whose client was killed, and its forks are killed with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import marshal
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.core.device import set_threads
from worker.runtime.forking.client import NUMBER_BYTES, STREAMS

PR_SET_PDEATHSIG = 1
COMM_LENGTH = 15  # the kernel's limit on the name of a process
MAX_GIVEN = 16
ABOVE_WANTED = 256
MAX_DESCRIPTORS = 2**20


@dataclass(frozen=True)
class Fork:
    """A running fork: its process id, and descriptors of it and of its client."""

    pid: int
    handle: int
    client: int


@dataclass(frozen=True)
class Request:
    """A client's request to run `python -m MODULE ARGUMENT…`, under a name for `ps`.

    `descriptors` keep their numbers.
    """

    name: str
    folder: str
    nice: int
    descriptors: list[int]
    words: list[str]
    environment: dict[str, str]


class ForkServer:
    """Forks processes and reports their ends; `serve` returns a request only in a fork."""

    def __init__(self, listeners: Iterable[socket.socket]) -> None:
        self._poll = select.poll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._forks: dict[int, Fork] = {}  # by each of their two descriptors
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def listen(self, listener: socket.socket) -> None:
        """Serve the clients of this socket too, one of those given at the start."""
        self._poll.register(listener, select.POLLIN)

    def serve(self, *, milliseconds: int | None = None) -> Request | None:
        """Fork until nothing happens for so long; in a fork, what it should run."""
        # one event at a time: a descriptor that is closed may be given to the next client
        while events := self._poll.poll(milliseconds):
            descriptor = events[0][0]
            if listener := self._listeners.get(descriptor):
                client, server = listener.accept()[0].detach(), os.getpid()
                pid = _fork()
                if pid == 0:
                    return self._become_fork(client, server)
                if pid is None:
                    os.close(client)  # which then runs its command itself
                else:
                    self._add(pid, client)
            elif descriptor == (fork := self._forks[descriptor]).client:
                self._poll.unregister(fork.client)
                _kill_group(fork.pid)
            else:
                self._remove(fork)
        return None

    def _add(self, pid: int, client: int) -> None:
        with contextlib.suppress(OSError):  # it does so too: whoever is first
            os.setpgid(pid, pid)
        fork = Fork(pid, os.pidfd_open(pid), client)
        self._forks |= {fork.handle: fork, fork.client: fork}
        self._poll.register(fork.handle, select.POLLIN)
        self._poll.register(fork.client, select.POLLRDHUP)  # the fork reads the request
        _send_number(client, pid)

    def _remove(self, fork: Fork) -> None:
        _, status = os.waitpid(fork.pid, 0)
        _kill_group(fork.pid)  # a successor must not meet leftover processes
        _send_number(fork.client, os.waitstatus_to_exitcode(status))
        for descriptor in (fork.handle, fork.client):
            with contextlib.suppress(KeyError):  # that of a client that was killed
                self._poll.unregister(descriptor)
            del self._forks[descriptor]
            os.close(descriptor)

    def _become_fork(self, client: int, server: int) -> Request:
        """Become a process of its own with the environment and the streams of the client."""
        self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(1)  # the server died first
        os.setpgid(0, 0)
        for listener in self._listeners.values():
            listener.detach()  # or it would close a descriptor of that number later
        with socket.socket(fileno=client) as connection:
            request, given = _receive(connection)
            connection.detach()
        _place(given, [*STREAMS, *request.descriptors])
        os.setpriority(os.PRIO_PROCESS, 0, max(request.nice, os.getpriority(os.PRIO_PROCESS, 0)))
        os.environ.clear()
        os.environ.update(request.environment)
        os.chdir(request.folder)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(request.name[:COMM_LENGTH])
        _start_anew()
        return request


def _fork() -> int | None:
    """Fork this process; None if the system has no memory or process left."""
    try:
        return os.fork()
    except OSError:
        return None


def _receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """The request and the descriptors that came with it."""
    head, given, _, _ = socket.recv_fds(connection, NUMBER_BYTES, MAX_GIVEN)
    missing, content = int.from_bytes(head, "big"), b""
    while missing > len(content):
        part = connection.recv(missing - len(content))
        if not part:
            break
        content += part
    if len(head) < NUMBER_BYTES or missing > len(content):
        os._exit(1)  # the client died first
    return Request(*marshal.loads(content)), given


def _place(given: list[int], wanted: list[int]) -> None:
    """Give descriptors the wanted numbers, and close all others."""
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD, ABOVE_WANTED) for one in given]
    os.closerange(0, ABOVE_WANTED)
    for high, number in zip(moved, wanted, strict=True):
        os.dup2(high, number)
    os.closerange(ABOVE_WANTED, MAX_DESCRIPTORS)


def _start_anew() -> None:
    """Give this fork what libraries set up once per process: threads, random numbers."""
    set_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    gc.enable()


def _send_number(client: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the client died
        os.write(client, number.to_bytes(NUMBER_BYTES, "big", signed=True))


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def bind(path: str) -> socket.socket:
    """A socket at this path; who connects from now on waits until it is served."""
    Path(path).unlink(missing_ok=True)  # of a server that was killed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def stages(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments between the separators: each a socket and its modules."""
    found: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "--":
            found.append([])
        else:
            found[-1].append(argument)
    return found


def main(arguments: Sequence[str]) -> None:
    """Serve until killed; in a fork, run what its client asked for and exit."""
    bound = [(bind(path), modules) for path, *modules in stages(arguments)]
    server = ForkServer(listener for listener, _ in bound)
    gc.disable()
    request = None
    for listener, modules in bound:
        for name in modules:
            importlib.import_module(name)
        gc.freeze()  # what all forks have in common stays shared
        server.listen(listener)
        if request := server.serve(milliseconds=0):
            break
    request = request or server.serve()
    assert request is not None  # without a limit it returns only in a fork
    sys.argv = request.words
    runpy.run_module(request.words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
