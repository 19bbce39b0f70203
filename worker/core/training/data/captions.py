"""Caption augmentation: dropout and tag shuffling."""

from collections.abc import Sequence

import torch

from worker.core.training.config import TrainConfig


def augment_captions(
    captions: Sequence[str], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    """The augmented captions of a batch."""
    if config.shuffle_tags:
        captions = [shuffle_tags(caption, generator, kept=config.keep_tags) for caption in captions]
    dropouts = torch.rand(len(captions), generator=generator) < config.caption_dropout
    return tuple(
        "" if dropped else caption
        for caption, dropped in zip(captions, dropouts.tolist(), strict=True)
    )


def shuffle_tags(caption: str, generator: torch.Generator, *, kept: int) -> str:
    """The comma-separated tags in random order, the first `kept` ones unchanged."""
    tags = [tag.strip() for tag in caption.split(",")]
    order = torch.randperm(max(0, len(tags) - kept), generator=generator).tolist()
    return ", ".join([*tags[:kept], *(tags[kept + place] for place in order)])
