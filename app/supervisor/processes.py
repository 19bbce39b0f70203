"""Programs under a guard process: start, log to rotated files, terminate or kill."""

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

from app.registry.paths import python_path

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
    """A program to start: name (its log is NAME.log), command, and what it inherits."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the parent's
    nice: int = 0
    pass_fds: tuple[int, ...] = ()  # inherited file descriptors, with the same numbers
    echoes: bool = True  # also print warnings on the console
    hidden: tuple[str, ...] = ()  # environment variables of the parent that it does not get


def python_program(
    name: str,
    *arguments: str,
    environment: Mapping[str, str],
    module: str = "app",
    nice: int = 0,
    pass_fds: tuple[int, ...] = (),
) -> Program:
    """A program that runs a Brushwork command, or another module: `python -m app ARGUMENT…`."""
    # -P: the current folder may contain another package named `app`.
    return Program(
        name,
        (sys.executable, "-P", "-m", module, *arguments),
        {**environment, "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"},
        nice,
        pass_fds,
    )


@dataclass(frozen=True)
class Folders:
    """Folders for logs and process ids."""

    logs: Path
    pids: Path

    @classmethod
    def below(cls, data_dir: Path) -> Folders:
        """The folders in a data folder; created if missing."""
        folders = cls(data_dir / "logs", data_dir / "run")
        folders.logs.mkdir(parents=True, exist_ok=True)
        folders.pids.mkdir(parents=True, exist_ok=True)
        return folders


class Process:
    """A started program; `on_end(process)` is called from a thread when it has ended."""

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
        environment = {k: v for k, v in os.environ.items() if k not in program.hidden}
        options = ["--nice", str(program.nice), "--pid-file", str(self._pid_file)]
        # A separate group does not receive the terminal's Ctrl-C: the supervisor sets the order.
        # No new session, because Linux applies niceness only within one (autogroup).
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), *options, "--", *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, **program.environment},
            pass_fds=program.pass_fds,
            process_group=0,
        )
        self._watcher = threading.Thread(target=self._watch, name=f"log-{program.name}")
        self._watcher.start()

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs, 128 + signal number if a signal ended it."""
        return self._guard.poll()

    def wait(self, seconds: float | None = None) -> int:
        """Wait until the program has ended and its log is complete; return the exit code."""
        self._watcher.join(seconds)
        if self._watcher.is_alive():
            raise subprocess.TimeoutExpired(self.program.command, seconds or 0.0)
        code = self.exit_code
        assert code is not None
        return code

    def terminate(self) -> None:
        """Terminate the program (SIGTERM)."""
        with suppress(ProcessLookupError):
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the program and all its descendants."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()  # the guard's lifeline

    def _watch(self) -> None:
        assert self._guard.stdout is not None
        log = threading.Thread(target=self._write_log, args=(self._guard.stdout,), daemon=True)
        log.start()
        code = self._guard.wait()
        if code < 0:  # the guard itself was killed, so its group still runs
            self._kill_orphans()
        # A trainer may outlive its worker briefly and hold the pipe open; do not wait for it.
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
                with suppress(OSError):  # a full disk must not stop the logged program
                    log.emit(logging.makeLogRecord({"msg": line}))
                self.last_lines = [*self.last_lines[-19:], line]
                if self.program.echoes and WARNING_LINE.search(line):
                    self._on_warning(self.program.name, line)
        log.close()

    def _kill_orphans(self) -> None:
        with suppress(OSError, ValueError):
            os.killpg(int(self._pid_file.read_text()), signal.SIGKILL)
