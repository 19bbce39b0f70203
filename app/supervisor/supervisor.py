"""Keeps the broker, web server and workers running, and stops them in order.

One loop in one thread reads a queue of events: a program ended, the page is ready, a signal
arrived, a restart is due. This module imports no web framework, database or torch.
"""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from queue import Empty, SimpleQueue
from types import FrameType
from urllib.parse import urlsplit

from app.supervisor.processes import Folders, Process, Program

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
FAST_FAILURE_SECONDS = 10.0  # a program that ends sooner counts as failed to start
MAX_FAST_FAILURES = 5
DRAIN_SECONDS = 100.0  # a worker saves a checkpoint; compose grants 120
WEB_STOP_SECONDS = 10.0
READY_POLL_SECONDS = 0.1
ECHO_LENGTH = 400
SAME_PRESS_SECONDS = 0.7  # wrappers such as `timeout` forward one signal twice


class StopOrder(IntEnum):
    """Order in which services are stopped; broker and fork servers outlive their clients."""

    WEB = 0
    WORKER = 1
    FORK_SERVER = 2
    BROKER = 3


@dataclass
class Service:
    """A program that should always run, with its process and failure count."""

    program: Program
    order: StopOrder
    process: Process | None = None
    started: float = 0.0
    fast_failures: int = 0
    restart_at: float | None = None

    @property
    def name(self) -> str:
        """Name of the program, which is also the name of its log."""
        return self.program.name

    @property
    def running(self) -> bool:
        """True while its process lives."""
        return self.process is not None and self.process.exit_code is None


class Notice(Enum):
    """What happens besides the end of a process."""

    STOP = auto()  # a signal arrived
    READY = auto()  # the web server answers


SupervisorEvent = Process | Notice
"""A process that ended, or a notice."""


class StartError(Exception):
    """Brushwork could not be started; the message gives the reason and the log to read."""


@dataclass
class Supervisor:
    """Runs programs under guard processes; `run()` returns the overall exit code."""

    folders: Folders
    say: Callable[[str], None]
    on_ready: Callable[[], None] = lambda: None
    services: list[Service] = field(default_factory=list)
    _events: SimpleQueue[SupervisorEvent] = field(default_factory=SimpleQueue)
    _stopping: bool = False
    _stop_began: float = 0.0

    def start(self, program: Program) -> Process:
        """Start a program once; the caller watches it."""
        return Process(program, self.folders, on_warning=self._echo_line, on_end=self._events.put)

    def run_once(self, program: Program) -> None:
        """Run a program to its end. Raises StartError with the end of its log if it fails."""
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
                f"The full log is {self.folders.logs / program.name}.log."
            )

    def adopt(self, program: Program, order: StopOrder, process: Process) -> None:
        """Keep an already started program running."""
        self.services.append(Service(program, order, process, started=time.monotonic()))

    def add(self, program: Program, order: StopOrder) -> None:
        """Start a program and keep it running."""
        self.services.append(Service(program, order))
        self._start_service(self.services[-1])

    def run(self, *, ready_url: str) -> int:
        """Keep everything running until a stop signal; return the exit code."""
        threading.Thread(target=self._await_page, args=(ready_url,), daemon=True).start()
        while True:
            event = self._next_event()
            if event is Notice.STOP:
                return self.stop()
            if event is Notice.READY:
                self.on_ready()
            if isinstance(event, Process):
                lost = self._handle_exit(event)
                if lost is not None:
                    self.say(self._failure_report(lost))
                    self.stop()
                    return 1
            self._restart_due_services()

    def take_signals(self) -> None:
        """Stop everything in order on Ctrl-C, SIGTERM or a closed terminal."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def stop(self) -> int:
        """Stop the web server, let workers return their jobs, stop the broker; return an exit code.

        A second signal kills all remaining processes.
        """
        self._stopping, self._stop_began = True, time.monotonic()
        if any(service.running for service in self.services):
            self.say("Stopping: running trainings save a checkpoint. Press Ctrl-C again to kill.")
        clean = True
        for order, seconds in (
            ({StopOrder.WEB, StopOrder.WORKER}, DRAIN_SECONDS),
            ({StopOrder.FORK_SERVER, StopOrder.BROKER}, WEB_STOP_SECONDS),
        ):
            group = [service for service in self.services if service.order in order]
            for service in sorted(group, key=lambda service: service.order):
                if service.process is not None and service.running:
                    service.process.terminate()
            if not self._wait_for(group, seconds):
                clean = False
                self._kill_all()
        self.say(
            "Stopped." if clean else "Stopped. Processes that did not end in time were killed."
        )
        return 0 if clean else 1

    def kill(self) -> None:
        """Kill all processes now."""
        self._stopping = True
        self._kill_all()
        self._wait_for(self.services, WEB_STOP_SECONDS)

    # -- events ---------------------------------------------------------------------------------

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._events.put(Notice.STOP)

    def _next_event(self) -> SupervisorEvent | None:
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
                    self._events.put(Notice.READY)
                    return
            connection.close()
            time.sleep(READY_POLL_SECONDS)

    def _echo_line(self, name: str, line: str) -> None:
        self.say(f"[{name}] {line[:ECHO_LENGTH]}")

    # -- services -------------------------------------------------------------------------------

    def _start_service(self, service: Service) -> None:
        service.started = time.monotonic()
        service.restart_at = None
        service.process = self.start(service.program)

    def _handle_exit(self, process: Process) -> Service | None:
        """Schedule a restart; return the service if it is the web server and keeps failing."""
        service = next((one for one in self.services if one.process is process), None)
        if service is None:
            return None
        fast = time.monotonic() - service.started < FAST_FAILURE_SECONDS
        service.fast_failures = service.fast_failures + 1 if fast else 1
        if service.order is StopOrder.WEB and service.fast_failures >= MAX_FAST_FAILURES:
            return service
        delay = BACKOFF_SECONDS[min(service.fast_failures, len(BACKOFF_SECONDS)) - 1]
        self.say(
            f"{service.name} ended (exit code {process.exit_code}) and restarts in {delay:.0f} s. "
            f"See its log: {self.folders.logs / service.name}.log"
        )
        service.restart_at = time.monotonic() + delay
        return None

    def _restart_due_services(self) -> None:
        now = time.monotonic()
        for service in self.services:
            if service.restart_at is not None and service.restart_at <= now:
                self._start_service(service)

    def _failure_report(self, service: Service) -> str:
        words = service.process.last_lines[-8:] if service.process else []
        return "\n".join(
            [
                f"{service.name} ended {MAX_FAST_FAILURES} times right after starting, so "
                "Brushwork stops. Its last log lines:",
                *(f"  {line}" for line in words),
                f"The full log is {self.folders.logs / service.name}.log. Check the settings with "
                "`brushwork doctor`.",
            ]
        )

    def _wait_for(self, services: list[Service], seconds: float) -> bool:
        """True if all services ended in time; False on timeout or a second signal."""
        deadline = time.monotonic() + seconds
        while any(service.running for service in services):
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return False
            pressed_again = time.monotonic() > self._stop_began + SAME_PRESS_SECONDS
            if event is Notice.STOP and pressed_again:
                return False
        return True

    def _kill_all(self) -> None:
        for service in self.services:
            if service.process is not None and service.running:
                service.process.kill()
