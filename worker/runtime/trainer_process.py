"""The worker's side of trainer processes, and the warm one that waits for the next run."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from worker.runtime.device import MANY_THREADS, child_environment, usable_cores
from worker.runtime.messages import (
    Calibrate,
    CalibrationReport,
    Exit,
    Message,
    Preload,
    Ready,
    decode,
    encode,
)

COMMAND = (sys.executable, "-m", "worker.runtime.trainer")
LOG_TAIL_BYTES = 4_000
END_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerExit:
    """The trainer process ended and its messages were all received."""

    exit_code: int


class TrainerProcess:
    """A running `python -m worker.runtime.trainer` in its own process group."""

    def __init__(
        self,
        *,
        logs: Path,
        device: str,
        threads: int,
        on_calibrated: Callable[[CalibrationReport], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / f"trainer-{secrets.token_hex(4)}.log"
        self.ready: Ready | None = None
        self._on_calibrated = on_calibrated
        self._inbox: SimpleQueue[Message | None] = SimpleQueue()
        environment = child_environment(threads) | {"BRUSHWORK_DEVICE": device}
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=environment,
                start_new_session=True,
            )
        self._reader = threading.Thread(
            target=self._read_messages, name="trainer-reader", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    @property
    def device(self) -> str:
        """Description of its device; empty until it is ready."""
        return self.ready.device if self.ready else ""

    @property
    def is_alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def send(self, message: Message) -> None:
        """Send a message; if the trainer is dead, `receive` will report it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(encode(message))

    def receive(self, timeout: float) -> Message | TrainerExit | None:
        """The next message; None on timeout, TrainerExit after the last one."""
        try:
            message = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if message is not None:
            return message
        self._inbox.put(None)
        return TrainerExit(self._process.wait())

    def log_tail(self) -> str:
        """The end of the process's stderr."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def finish(self) -> None:
        """Wait briefly for a process that sent its last message, then kill it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._log.unlink(missing_ok=True)

    def _read_messages(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            rest = b""
            while data := self._process.stdout.read(65_536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._dispatch_message(decode(line))
        self._inbox.put(None)

    def _dispatch_message(self, message: Message) -> None:
        if isinstance(message, Ready):
            self.ready = message
        if isinstance(message, CalibrationReport):
            self._on_calibrated(message)
        else:
            self._inbox.put(message)


class WarmTrainer:
    """Keeps one trainer process warm, so that a run starts in under a second.

    `forks`: a new process costs milliseconds, because its libraries are loaded. Base models are
    then calibrated in a process of their own, which a run need not wait for.
    """

    def __init__(self, start: Callable[[], TrainerProcess], *, forks: bool = False) -> None:
        self._start = start
        self._forks = forks
        self._process: TrainerProcess | None = None
        self._calibrator: TrainerProcess | None = None
        self._newest: TrainerProcess | None = None
        self._model: Path | None = None
        self._threads: dict[Path, int] = {}  # the fastest number, by base model
        self._lock = threading.RLock()
        self.device = ""

    def warm(self, model: Path) -> None:
        """Make the warm process load this base model; start one if needed."""
        with self._lock:
            self._warm(model)

    def _warm(self, model: Path) -> TrainerProcess:
        if self._process is not None and not self._process.is_alive:
            self._process.kill()
            self._process = None
        if self._process is None:
            self._process = self._newest = self._start_noting_threads()
            self._model = None
        if self._model != model:
            self._process.send(Preload(model, self._threads.get(model)))
            self._model = model
        return self._process

    def _start_noting_threads(self) -> TrainerProcess:
        """A new process; what the last one found about its base model is kept."""
        ready = self._newest.ready if self._newest else None
        if self._model is not None and ready is not None and ready.threads is not None:
            self._threads[self._model] = ready.threads
        return self._start()

    def take(self, model: Path) -> TrainerProcess:
        """Hand over the process, warm or new, to the caller."""
        with self._lock:
            self._stop_calibrating()
            process = self._warm(model)
            self._process = None
            return process

    def calibrate(self, model: Path, orders: Sequence[Calibrate]) -> None:
        """Measure training steps on this base model, until a run takes the process."""
        with self._lock:
            self._stop_calibrating()
            if self._forks:
                process = self._calibrator = self._start()
                process.send(Preload(model, self._threads.get(model)))
            else:
                process = self._warm(model)
            for order in orders:
                process.send(order)
            if self._forks:
                process.send(Exit())

    def warm_during_run(self, model: Path) -> None:
        """Warm the next process while a run trains, if there are enough cores for its imports."""
        if usable_cores() > MANY_THREADS:
            self.warm(model)

    def warm_after_training(self, model: Path) -> None:
        """Warm the next process while the files of a run are written, if that is cheap."""
        if self._forks:
            self.warm(model)

    @property
    def described_device(self) -> str:
        """Device description from the newest ready process."""
        if self._process is not None and self._process.device:
            self.device = self._process.device
        return self.device

    def close(self) -> None:
        """Kill the warm process."""
        with self._lock:
            self._stop_calibrating()
            if self._process is not None:
                self._process.kill()
                self._process = None

    def _stop_calibrating(self) -> None:
        if self._calibrator is not None:
            self._calibrator.kill()
            self._calibrator = None
