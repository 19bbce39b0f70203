"""What to give up, one step at a time, when a training does not fit in memory."""

from importlib.util import find_spec

from worker.training.config import Optimizer, TrainConfig

MAX_ACCUMULATION = 64


def step_down(config: TrainConfig) -> tuple[TrainConfig, str] | None:
    """A config that needs less memory, and the sentence that says how; None when none is left.

    In this order: activations computed twice instead of stored, half of the batch at twice the
    batches per step (the same pictures count in a step), optimizer states in 8 bit.
    """
    if not config.gradient_checkpointing:
        sentence = "“Save memory” was switched on: steps take about half as long again."
        return config.model_copy(update={"gradient_checkpointing": True}), sentence
    if config.batch_size > 1:
        return _halved(config)
    if config.optimizer is Optimizer.ADAMW and find_spec("bitsandbytes"):
        changed = config.model_copy(update={"optimizer": Optimizer.ADAMW_8BIT})
        return changed, "The optimizer keeps its states in 8 bit."
    return None


def _halved(config: TrainConfig) -> tuple[TrainConfig, str]:
    pictures = config.batch_size * config.gradient_accumulation
    batch = config.batch_size // 2
    batches = min(MAX_ACCUMULATION, -(-pictures // batch))
    changed = config.model_copy(update={"batch_size": batch, "gradient_accumulation": batches})
    return changed, f"The batch is {batch} now, with {batches} batches per step."
