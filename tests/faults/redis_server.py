"""A Redis or Valkey of a test, on a port of its own: it can be killed, filled and emptied."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import redis

from app.supervisor.broker import servers
from tests.conftest import skip_unless_ci
from tests.worker.runtime.job_loops import wait_for


class RedisServer:
    """A server on `port` while the block runs; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty."""
        server = next(servers(), None)
        if server is None:
            skip_unless_ci("no Valkey or Redis on this machine")
        flags = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self._process = subprocess.Popen(
            [str(server), *flags], stdout=subprocess.DEVNULL, cwd=self._folder
        )
        wait_for(self._answers)

    def kill(self) -> None:
        """End it at once; its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, *command: Any) -> Any:
        """The answer to a command."""
        with redis.Redis(port=self.port) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def clients(self) -> dict[int, str]:
        """The open connections by their rising numbers, with their last commands."""
        with redis.Redis(port=self.port) as client:
            return {int(one["id"]): one["cmd"] for one in client.client_list()}

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.ConnectionError:
            return False
