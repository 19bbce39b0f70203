"""A child process that answers on its stdout, line by line."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

END_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """The process has ended, and its lines were all received."""

    code: int


class LineProcess:
    """A process that is asked and answers in lines; leaving the `with` block ends it.

    It shares our log, and must end when its stdin is closed: then we are gone.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> LineProcess:
        self._process = subprocess.Popen(
            list(self._command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read, name="answers", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def send(self, line: str) -> None:
        """Send a line; if the process has ended, `receive` will say so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> str | Ended | None:
        """The next line; None if none comes in time, Ended after the last one."""
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return Ended(self._process.wait()) if line is None else line

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)
