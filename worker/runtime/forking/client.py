"""Runs `python -m MODULE` as a fork of a fork server; without one, runs the command itself.

    python -S -E client.py SOCKET NAME [DESCRIPTOR…] -- PYTHON … -m MODULE ARGUMENT…

The fork gets the environment, the working folder, the niceness, the standard streams and the named
descriptors of this process, which waits for its end, passes on signals, and exits with its code.
If this process is killed, the server kills the fork. A signal that comes while the fork begins is
passed on later. It imports few standard modules, so it starts in 20 ms and takes 5 MB.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
import time
from contextlib import suppress

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STREAMS = (0, 1, 2)
NUMBER_BYTES = 8
CONNECT_SECONDS = 10.0  # a server that was killed is back after one second, if nothing else runs
RETRY_SECONDS = 0.02
KILLED = 128 + signal.SIGKILL


def connect(path: str) -> socket.socket | None:
    """A connection to the server; None if it does not come up in time."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(path)
            return server
        except OSError:
            server.close()
            if time.monotonic() > deadline:
                return None
            time.sleep(RETRY_SECONDS)


def request_fork(
    server: socket.socket, name: str, descriptors: list[int], command: list[str]
) -> int | None:
    """Ask for the fork; its process id, or None if the server is dying."""
    module = command.index("-m") + 1
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes 10 ms
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    content = marshal.dumps((name, folder, nice, descriptors, command[module:], dict(os.environ)))
    head = len(content).to_bytes(NUMBER_BYTES, "big")
    try:
        socket.send_fds(server, [head], [*STREAMS, *descriptors])
        server.sendall(content)
        return receive_number(server)
    except OSError:
        return None


def receive_number(server: socket.socket) -> int | None:
    """The next number from the server; None at the end."""
    received = b""
    with suppress(OSError):
        while len(received) < NUMBER_BYTES and (part := server.recv(NUMBER_BYTES)):
            received += part
    return int.from_bytes(received, "big", signed=True) if len(received) == NUMBER_BYTES else None


def follow(server: socket.socket, pid: int) -> int:
    """Pass on signals until the fork has ended; return its exit code as a shell would."""
    try:
        fork = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended already, and the server says how
        fork = None
    if fork is not None:
        for number in FORWARDED:
            signal.signal(number, lambda number, _: forward(fork, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    code = receive_number(server)
    if code is None:  # the server died, and its forks with it
        return KILLED
    return code if code >= 0 else 128 - code


def forward(fork: int, number: int) -> None:
    """Send a signal to the fork, unless it has ended."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fork, number)


def main(arguments: list[str]) -> int:
    """Run the command as a fork; return its exit code."""
    split = arguments.index("--")
    path, name, *descriptors = arguments[:split]
    command = arguments[split + 1 :]
    server = connect(path)
    pid = None
    if server is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        pid = request_fork(server, name, [int(one) for one in descriptors], command)
    if server is None or pid is None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.execv(command[0], command)
    return follow(server, pid)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
