"""The identity of a training: what a checkpoint must have in common with what continues from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.core.bases.load import LoadedBase
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage, dataset_fingerprint

NOT_IN_IDENTITY = frozenset(
    {"checkpoint_every", "keep_checkpoints", "keep_adapters", "evaluate", "patience"}
)
SAME_BATCHES = (
    "pictures",
    "batch_size",
    "validation_share",
    "seed",
    "aspect_buckets",
    "resolution",
)
SAME_MEASURE = (
    *SAME_BATCHES,
    "base_model",
    "clip_skip",
    "masked_loss",
    "prediction_type",
    "unmasked_weight",
    "zero_terminal_snr",
)


def training_identity(
    config: TrainConfig, images: Sequence[TrainingImage], base: LoadedBase
) -> dict[str, Any]:
    """The identity of a training: everything that influences its numbers."""
    fields = config.model_dump(mode="json", exclude=set(NOT_IN_IDENTITY))
    settings = {name: value for name, value in fields.items() if not name.startswith("sample_")}
    fingerprint = dataset_fingerprint(images)
    return settings | {"pictures": fingerprint, "base_model": base.info.fingerprint}


def have_equal(names: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True when these values are the same in both identities."""
    return all(one.get(name) == other.get(name) for name in names)
