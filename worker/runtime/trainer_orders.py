"""Processes the orders of a trainer: load a base model, measure its speed, train, export.

Importing this module loads torch, diffusers and PEFT, so that a run need not wait for them.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from pathlib import Path

import torch

from worker.core.bases.family import BaseModelError
from worker.core.bases.load import LoadedBase
from worker.core.bases.threads import is_small, use_fastest_threads
from worker.core.child_pipes import Outbox
from worker.core.training.calibrate import calibrate
from worker.core.training.config import Precision
from worker.core.training.data.images import read_folder
from worker.core.training.events import Commands, Event
from worker.core.training.load import USUAL_BATCH, is_loaded_for, load_for_training
from worker.core.training.memory import release_memory
from worker.core.training.presets import Preset, preset_config
from worker.core.training.round_trip import worst_round_trips
from worker.core.training.train import train
from worker.runtime.device import describe_device, gpu_memory
from worker.runtime.messages import (
    Calibrate,
    CalibrationReport,
    Exit,
    Export,
    ExportReport,
    Heartbeat,
    Message,
    MessageInbox,
    Preload,
    Ready,
    RoundTrips,
    Train,
)
from worker.runtime.write_downloads import write_downloads

ALIVE_SECONDS = 2.0
CPU_NICENESS = 10  # renders on the same cores go first


class PipeCallbacks:
    """Training callbacks that communicate with the worker."""

    def __init__(self, outbox: Outbox[Message], inbox: MessageInbox) -> None:
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

    def __init__(
        self, outbox: Outbox[Message], inbox: MessageInbox, *, device: str, threads: int
    ) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._threads = threads
        self._device = device
        self._model: Path | None = None
        self._base: LoadedBase | None = None

    def work(self) -> None:
        """Process orders until a training has ended, or there is nothing to train."""
        while True:
            order = self._inbox.next()
            if isinstance(order, Preload):
                self._preload(order)
            elif isinstance(order, Calibrate):
                self._calibrate(order)
            elif isinstance(order, Train):
                self._run_training(order)
                return
            elif isinstance(order, Exit):
                return

    def _preload(self, order: Preload) -> None:
        known = order.threads
        try:
            self._load(order.model, threads=known)
            known = torch.get_num_threads()
        except BaseModelError as error:  # the run that needs it will report this
            sys.stderr.write(f"{order.model} was not loaded: {error}\n")
        described, memory = describe_device(self._device), gpu_memory(self._device)
        self._outbox.send(Ready(described, known, memory))
        if not self._inbox.has_orders:  # a run takes that step itself
            self._warm_up()
            _collect_garbage()

    def _warm_up(self) -> None:
        """Run a discarded training step: the first one in a process takes 0.5 s longer."""
        base = self._base
        if base is None or self._device != "cpu" or not is_small(base.info.parameters):
            return  # GPU memory is reserved for runs, and steps of large base models take too long
        config = preset_config(
            Preset.QUICK, resolution=base.info.resolution, images=1, family=base.info.family
        )
        try:
            calibrate(base, config, device=self._device, timed_steps=1)
        except Exception:  # the run will report the cause
            traceback.print_exc()

    def _load(
        self, model: Path, order: Train | None = None, *, threads: int | None = None
    ) -> LoadedBase:
        """The base, loaded if it is not held; in the precision of the order if there is one.

        `threads` is the fastest number of them, if it is known.
        """
        if self._base and order and not is_loaded_for(self._base, order.config, self._device):
            self._base = None
        if self._base is None or self._model != model:
            self._base = None  # never hold two base models in memory
            known = order.arithmetic if order else None
            self._base = load_for_training(
                model,
                device=self._device,
                config=order.config if order else None,
                precision=Precision(known.precision) if known else Precision.AUTO,
            )
            self._model = model
            if self._device == "cpu" and threads is not None:
                torch.set_num_threads(min(threads, self._threads))
            elif self._device == "cpu":
                use_fastest_threads(self._base, batch_size=USUAL_BATCH, at_most=self._threads)
        return self._base

    def _calibrate(self, order: Calibrate) -> None:
        if self._base is None or self._model is None or self._inbox.has_runs:
            return
        try:
            one_batch = order.config.model_copy(update={"gradient_accumulation": 1})
            found = calibrate(self._base, one_batch, device=self._device)
        except Exception:  # only the time estimate will be missing
            traceback.print_exc()
            return
        _collect_garbage()
        self._outbox.send(
            CalibrationReport(
                model=self._model,
                config=one_batch,
                resolution=order.resolution,
                seconds_per_step=found.seconds_per_step,
                trainable_parameters=found.trainable_parameters,
            )
        )

    def _run_training(self, order: Train) -> None:
        if self._device == "cpu" and hasattr(os, "nice"):
            os.nice(CPU_NICENESS)
        images, base = read_folder(order.data), self._load(order.model, order)
        if order.sends_round_trips:
            base.vae.to(self._device)
            folder = order.out / "round-trips"
            self._outbox.send(RoundTrips(worst_round_trips(base, images, order.config, folder)))
        trained = train(
            order.config,
            images,
            PipeCallbacks(self._outbox, self._inbox),
            base=base,
            out=order.out,
            cache=order.cache,
            device=self._device,
            arithmetic=order.arithmetic,
            continues=order.continues,
            waits_for_space=True,
            prompt_form=order.prompt_form,
            changes=order.changes,
            pause_at=order.pause_at,
        )
        self._outbox.send(trained)
        if trained.path is not None:
            self._export(trained.path)

    def _export(self, canonical: Path) -> None:
        order = self._inbox.next()
        if not isinstance(order, Export):
            raise TypeError(f"Expected an Export, not {order!r}.")
        self._outbox.send(ExportReport(write_downloads(canonical, order)))


def _collect_garbage() -> None:
    """Return the memory of a finished step to the system; a warm trainer waits for hours."""
    gc.collect()
    release_memory()
