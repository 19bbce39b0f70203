"""Keeps broker, web and workers running, and ends them in order.

One loop in one thread reads a queue of events: a program ended, the page answers, somebody pressed
Ctrl-C, a restart is due. Nothing here imports the web framework, the database or torch.
"""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from queue import Empty, SimpleQueue
from types import FrameType
from urllib.parse import urlsplit

from app.supervisor.processes import Folders, Process, Program

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
FAST_FAILURE_SECONDS = 10.0  # a program that lived shorter never really started
MAX_FAST_FAILURES = 5
DRAIN_SECONDS = 100.0  # a worker saves a checkpoint; compose grants 120
WEB_STOP_SECONDS = 10.0
READY_POLL_SECONDS = 0.1
ECHO_LENGTH = 400
SAME_PRESS_SECONDS = 0.7  # wrappers such as `timeout` pass one signal on twice


class StopOrder(IntEnum):
    """Who is asked to end first; the broker outlives those who use it."""

    WEB = 0
    WORKER = 1
    BROKER = 2


@dataclass
class Service:
    """A program that should always run, and how it has fared."""

    program: Program
    order: StopOrder
    process: Process | None = None
    started: float = 0.0
    fast_failures: int = 0
    restart_at: float | None = None

    @property
    def name(self) -> str:
        """Name of the program and of its log."""
        return self.program.name

    @property
    def running(self) -> bool:
        """True while its process lives."""
        return self.process is not None and self.process.exit_code is None


@dataclass
class Ended:
    """A process ended; `process` tells an old one from its successor."""

    process: Process


@dataclass
class Signalled:
    """Somebody asks us to stop."""

    number: int


@dataclass
class PageAnswers:
    """The web server said it is ready."""


Event = Ended | Signalled | PageAnswers


class StartError(Exception):
    """Brushwork could not be started; the message says why and where to look."""


@dataclass
class Supervisor:
    """Runs programs under guards; `run()` returns the exit code of the whole."""

    folders: Folders
    say: Callable[[str], None]
    on_ready: Callable[[], None] = lambda: None
    services: list[Service] = field(default_factory=list)
    _events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    _stopping: bool = False
    _stop_began: float = 0.0

    def start(self, program: Program) -> Process:
        """A program that is started once and watched by the caller."""
        return Process(program, self.folders, on_warning=self._echo, on_end=self._ended)

    def run_once(self, program: Program) -> None:
        """Run a program to its end. Raises StartError with its last words when it failed."""
        process = self.start(program)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        if code:
            words = "\n".join(f"  {line}" for line in process.last_lines[-8:])
            raise StartError(
                f"{program.name} failed (exit code {code}):\n{words}\n"
                f"The whole log is in {self.folders.logs / program.name}.log."
            )

    def adopt(self, program: Program, order: StopOrder, process: Process) -> None:
        """Keep a program running that was started already."""
        self.services.append(Service(program, order, process, started=time.monotonic()))

    def add(self, program: Program, order: StopOrder) -> None:
        """Start a program and keep it running."""
        self.services.append(Service(program, order))
        self._start(self.services[-1])

    def run(self, *, ready_url: str) -> int:
        """Keep everything running until somebody stops it; the exit code."""
        threading.Thread(target=self._await_page, args=(ready_url,), daemon=True).start()
        while True:
            event = self._next_event()
            if isinstance(event, Signalled):
                return self.stop()
            if isinstance(event, PageAnswers):
                self.on_ready()
            if isinstance(event, Ended):
                lost = self._after_end(event.process)
                if lost is not None:
                    self.say(self._giving_up(lost))
                    self.stop()
                    return 1
            self._restart_due()

    def take_signals(self) -> None:
        """Let Ctrl-C, SIGTERM and a closed terminal end everything in order."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def stop(self) -> int:
        """Drain: web stops, workers hand back their work, the broker goes last; the exit code.

        A second signal kills what is left.
        """
        self._stopping, self._stop_began = True, time.monotonic()
        if any(service.running for service in self.services):
            self.say("Stopping: running trainings save a checkpoint. Ctrl-C again ends at once.")
        clean = True
        for order, seconds in (
            ({StopOrder.WEB, StopOrder.WORKER}, DRAIN_SECONDS),
            ({StopOrder.BROKER}, WEB_STOP_SECONDS),
        ):
            group = [service for service in self.services if service.order in order]
            for service in sorted(group, key=lambda service: service.order):
                if service.process is not None and service.running:
                    service.process.terminate()
            if not self._wait_for(group, seconds):
                clean = False
                self._kill_all()
        self.say("Stopped." if clean else "Stopped; what did not end by itself was killed.")
        return 0 if clean else 1

    def kill(self) -> None:
        """End everything now."""
        self._stopping = True
        self._kill_all()
        self._wait_for(self.services, WEB_STOP_SECONDS)

    # -- events ---------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._events.put(Signalled(number))

    def _ended(self, process: Process) -> None:
        self._events.put(Ended(process))

    def _next_event(self) -> Event | None:
        due = [service.restart_at for service in self.services if service.restart_at is not None]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        try:
            return self._events.get(timeout=timeout)
        except Empty:
            return None

    def _await_page(self, url: str) -> None:
        parts = urlsplit(url)
        while not self._stopping:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", parts.path)
                if connection.getresponse().status == 200:
                    self._events.put(PageAnswers())
                    return
            connection.close()
            time.sleep(READY_POLL_SECONDS)

    def _echo(self, name: str, line: str) -> None:
        self.say(f"[{name}] {line[:ECHO_LENGTH]}")

    # -- services -------------------------------------------------------------------------------

    def _start(self, service: Service) -> None:
        service.started = time.monotonic()
        service.restart_at = None
        service.process = self.start(service.program)

    def _after_end(self, process: Process) -> Service | None:
        """Plan the restart of what ended; the service when it is the web and hopeless."""
        service = next((one for one in self.services if one.process is process), None)
        if service is None:
            return None
        fast = time.monotonic() - service.started < FAST_FAILURE_SECONDS
        service.fast_failures = service.fast_failures + 1 if fast else 1
        if service.order is StopOrder.WEB and service.fast_failures >= MAX_FAST_FAILURES:
            return service
        delay = BACKOFF_SECONDS[min(service.fast_failures, len(BACKOFF_SECONDS)) - 1]
        self.say(
            f"{service.name} ended (exit code {process.exit_code}); starting it again in "
            f"{delay:.0f} s. Its log: {self.folders.logs / service.name}.log"
        )
        service.restart_at = time.monotonic() + delay
        return None

    def _restart_due(self) -> None:
        now = time.monotonic()
        for service in self.services:
            if service.restart_at is not None and service.restart_at <= now:
                self._start(service)

    def _giving_up(self, service: Service) -> str:
        words = service.process.last_lines[-8:] if service.process else []
        return "\n".join(
            [
                f"{service.name} ended {MAX_FAST_FAILURES} times right after its start. "
                "Brushwork gives up. Its last lines:",
                *(f"  {line}" for line in words),
                f"The whole log is in {self.folders.logs / service.name}.log; "
                "`brushwork doctor` checks the settings.",
            ]
        )

    def _wait_for(self, services: list[Service], seconds: float) -> bool:
        """True when all ended in time; False on time-out or on another signal."""
        deadline = time.monotonic() + seconds
        while any(service.running for service in services):
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return False
            pressed_again = time.monotonic() > self._stop_began + SAME_PRESS_SECONDS
            if isinstance(event, Signalled) and pressed_again:
                return False
        return True

    def _kill_all(self) -> None:
        for service in self.services:
            if service.process is not None and service.running:
                service.process.kill()
