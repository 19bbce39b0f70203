"""Reduces a config step by step when a training does not fit in memory."""

import json
from importlib.util import find_spec
from pathlib import Path

from worker.core.atomic_write import write_atomically
from worker.core.families.family import BaseFamily
from worker.core.training.config import BaseWeights, Optimizer, TrainConfig

MAX_ACCUMULATION = 64
FALLBACK_FILE = "less-memory.json"


def reduce_memory_use(config: TrainConfig, family: BaseFamily) -> tuple[TrainConfig, str] | None:
    """A config that needs less memory, with a sentence about the change; None when there is none.

    In this order: gradient checkpointing, half the batch size with twice the gradient accumulation
    (a step uses the same number of images), int8 rows if the family has them, 8-bit optimizer
    states.
    """
    if not config.gradient_checkpointing:
        sentence = "“Gradient checkpointing” was turned on: steps take about 50 % longer."
        return config.model_copy(update={"gradient_checkpointing": True}), sentence
    if config.batch_size > 1:
        return _halve_batch(config)
    if family.facts.memory and config.base_weights is not BaseWeights.INT8:
        changed = config.model_copy(update={"base_weights": BaseWeights.INT8})
        return changed, "The frozen weights are now int8 rows, which are rounded a little."
    if config.optimizer is Optimizer.ADAMW and find_spec("bitsandbytes"):
        changed = config.model_copy(update={"optimizer": Optimizer.ADAMW_8BIT})
        return changed, "The optimizer now uses 8-bit states."
    return None


def save_fallback(out: Path, *, requested: TrainConfig, used: TrainConfig) -> None:
    """Save in the training's folder which config was requested and which one fitted."""
    content = json.dumps({"asked": _as_json(requested), "used": _as_json(used)}, indent=1)
    write_atomically(out / FALLBACK_FILE, content.encode())


def load_fallback(out: Path, requested: TrainConfig) -> TrainConfig:
    """The config that fitted at an earlier start of the same training in this folder.

    It is `requested` itself when there was none, or none that can be read.
    """
    try:
        kept = json.loads((out / FALLBACK_FILE).read_text(encoding="utf-8"))
        if TrainConfig.model_validate(kept["asked"]) == requested:
            return TrainConfig.model_validate(kept["used"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return requested


def _as_json(config: TrainConfig) -> dict[str, object]:
    return config.model_dump(mode="json")


def _halve_batch(config: TrainConfig) -> tuple[TrainConfig, str]:
    images_per_step = config.batch_size * config.gradient_accumulation
    batch = config.batch_size // 2
    batches = min(MAX_ACCUMULATION, -(-images_per_step // batch))
    changed = config.model_copy(update={"batch_size": batch, "gradient_accumulation": batches})
    return changed, f"The batch size is now {batch}, with {batches} gradient accumulation steps."
