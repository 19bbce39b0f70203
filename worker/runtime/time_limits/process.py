"""The worker's side of a process that carries out io jobs, and one that is kept for the next."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from app.registry.config import Settings
from worker.runtime.device import child_environment, threads
from worker.runtime.time_limits.messages import Message, Word, decode, encode

COMMAND = (sys.executable, "-m", "worker.runtime.time_limits.child")
READ_BYTES = 65_536
END_SECONDS = 5.0
KEPT_SECONDS = 60.0
NOT_SENT = {"password", "hub_token"}  # settings that no job in a process needs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exit:
    """The process has ended, and its messages were all received."""

    code: int


class JobProcess:
    """A running `python -m worker.runtime.time_limits.child`.

    It belongs to the process group of the worker: whoever kills the group kills it too.
    """

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | child_environment(threads(settings.threads)),
        )
        self._inbox: SimpleQueue[Message | Word | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="job-messages", daemon=True)
        self._reader.start()
        values = settings.model_dump(mode="json", exclude=NOT_SENT, exclude_none=True)
        if settings.openai_key:  # JSON of a secret is asterisks
            values["openai_key"] = settings.openai_key.get_secret_value()
        self._write(json.dumps(values).encode() + b"\n")

    @property
    def is_alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Send a message; if the process has ended, `receive` will say so."""
        self._write(encode(message))

    def receive(self, seconds: float) -> Message | Word | Exit | None:
        """The next message; None if none comes in time, Exit after the last one."""
        try:
            message = self._inbox.get(timeout=seconds)
        except Empty:
            return None
        return Exit(self._process.wait()) if message is None else message

    def kill(self) -> None:
        """Kill the process; one that waits for a dead network drive may end much later."""
        self._process.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # a fork of another process ends a moment after its client, and then the pipe is closed
        self._reader.join(END_SECONDS)
        if self._reader.is_alive():
            log.warning(
                "Process %s has not ended yet; it may wait for a device.", self._process.pid
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            rest = b""
            while data := pipe.read(READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._inbox.put(decode(line))
        self._inbox.put(None)


class ProcessPool:
    """Gives processes for jobs, and keeps one that has ended its job for a while.

    A process that imports its libraries itself takes seconds to start. `forks`: it takes
    milliseconds, and none is kept.
    """

    def __init__(self, settings: Settings, command: Sequence[str], *, forks: bool) -> None:
        self._settings = settings
        self._command = command
        self._kept_seconds = 0.0 if forks else KEPT_SECONDS
        self._kept: JobProcess | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def take(self) -> JobProcess:
        """A process without a job; the caller gives it back or kills it."""
        process = self._take_kept()
        if process is not None and process.is_alive:
            return process
        if process is not None:
            process.kill()
        return JobProcess(self._settings, self._command)

    def give_back(self, process: JobProcess) -> None:
        """Keep this process for the next job, or end it."""
        with self._lock:
            keeps = self._kept is None and self._kept_seconds > 0
            if keeps:
                self._kept = process
                self._timer = threading.Timer(self._kept_seconds, self.close)
                self._timer.daemon = True
                self._timer.start()
        if not keeps:
            process.kill()

    def close(self) -> None:
        """End the process that is kept."""
        process = self._take_kept()
        if process is not None:
            process.kill()

    def _take_kept(self) -> JobProcess | None:
        with self._lock:
            process, self._kept = self._kept, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return process
