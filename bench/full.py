"""One training of the embedded base in its own process: a LoRA, or all weights.

Started by `bench.lora_vs_full`, which hands over a task as JSON and reads one line of JSON back.
Full fine-tuning is the same loop, batches, loss and optimizer with every weight of the UNet and the
text encoder in place of the adapter's matrices.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker does

import torch
from safetensors.torch import save
from torch import Tensor, nn

from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):  # as the trainer does
    from worker.core import starter
    from worker.core.bases.inspect import inspect_base
    from worker.core.bases.load import LoadedBase, load_base
    from worker.core.families.networks import network_of
    from worker.core.starter.style import style_distance
    from worker.core.training.adapter.lora import Lora
    from worker.core.training.config import Precision, TrainConfig
    from worker.core.training.data.batches import Batches
    from worker.core.training.data.images import open_image, read_folder
    from worker.core.training.data.text import LiveCaptionEncoder
    from worker.core.training.data.validation import ValidationSet
    from worker.core.training.learner import Learner, Model
    from worker.core.training.memory import peak_memory_bytes, release_memory
    from worker.core.training.prepare import (
        EncodedDataset,
        add_adapter,
        base_parameters,
        cast_and_move,
        encode_dataset,
        make_process,
        prediction_of,
        resolution_of,
        schedule_of,
    )
    from worker.core.training.presets import Preset, preset_config, usual_form
    from worker.core.training.samples.sampler import Sampler

BASE = inspect_base(starter.PATH)
GENERATED = 24  # held-out subjects to generate; the loss is measured on all
STEPS_BETWEEN_RELEASES = 50


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A training on a style's images and its number of steps; 0 leaves the base unchanged.

    `rank` 0: every weight; `options`: more of TrainConfig.
    """

    style: str
    trained: str
    held_out: str
    rank: int
    learning_rate: float
    steps: int
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    pictures: str = ""  # a folder for the images that are generated at the end

    @property
    def key(self) -> str:
        """A key that is equal for tasks with equal results."""
        named = dict(self.options)
        more = "".join(f" {name}={named[name]}" for name in sorted(named))
        return (
            f"{self.style} rank={self.rank} lr={self.learning_rate:g} "
            f"steps={self.steps} seed={self.seed}{more}"
        )

    def config(self) -> TrainConfig:
        """The preset for this base with the options of the task; `alpha` is the rank."""
        preset = preset_config(
            Preset.QUICK,
            resolution=BASE.resolution,
            images=24,
            prompt_form=usual_form(f"{self.style} style"),
        )
        overrides = {
            "steps": max(1, self.steps),
            "warmup_steps": self.steps // 20,
            "rank": self.rank or preset.rank,
            "alpha": float(self.rank or preset.rank),
            "learning_rate": self.learning_rate,
            "precision": Precision.FP32,
            "seed": self.seed,
        }
        return TrainConfig.model_validate(preset.model_dump() | overrides | dict(self.options))


class FullModel(Lora):
    """All weights of a base, trained in place of an adapter."""

    def __init__(self, base: LoadedBase) -> None:
        super().__init__([])
        parts = {"unet": base.denoiser, "text_encoder": base.text_encoders[0]}
        self._text: list[nn.Parameter] = []
        self._unet: list[nn.Parameter] = []
        self._named: dict[str, nn.Parameter] = {}
        for part, module in parts.items():
            module.requires_grad_(True)
            for name, parameter in module.named_parameters():
                self._named[f"{part}.{name}"] = parameter
                (self._unet if part == "unet" else self._text).append(parameter)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Every weight by its path."""
        return self._named

    def parameters(self, *, text: bool | None = None, up: bool | None = None) -> list[nn.Parameter]:
        """All weights, or the text encoder's or the UNet's alone; none of them is an `up`."""
        if up:
            return []
        if text is None:
            return [*self._unet, *self._text]
        return self._text if text else self._unet

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        """Not supported: the change is in the weights themselves."""
        if weight != 1:
            raise ValueError("weights trained in full have no strength")
        yield


def train_one(task: TrainingTask) -> dict[str, Any]:
    """Train the task and measure the result on held-out subjects."""
    torch.manual_seed(task.seed)
    config, base = task.config(), load_base(starter.PATH)
    encoded = _encoded(base, task, config)
    trainee = FullModel(base) if task.rank == 0 else add_adapter(base, config)
    if task.rank:
        cast_and_move(base, Precision.FP32, device="cpu")
    learner, batches, questions, sampler = _parts(base, encoded, config, trainee)
    started, cpu = time.perf_counter(), time.process_time()
    for step in range(task.steps):
        learner.learn([batches.next()], step=step)
        if step % STEPS_BETWEEN_RELEASES == 0:
            release_memory()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    peak = peak_memory_bytes("cpu")
    after = learner.held_out_loss(questions, {})
    samples = _generate_samples(sampler)
    if task.pictures:
        for place, picture in enumerate(samples):
            picture.save(Path(task.pictures) / f"{place:02}.png")
    references = [open_image(image) for image in encoded.held_out[:GENERATED]]
    return {
        "trained": trainee.size,
        "of": base_parameters(base),
        "file_bytes": len(save(_halves(trainee.named_parameters()))),
        "peak_bytes": peak,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "loss": after.mean,
        "distance": style_distance(samples, references),
    }


def _encoded(base: LoadedBase, task: TrainingTask, config: TrainConfig) -> EncodedDataset:
    """The latents of both folders; the held-out images are never trained on."""

    def one(folder: str) -> EncodedDataset:
        images = read_folder(Path(folder))
        return encode_dataset(fresh, images, config, cache=None, check_stop=lambda: None)

    fresh = load_base(starter.PATH)
    trained = one(task.trained)
    fresh = load_base(starter.PATH)
    held_out = one(task.held_out)
    return EncodedDataset(trained.images, trained.buckets, held_out.images, held_out.buckets)


def _parts(
    base: LoadedBase, encoded: EncodedDataset, config: TrainConfig, trainee: Lora
) -> tuple[Learner, Batches, ValidationSet, Sampler]:
    network, process = network_of(base.info.family), make_process(base, config, device="cpu")
    text = LiveCaptionEncoder(base, device="cpu")
    model = Model(network, base.denoiser, text, process, Precision.FP32, "cpu")
    learner = Learner(model, trainee, config)
    batches = Batches(encoded.buckets, encoded.images, config, process=process)
    questions = ValidationSet(
        encoded.held_out_buckets,
        encoded.held_out,
        process=process,
        batch_size=config.batch_size,
        seed=0,
    )
    prompts = [image.caption for image in encoded.held_out[:GENERATED]]
    sampler = Sampler(
        network=network,
        denoiser=base.denoiser,
        vae=base.vae,
        text=text,
        scaled=trainee.scaled,
        config=config.model_copy(update={"sample_prompts": prompts}),
        scheduler_config=schedule_of(config, base),
        prediction=prediction_of(config, base),
        resolution=resolution_of(config, base),
        device="cpu",
    )
    return learner, batches, questions, sampler


def _generate_samples(sampler: Sampler) -> list[Any]:
    return [sample.image for sample in sampler.generate(lambda: None)]


def _halves(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: value.detach().half().contiguous() for name, value in parameters.items()}


def main() -> None:
    """Read a task, train, print the result."""
    words = json.loads(sys.argv[1])
    torch.set_num_threads(words.pop("threads"))
    words["options"] = tuple(tuple(pair) for pair in words.get("options", ()))
    print(json.dumps(train_one(TrainingTask(**words))), flush=True)


if __name__ == "__main__":
    main()
