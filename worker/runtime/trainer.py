"""The trainer process: imports all libraries, loads a base model and waits for one training.

`python -m worker.runtime.trainer` reads messages from stdin and writes messages to the original
stdout; other output goes to stderr. It exits as soon as stdin is closed, so no training outlives
its worker.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from worker.core.training.events import Commands, Control, Event
from worker.runtime.messages import (
    Calibrate,
    CalibrationReport,
    Export,
    ExportReport,
    FailureReport,
    Heartbeat,
    Message,
    Preload,
    Ready,
    Train,
    TrainerCommand,
    TrainReport,
    decode,
    encode,
)

if TYPE_CHECKING:
    from worker.core.bases.load import LoadedBase

READ_BYTES = 65_536
ALIVE_SECONDS = 2.0
ORPHANED = 75
USUAL_BATCH = 4
CPU_NICENESS = 10  # renders on the same cores go first


class MessageOutbox:
    """Messages to the worker, through the original stdout."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # output of libraries must not mix with the messages
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Write one complete line."""
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class MessageInbox:
    """Messages from the worker: orders are queued, commands take effect immediately."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[Message] = SimpleQueue()
        self._lock = threading.Lock()
        self._control = Control.CONTINUE
        self._sample_now = False
        self._save_now = False
        threading.Thread(target=self._read_messages, name="inbox", daemon=True).start()

    def next(self) -> Message:
        """Wait for the next order."""
        return self._orders.get()

    def commands(self) -> Commands:
        """Commands since the last call; a stop or cancel persists."""
        with self._lock:
            commands = Commands(self._control, self._sample_now, self._save_now)
            self._sample_now = self._save_now = False
        return commands

    def _read_messages(self) -> None:
        rest = b""
        # os.read, not sys.stdin: a buffered reader can abort the interpreter at exit
        while data := os.read(0, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._dispatch(decode(line))
        os._exit(ORPHANED)

    def _dispatch(self, message: Message) -> None:
        if not isinstance(message, TrainerCommand):
            self._orders.put(message)
            return
        with self._lock:
            if message.control is not Control.CONTINUE:
                self._control = message.control
            self._sample_now |= message.sample_now
            self._save_now |= message.save_now


class PipeCallbacks:
    """Training callbacks that communicate with the worker."""

    def __init__(self, outbox: MessageOutbox, inbox: MessageInbox) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._alive_at = 0.0

    def on_event(self, event: Event) -> None:
        """Send the event to the worker."""
        self._outbox.send(event)

    def poll(self) -> Commands:
        """Return new commands; send a heartbeat if one is due."""
        now = time.monotonic()
        if now - self._alive_at > ALIVE_SECONDS:
            self._alive_at = now
            self._outbox.send(Heartbeat())
        return self._inbox.commands()


class Trainer:
    """Processes the orders of the worker, one after another."""

    def __init__(self, outbox: MessageOutbox, inbox: MessageInbox, *, threads: int) -> None:
        from worker.core.device import choose_device

        self._outbox = outbox
        self._inbox = inbox
        self._threads = threads
        self._device = choose_device(os.environ.get("BRUSHWORK_DEVICE", "auto"))
        self._model: Path | None = None
        self._base: LoadedBase | None = None

    def work(self) -> None:
        """Process orders until a training has ended."""
        while True:
            order = self._inbox.next()
            if isinstance(order, Preload):
                self._preload(order)
            elif isinstance(order, Calibrate):
                self._calibrate(order)
            elif isinstance(order, Train):
                self._run_training(order)
                return

    def _preload(self, order: Preload) -> None:
        from worker.core.bases.family import BaseModelError
        from worker.runtime.device import describe_device

        try:
            self._load(order.model)
        except BaseModelError as error:  # the run that needs it will report this
            sys.stderr.write(f"{order.model} was not loaded: {error}\n")
        self._outbox.send(Ready(describe_device(self._device)))
        self._warm_up()

    def _warm_up(self) -> None:
        """Run a discarded training step: the first one in a process takes 0.5 s longer."""
        from worker.core.bases.threads import is_small
        from worker.core.training.calibrate import calibrate
        from worker.core.training.presets import Preset, preset_config

        base = self._base
        if base is None or self._device != "cpu" or not is_small(base):
            return  # GPU memory is reserved for runs, and steps of large base models take too long
        config = preset_config(Preset.QUICK, resolution=base.info.resolution, images=1)
        try:
            calibrate(base, config, device=self._device, timed_steps=1)
        except Exception:  # the run will report the cause
            traceback.print_exc()

    def _load(self, model: Path) -> LoadedBase:
        from worker.core.bases.load import load_base
        from worker.core.bases.threads import use_fastest_threads

        if self._base is None or self._model != model:
            self._base = None  # never hold two base models in memory
            on_cpu = self._device == "cpu"  # on a GPU, training casts the UNet before moving it
            self._base, self._model = load_base(model, unet_as_stored=not on_cpu), model
            if on_cpu:
                use_fastest_threads(self._base, batch_size=USUAL_BATCH, at_most=self._threads)
        return self._base

    def _calibrate(self, order: Calibrate) -> None:
        if self._base is None or self._model is None:
            return
        try:
            from worker.core.training.calibrate import calibrate

            one_batch = order.config.model_copy(update={"gradient_accumulation": 1})
            found = calibrate(self._base, one_batch, device=self._device)
        except Exception:  # only the time estimate will be missing
            traceback.print_exc()
            return
        self._outbox.send(
            CalibrationReport(
                model=self._model,
                config=one_batch,
                resolution=order.resolution,
                seconds_per_step=found.seconds_per_step,
                trainable_parameters=found.trainable_parameters,
                adapter_bytes=found.adapter_bytes_fp16,
            )
        )

    def _run_training(self, order: Train) -> None:
        from worker.core.training.data.images import read_folder
        from worker.core.training.loop import train

        if self._device == "cpu" and hasattr(os, "nice"):
            os.nice(CPU_NICENESS)
        trained = train(
            order.config,
            read_folder(order.data),
            PipeCallbacks(self._outbox, self._inbox),
            base=self._load(order.model),
            out=order.out,
            cache=order.cache,
            device=self._device,
            arithmetic=order.arithmetic,
            continues=order.continues,
        )
        self._outbox.send(
            TrainReport(
                path=trained.path,
                outcome=str(trained.outcome),
                steps=trained.steps,
                trainable_parameters=trained.trainable_parameters,
                base_parameters=trained.base_parameters,
                peak_memory_bytes=trained.peak_memory_bytes,
                seconds=trained.seconds,
            )
        )
        if trained.path is not None:
            self._export(trained.path)

    def _export(self, canonical: Path) -> None:
        from worker.runtime.write_downloads import write_downloads

        order = self._inbox.next()
        if not isinstance(order, Export):
            raise TypeError(f"Expected an Export, not {order!r}.")
        self._outbox.send(ExportReport(write_downloads(canonical, order)))


def failure(error: Exception) -> FailureReport:
    """The report of an exception, with a message for users if it is an expected one."""
    import torch

    from worker.core.bases.family import BaseModelError
    from worker.core.lora_files.canonical import AdapterError
    from worker.core.training.errors import TrainingError

    trace = "".join(traceback.format_exception(error))
    if isinstance(error, TrainingError):
        return FailureReport(error.code, str(error), trace, expected=True)
    if isinstance(error, BaseModelError):
        return FailureReport("base_model", str(error), trace, expected=True)
    if isinstance(error, AdapterError):
        return FailureReport("adapter", str(error), trace, expected=True)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return FailureReport("out_of_memory", "Out of memory.", trace, True)
    sentence = f"The training stopped with {type(error).__name__}: {error}"
    return FailureReport("trainer_error", sentence[:500], trace, expected=False)


def _import_everything() -> None:
    import diffusers  # noqa: F401 - imported now so that runs need not wait
    import peft  # noqa: F401
    import torch  # noqa: F401

    import worker.core.bases.load
    import worker.core.lora_files.export
    import worker.core.training.loop  # noqa: F401


def main() -> None:
    """Serve one worker, then exit the process."""
    outbox, inbox = MessageOutbox(), MessageInbox()
    try:
        _import_everything()
        Trainer(outbox, inbox, threads=int(os.environ.get("OMP_NUM_THREADS", "1"))).work()
    except Exception as error:
        traceback.print_exc()
        outbox.send(failure(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is on disk; a regular exit with torch takes a second


if __name__ == "__main__":
    main()
