"""What to give up, one step at a time, when a training does not fit in memory."""

import json
from importlib.util import find_spec
from pathlib import Path

from worker.core.training.atomic_write import write_atomically
from worker.core.training.config import Optimizer, TrainConfig

MAX_ACCUMULATION = 64
KEPT = "less-memory.json"


def step_down(config: TrainConfig) -> tuple[TrainConfig, str] | None:
    """A config that needs less memory, and the sentence that says how; None when none is left.

    In this order: activations computed twice instead of stored, half of the batch at twice the
    batches per step (the same pictures count in a step), optimizer states in 8 bit.
    """
    if not config.gradient_checkpointing:
        sentence = "“Gradient checkpointing” was turned on: steps take about half as long again."
        return config.model_copy(update={"gradient_checkpointing": True}), sentence
    if config.batch_size > 1:
        return _halved(config)
    if config.optimizer is Optimizer.ADAMW and find_spec("bitsandbytes"):
        changed = config.model_copy(update={"optimizer": Optimizer.ADAMW_8BIT})
        return changed, "The optimizer keeps its states in 8 bit."
    return None


def remember(out: Path, *, asked: TrainConfig, used: TrainConfig) -> None:
    """Keep in a training's folder that it was asked for one config and came to fit with another."""
    content = json.dumps({"asked": _plain(asked), "used": _plain(used)}, indent=1)
    write_atomically(out / KEPT, content.encode())


def remembered(out: Path, asked: TrainConfig) -> TrainConfig:
    """The config that an earlier start of the same training in this folder came to fit with.

    It is `asked` itself when there was none, or nothing that can be read.
    """
    try:
        kept = json.loads((out / KEPT).read_text(encoding="utf-8"))
        if kept["asked"] == _plain(asked):
            return TrainConfig.model_validate(kept["used"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return asked


def _plain(config: TrainConfig) -> dict[str, object]:
    return config.model_dump(mode="json")


def _halved(config: TrainConfig) -> tuple[TrainConfig, str]:
    pictures = config.batch_size * config.gradient_accumulation
    batch = config.batch_size // 2
    batches = min(MAX_ACCUMULATION, -(-pictures // batch))
    changed = config.model_copy(update={"batch_size": batch, "gradient_accumulation": batches})
    return changed, f"The batch is {batch} now, with {batches} batches per step."
