"""Programs under a guard: started, logged to a rotated file, stopped gently or at once."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from app.registry.paths import ROOT

GUARD = Path(__file__).with_name("guard.py")
LOG_BYTES = 5_000_000
LOG_BACKUPS = 3
LAST_LINES_SECONDS = 2.0
WARNING_LINE = re.compile(
    r"\b(WARNING|ERROR|CRITICAL)\b|\[(warning|error|critical)\s*\]"
    r'|"level": ?"(warning|error|critical)"|\b\w+Error: '
)


@dataclass(frozen=True)
class Program:
    """What is started: a name (its log is NAME.log), a command, and what it inherits."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # added to our own
    nice: int = 0
    pass_fds: tuple[int, ...] = ()  # file descriptors it inherits under the same numbers
    echoes: bool = True  # its warnings are shown on the console, not only logged


def python_program(
    name: str,
    *arguments: str,
    environment: Mapping[str, str],
    nice: int = 0,
    pass_fds: tuple[int, ...] = (),
) -> Program:
    """A program that is one of our own commands: `python -m app ARGUMENT…`."""
    # -P: whatever folder we were started in may hold an `app` of somebody else.
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    return Program(
        name,
        (sys.executable, "-P", "-m", "app", *arguments),
        {**environment, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        nice,
        pass_fds,
    )


@dataclass(frozen=True)
class Folders:
    """Where logs and process ids are written."""

    logs: Path
    pids: Path

    @classmethod
    def below(cls, data_dir: Path) -> Folders:
        """The folders in a data folder, made when missing."""
        folders = cls(data_dir / "logs", data_dir / "run")
        folders.logs.mkdir(parents=True, exist_ok=True)
        folders.pids.mkdir(parents=True, exist_ok=True)
        return folders


class Process:
    """One started program; `on_end(process)` is called from a thread when it has ended."""

    def __init__(
        self,
        program: Program,
        folders: Folders,
        *,
        on_warning: Callable[[str, str], None] = lambda _name, _line: None,
        on_end: Callable[[Process], None] = lambda _process: None,
    ) -> None:
        self.program = program
        self.last_lines: list[str] = []
        self._folders = folders
        self._pid_file = folders.pids / f"{program.name}.pid"
        self._on_warning = on_warning
        self._on_end = on_end
        self._pid_file.unlink(missing_ok=True)
        options = ["--nice", str(program.nice), "--pid-file", str(self._pid_file)]
        # A group of its own keeps the terminal's Ctrl-C away: the supervisor says who stops when.
        # No new session, because Linux weighs niceness only within one (autogroup).
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), *options, "--", *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **program.environment},
            pass_fds=program.pass_fds,
            process_group=0,
        )
        self._watcher = threading.Thread(target=self._watch, name=f"log-{program.name}")
        self._watcher.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + signal number when a signal ended it."""
        return self._guard.poll()

    def wait(self, seconds: float | None = None) -> int:
        """The exit code, once the program ended and its last line is in the log."""
        self._watcher.join(seconds)
        if self._watcher.is_alive():
            raise subprocess.TimeoutExpired(self.program.command, seconds or 0.0)
        code = self.exit_code
        assert code is not None
        return code

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM)."""
        with suppress(ProcessLookupError):
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program and all it started, now."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()  # what the guard waits for

    def _watch(self) -> None:
        assert self._guard.stdout is not None
        log = threading.Thread(target=self._write_log, args=(self._guard.stdout,), daemon=True)
        log.start()
        code = self._guard.wait()
        if code < 0:  # the guard itself was killed: nobody else would end its group
            self._kill_orphans()
        # A trainer that outlives its worker for a moment holds the pipe open; do not wait for it.
        log.join(LAST_LINES_SECONDS)
        self.kill()
        self._pid_file.unlink(missing_ok=True)
        self._on_end(self)

    def _write_log(self, lines: IO[bytes]) -> None:
        log = RotatingFileHandler(
            self._folders.logs / f"{self.program.name}.log",
            maxBytes=LOG_BYTES,
            backupCount=LOG_BACKUPS,
            encoding="utf-8",
        )
        with lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                with suppress(OSError):  # a full disk must not stop the program that we log
                    log.emit(logging.makeLogRecord({"msg": line}))
                self.last_lines = [*self.last_lines[-19:], line]
                if self.program.echoes and WARNING_LINE.search(line):
                    self._on_warning(self.program.name, line)
        log.close()

    def _kill_orphans(self) -> None:
        with suppress(OSError, ValueError):
            os.killpg(int(self._pid_file.read_text()), signal.SIGKILL)
