"""What is done to a caption before it is shown: left out, or its tags shuffled."""

from collections.abc import Sequence

import torch

from worker.core.training.config import TrainConfig


def vary(
    captions: Sequence[str], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    """The captions of a batch as this step shows them."""
    if config.shuffle_tags:
        captions = [shuffled(caption, generator, kept=config.keep_tags) for caption in captions]
    silent = torch.rand(len(captions), generator=generator) < config.caption_dropout
    return tuple(
        "" if dropped else caption
        for caption, dropped in zip(captions, silent.tolist(), strict=True)
    )


def shuffled(caption: str, generator: torch.Generator, *, kept: int) -> str:
    """The parts between commas in a random order, the first `kept` ones where they were."""
    tags = [tag.strip() for tag in caption.split(",")]
    order = torch.randperm(max(0, len(tags) - kept), generator=generator).tolist()
    return ", ".join([*tags[:kept], *(tags[kept + place] for place in order)])
