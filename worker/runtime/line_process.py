"""A child process that is asked and answers in lines."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Generic, Self, TypeVar

END_SECONDS = 5.0
ItemT = TypeVar("ItemT")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """The process has ended, and its lines were all received."""

    code: int


class LineProcess(Generic[ItemT]):
    """A running process that is asked and answers in lines; leaving a `with` block kills it.

    It must end when its stdin is closed: then we are gone.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        decode: Callable[[bytes], ItemT | None],
        *,
        errors: IO[bytes] | None = None,
        own_group: bool = False,
    ) -> None:
        """`decode`: what a line says, None for nothing; called in the thread that reads.

        `errors`: takes its stderr; None: our log. `own_group`: what it starts is killed with it.
        """
        self._decode = decode
        self._own_group = own_group
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=own_group,
        )
        self._items: SimpleQueue[ItemT | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def write(self, line: bytes) -> None:
        """Send a line; if the process has ended, `receive` will say so."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> ItemT | Ended | None:
        """The next answer; None if none comes in time, Ended after the last one."""
        try:
            item = self._items.get(timeout=max(0.0, seconds))
        except Empty:
            return None
        if item is not None:
            return item
        self._items.put(None)
        return Ended(self._process.wait())

    def kill(self) -> None:
        """Kill the process; one that waits for a dead network drive may end much later."""
        if self.is_alive:
            with suppress(ProcessLookupError, PermissionError):
                if self._own_group and sys.platform != "win32":
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        # a fork of another process ends a moment after its client, and then the pipe is closed
        self._reader.join(END_SECONDS)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("Process %s waits for a device and cannot be ended now.", self._process.pid)

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as lines:
                for line in lines:
                    if (item := self._decode(line)) is not None:
                        self._items.put(item)
        finally:
            self._items.put(None)
