"""The worker's side of trainer processes, and the warm one that waits for the next run."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.runtime.device import MANY_THREADS, child_environment, usable_cores
from worker.runtime.line_process import LineProcess
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
FINISH_SECONDS = 10.0


class TrainerProcess(LineProcess[Message]):
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
        environment = child_environment(threads) | {"BRUSHWORK_DEVICE": device}
        with self._log.open("wb") as errors:
            super().__init__(
                command, environment, self._read_message, errors=errors, own_group=True
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    @property
    def device(self) -> str:
        """Description of its device; empty until it is ready."""
        return self.ready.device if self.ready else ""

    def send(self, message: Message) -> None:
        """Send a message."""
        self.write(encode(message))

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
            self._process.wait(FINISH_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children."""
        super().kill()
        self._log.unlink(missing_ok=True)

    def _read_message(self, line: bytes) -> Message | None:
        message = decode(line)
        if isinstance(message, Ready):
            self.ready = message
        if isinstance(message, CalibrationReport):
            self._on_calibrated(message)
            return None
        return message


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
        self.memory_bytes: int | None = None

    def warm(self, model: Path) -> TrainerProcess:
        """Make the warm process load this base model; start one if needed."""
        with self._lock:
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
            process = self.warm(model)
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
                process = self.warm(model)
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
        if self._process is not None and self._process.ready:
            self.device = self._process.ready.device
            self.memory_bytes = self._process.ready.memory_bytes
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
