"""What a run takes, before it starts: time by measurements, GPU and disk by computation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import lcm

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.base_models.speeds import trained_layers
from app.registry.datasets.several_captions import read_texts
from app.registry.job_kinds.states import Queue
from app.registry.jobs.presence import present_workers
from app.registry.tables.added_models import BaseModel
from app.registry.wording import size_text
from worker.core.families.family import find_family
from worker.core.training.config import AdapterKind, BaseWeights, Precision, TrainConfig

SAMPLE_STEP_COST = 0.5  # one denoising step of one sample, as a fraction of a training step
START_UP_SECONDS = 3.0


@dataclass(frozen=True)
class TrainingNeeds:
    """The bytes that a run takes, for batch size 1 with gradient checkpointing.

    `asked`: the frozen weights of its config; `plain` those that are no int8 rows, in words, whose
    need is `bf16` also where they are fp32. `has_worker`: the device of a worker is known;
    `gpu`: the least memory of their GPUs, None without one. `captions`: encoded, on disk.
    """

    bf16: int
    int8: int
    asked: BaseWeights
    plain: str
    has_worker: bool
    gpu: int | None
    captions: int

    @property
    def weights(self) -> BaseWeights:
        """The frozen weights, as the worker chooses them; AUTO if it is not known which."""
        if self.asked is not BaseWeights.AUTO or not self.gpu:
            return self.asked
        return BaseWeights.BF16 if self.bf16 <= self.gpu else BaseWeights.INT8

    @property
    def chosen(self) -> str:
        """The frozen weights in words."""
        if self.weights is BaseWeights.INT8:
            return "int8 rows"
        if self.has_worker and not self.gpu:
            return "bf16 or fp32, as is faster"
        is_known = self.weights is BaseWeights.BF16
        return self.plain if is_known else f"{self.plain}, or int8 rows where that does not fit"

    @property
    def memory(self) -> str:
        """The memory of the GPU in words; "" where a CPU trains."""
        if self.has_worker and not self.gpu:
            return ""
        taken = {BaseWeights.BF16: [self.bf16], BaseWeights.INT8: [self.int8]}
        sizes = taken.get(self.weights, [self.bf16, self.int8])
        of = f" of {size_text(self.gpu)}" if self.gpu else ""
        return " or ".join(map(size_text, sizes)) + of

    @property
    def problem(self) -> str:
        """Why the run does not fit the GPU, and what to do; "" if it fits or nothing is known."""
        taken = self.int8 if self.weights is BaseWeights.INT8 else self.bf16
        if not self.gpu or taken <= self.gpu:
            return ""
        there = f"the worker's GPU has {size_text(self.gpu)}."
        if self.int8 <= self.gpu:
            return (
                f"Frozen weights in {self.plain} take {size_text(self.bf16)}, but {there} Choose "
                f"int8 rows, which take {size_text(self.int8)}."
            )
        return (
            f"This training takes {size_text(self.int8)} even with int8 rows, but {there} Choose a "
            "lower resolution, or train on a larger GPU."
        )


def training_needs(
    session: Session, base: BaseModel | None, config: TrainConfig, dataset_ids: Collection[int]
) -> TrainingNeeds | None:
    """The needs of a run on a base model of a family with known needs; else None."""
    family = find_family(base.family) if base else None
    facts = family.facts.memory if family else None
    if base is None or family is None or facts is None or not base.parameters:
        return None
    side = config.resolution or base.resolution or family.facts.native_side
    workers = present_workers(session, queue=Queue.TRAIN)
    texts = [text for key in dataset_ids for _, text in read_texts(session, key)]
    is_fp32 = config.precision is Precision.FP32
    return TrainingNeeds(
        bf16=facts.training_bytes(base.parameters, side, fp32=is_fp32),
        int8=facts.training_bytes(base.parameters, side, fp32=is_fp32, int8=True),
        asked=config.base_weights,
        plain="fp32" if is_fp32 else "bf16",
        has_worker=any(worker.device for worker in workers),
        gpu=min((one.memory_bytes for one in workers if one.memory_bytes), default=None),
        captions=family.facts.stored_text_bytes(texts),
    )


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run on this machine, from measurements; None if there are none."""

    seconds: float | None = None
    trainable_parameters: int | None = None
    adapter_bytes: int | None = None


def estimate(session: Session, base: BaseModel | None, config: TrainConfig) -> Estimate:
    """Time, parameters and file size of a run with this config, from the nearest measurement.

    The number of trained parameters requires a measurement of the same layers; the file size of a
    LoHa or LoKr also one of the same rank.
    """
    if base is None:
        return Estimate()
    resolution = config.resolution or base.resolution or 512
    speed = base_models.nearest_speed(session, base, config, resolution=resolution)
    if speed is None:
        return Estimate()
    batch = speed.seconds_per_step * config.batch_size / speed.batch_size
    sample_steps = count_sample_rows(config) * len(config.sample_prompts) * config.sample_steps
    sampling = sample_steps * SAMPLE_STEP_COST * batch / config.batch_size
    share = config.rank / speed.rank
    knows_layers = speed.layers == trained_layers(config)
    knows_file = knows_layers and (config.kind is AdapterKind.LORA or share == 1)
    return Estimate(
        seconds=START_UP_SECONDS + config.steps * batch * config.step_cost + sampling,
        trainable_parameters=round(speed.trainable_parameters * share) if knows_layers else None,
        adapter_bytes=round(speed.adapter_bytes * share) if knows_file else None,
    )


def count_sample_rows(config: TrainConfig) -> int:
    """Number of rows of samples: of the base, of every checkpoint, and those between."""
    every, saves = config.sample_every, config.checkpoint_every
    before = config.steps - 1  # the last step has a row anyway
    rows = sum(before // number for number in (every, saves) if number)
    return 2 + rows - (before // lcm(every, saves) if every and saves else 0)
