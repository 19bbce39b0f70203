"""Trainer processes without the six CPU seconds of their imports: forked from one that has them.

A forked trainer is the real one, `worker.runtime.trainer.main`, with its own standard streams,
except that the embedded base is in its memory already and that it takes no warm-up step. `trained`
in conftest.py and test_stack.py start `python -m worker.runtime.trainer` itself.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from select import select

from worker.runtime.device import child_environment

STREAMS = (0, 1, 2)
WAIT_SECONDS = 0.02
# The process that the worker starts and kills: it hands its streams over and waits for the end.
CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [json.dumps(dict(os.environ)).encode()], [0, 1, 2])
    os._exit(int(server.recv(16) or b"1"))
"""


class TrainerServer:
    """Starts the process that forks once a test asks for it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bw-")  # short: a socket's path must be
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """The command of a trainer process."""
        place = Path(self._folder.name) / "trainers.sock"
        if self._process is None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(place))
                listener.listen()  # who connects now waits until the imports are done
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(listener.fileno())],
                    stdin=subprocess.PIPE,
                    pass_fds=[listener.fileno()],
                    env=child_environment(1),
                )
        return (sys.executable, "-I", "-S", "-c", CLIENT, str(place))

    def close(self) -> None:
        """End the process and the trainers that are left."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        self._folder.cleanup()


def serve(listener: socket.socket) -> None:
    """Fork a trainer for every client; one whose client was killed is killed as well."""
    trainers: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select([sys.stdin, listener, *trainers.values()], [], [], WAIT_SECONDS)
        if sys.stdin in ready:
            break
        for pid, client in list(trainers.items()):
            if client in ready:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if client in ready else os.WNOHANG)
            if ended:
                with contextlib.suppress(OSError):
                    client.send(str(max(0, os.waitstatus_to_exitcode(status))).encode())
                trainers.pop(pid).close()
        if listener in ready:
            client, _ = listener.accept()
            trainers[fork(client)] = client
    for pid in trainers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def fork(client: socket.socket) -> int:
    """The process id of a new trainer with the environment and the streams of this client."""
    environment, streams, _, _ = socket.recv_fds(client, 2**20, len(STREAMS))
    pid = os.fork()
    if pid == 0:
        from worker.runtime import trainer

        os.environ.clear()
        os.environ.update(json.loads(environment))
        os.setsid()
        for mine, given in zip(STREAMS, streams, strict=True):
            os.dup2(given, mine)
        os.closerange(max(STREAMS) + 1, 1024)
        trainer.main()
    for given in streams:
        os.close(given)
    return pid


def main() -> None:
    """Import what a trainer imports, then fork until standard input is closed."""
    from worker.core import starter
    from worker.core.bases.load import load_base
    from worker.runtime import trainer_orders

    embedded = load_base(starter.PATH)
    trainer_orders.load_base = lambda path, **how: (
        embedded if path == starter.PATH else load_base(path, **how)
    )
    trainer_orders.Trainer._warm_up = lambda _: None  # type: ignore[method-assign]
    gc.freeze()  # what all have in common stays shared
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
