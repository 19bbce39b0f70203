"""One contender in its own process, which takes its steps on command.

Started by `bench.training`, which hands over a task as JSON and then a line for each step; it
answers every step with its times, and the last one with the results of the whole process. So two
contenders can take turns step by step, and each has its own memory peak.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker does

import psutil
import torch
from torch import Tensor

from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):  # as the trainer does
    from bench.bases import BASES, many, pictures
    from bench.plain import PlainConfig, PlainTrainer
    from worker.core.bases.load import LoadedBase, encode_prompts
    from worker.core.latents import encode
    from worker.core.lora_files import canonical
    from worker.core.training.config import LrScheduler, Precision, TrainConfig
    from worker.core.training.data.buckets import Size, crop_to_bucket, fit
    from worker.core.training.data.images import TrainingImage, open_image
    from worker.core.training.events import (
        Arithmetic,
        Commands,
        Event,
        Phase,
        PhaseStarted,
        StepDone,
    )
    from worker.core.training.train import train
    from worker.core.words import LossWeighting

HELD_OUT = 6
LOOKS = 8  # noise levels at which each held-out image is measured


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a contender. `pictures`: the number of images; 0 means the base's own."""

    way: str
    base: str
    folder: str
    steps: int
    batch_size: int
    threads: int
    rank: int = 8
    learning_rate: float = 1e-3
    precision: str = "fp32"
    pictures: int = 0
    held_out: bool = False
    prepare: bool = False  # ours: one step before, in this process, so that all is encoded


class Clock:
    """Times of steps, without the waiting between them."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def wait(self) -> None:
        """Sleep until the next command; this time does not count."""
        asleep = time.perf_counter()
        if not sys.stdin.readline():
            raise SystemExit("the parent process has ended")
        self._wall += time.perf_counter() - asleep

    def lap(self) -> dict[str, float]:
        """CPU and wall seconds since the last lap."""
        cpu, wall = time.process_time(), time.perf_counter()
        times = {"cpu": cpu - self._cpu, "wall": wall - self._wall}
        self._cpu, self._wall = cpu, wall
        return times


def main() -> None:
    """Read a task, take its steps, print the results."""
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    images, held_out = _task_images(task)
    summary = _run_ours(task, images) if task.way == "ours" else _run_plain(task, images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values: dict[str, Any] = {"peak_mib": peak, **summary.values}
    if task.held_out:
        base = BASES[task.base]()
        values["base_loss"] = held_out_loss(base, base.denoiser, held_out)
        values["held_out_loss"] = held_out_loss(base, summary.trained_unet(base), held_out)
    _send_message({"end": values})


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a contender: plain values, and its adapter in a file or its UNet."""

    values: dict[str, Any]
    adapter: Path | None = None
    unet: Any = None

    def trained_unet(self, fresh: LoadedBase) -> Any:
        """The trained UNet; an adapter is loaded into that of `fresh`."""
        if self.adapter is None:
            return self.unet
        for module in canonical.load_adapter(self.adapter).modules:
            fresh.denoiser.get_submodule(module.path).weight.data += module.delta()
        return fresh.denoiser


class Listener:
    """Callbacks that let the training take a step only on command, and record its times."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.began = time.perf_counter()
        self.first_step: float | None = None
        self.arithmetic: Arithmetic | None = None
        self._due = False

    def on_event(self, event: Event) -> None:
        """Report a step; record the arithmetic of the training."""
        if isinstance(event, Arithmetic):
            self.arithmetic = event
        elif isinstance(event, PhaseStarted):
            self._due = event.phase is Phase.TRAINING
        elif isinstance(event, StepDone):
            self.first_step = self.first_step or time.perf_counter() - self.began
            self._due = True
            _send_message(_step(self.clock, event.loss))

    def poll(self) -> Commands:
        """Wait for the command before a step."""
        if self._due:
            self._due = False
            self.clock.wait()
        return Commands()


class Counter:
    """Counts the runs of a base's encoders."""

    def __init__(self, base: LoadedBase) -> None:
        self.vae = self.text = 0
        base.text_encoders[0].register_forward_pre_hook(self._count_text)
        self._encode = base.vae.encode
        base.vae.encode = self._count_vae

    def _count_text(self, *_: object) -> None:
        self.text += 1

    def _count_vae(self, pixels: Tensor) -> Any:
        self.vae += 1
        return self._encode(pixels)


class SilentListener(Listener):
    """Trains without waiting and without reports."""

    def on_event(self, event: Event) -> None:
        """Record the first step."""
        if isinstance(event, StepDone):
            self.first_step = self.first_step or time.perf_counter() - self.began

    def poll(self) -> Commands:
        """Always continue."""
        return Commands()


def _task_images(task: Task) -> tuple[list[TrainingImage], list[TrainingImage]]:
    folder = Path(task.folder)
    found = pictures(task.base, folder / "pictures", count=24)
    held_out, images = found[:HELD_OUT], found[HELD_OUT:]
    return many(found[0], task.pictures) if task.pictures else images, held_out


def _run_ours(task: Task, images: Sequence[TrainingImage]) -> Summary:
    folder = Path(task.folder) / f"ours-{os.getpid()}"
    values: dict[str, Any] = {}
    if task.prepare:
        base, unheard = BASES[task.base](), SilentListener()
        counter = Counter(base)
        if task.pictures:
            _encode_in_a_blink(base)
        _train_once(task, images, unheard, base=base, folder=folder / "before", steps=1)
        values["first_run"] = _first_step_values(unheard, counter)
    base = BASES[task.base]()
    counter, listener = Counter(base), Listener()
    _train_once(task, images, listener, base=base, folder=folder, steps=task.steps)
    if listener.arithmetic is not None:
        values["precision"] = listener.arithmetic.precision
    return Summary(
        values | _first_step_values(listener, counter), adapter=folder / "adapter.safetensors"
    )


def _train_once(
    task: Task,
    images: Sequence[TrainingImage],
    listener: Listener,
    *,
    base: LoadedBase,
    folder: Path,
    steps: int,
) -> None:
    config = TrainConfig(
        steps=steps,
        batch_size=task.batch_size,
        rank=task.rank,
        alpha=task.rank,
        learning_rate=task.learning_rate,
        lr_scheduler=LrScheduler.CONSTANT,
        loss_weighting=LossWeighting.NONE,
        caption_dropout=0,
        precision=Precision(task.precision),
        checkpoint_every=0,
        sample_every=0,
    )
    listener.began = time.perf_counter()
    train(config, images, listener, base=base, out=folder, cache=Path(task.folder) / "cache")


def _first_step_values(listener: Listener, counter: Counter) -> dict[str, Any]:
    return {
        "first_step": listener.first_step,
        "vae_calls": counter.vae,
        "text_calls": counter.text,
    }


def _encode_in_a_blink(base: LoadedBase) -> None:
    """Give every image the latents of the first, to measure ten thousand without encoding them."""
    real, known = base.vae.encode, []

    def encode_once(pixels: Tensor) -> Any:
        if not known:
            known.append(real(pixels))
        return known[0]

    base.vae.encode = encode_once


def _run_plain(task: Task, images: Sequence[TrainingImage]) -> Summary:
    base = BASES[task.base]()
    config = PlainConfig(
        batch_size=task.batch_size,
        rank=task.rank,
        learning_rate=task.learning_rate,
        resolution=base.info.resolution,
        bf16=task.precision == "bf16",
    )
    began, clock = time.perf_counter(), Clock()
    trainer = PlainTrainer(base, images, config)
    first_step = None
    for _ in range(task.steps):
        clock.wait()
        loss = trainer.step()
        first_step = first_step or time.perf_counter() - began
        _send_message(_step(clock, loss))
    values = {"first_step": first_step, "precision": task.precision, "parts": trainer.seconds}
    return Summary(values, unet=trainer.unet)


@torch.no_grad()
def held_out_loss(base: LoadedBase, unet: Any, images: Sequence[TrainingImage]) -> float:
    """The mean squared error on held-out images, with the same noise for all contenders."""
    from worker.core.training.prepare import make_process

    process = make_process(base, TrainConfig(), device="cpu")
    latents = torch.stack([_latent(base, image) for image in images])
    text = encode_prompts(base, [image.caption for image in images], device="cpu").hidden
    chance = torch.Generator().manual_seed(7)
    unet.eval()
    total = 0.0
    for look in range(LOOKS):
        noise = torch.randn(latents.shape, generator=chance)
        timesteps = process.middle_levels(1, strata=LOOKS, place=look).expand(len(images))
        predicted = unet(process.add_noise(latents, noise, timesteps), timesteps, text).sample
        target = process.target(latents, noise, timesteps)
        total += float((predicted - target).square().mean())
    return total / LOOKS


def _latent(base: LoadedBase, image: TrainingImage) -> Tensor:
    picture = open_image(image)
    fitted = fit(Size(*picture.size), base.info.resolution)
    pixels = torch.tensor(list(crop_to_bucket(fitted, picture).tobytes()), dtype=torch.float32)
    shape = (fitted.bucket.height, fitted.bucket.width, 3)
    pixels = (pixels.view(shape) / 127.5 - 1).permute(2, 0, 1)
    return encode(base.vae, pixels[None])[0].mean.clone() * base.vae.config.scaling_factor


def _step(clock: Clock, loss: float) -> dict[str, float]:
    rss = psutil.Process().memory_info().rss / 2**20
    return {**clock.lap(), "loss": loss, "rss_mib": rss}


def _send_message(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
