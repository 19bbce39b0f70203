"""The captions of a batch: one of each image's, with dropout and tag shuffling."""

from collections.abc import Sequence

import torch

from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TAGS, TrainingImage, WeightedCaption


def draw_captions(
    images: Sequence[TrainingImage], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    """A caption of each of these images, by share, augmented.

    A batch in which every image has one caption takes no random numbers for the choice, so that
    data sets without several captions train as they always did.
    """
    chosen = [WeightedCaption(image.caption, kind=TAGS) for image in images]
    if any(image.captions for image in images):
        places = torch.rand(len(images), generator=generator).tolist()
        chosen = [
            _caption_at(place, image.captions) if image.captions else only
            for place, image, only in zip(places, images, chosen, strict=True)
        ]
    return _augment_captions(chosen, generator, config)


def _caption_at(place: float, captions: Sequence[WeightedCaption]) -> WeightedCaption:
    """The caption at a place from 0 to 1, where the captions lie in a row, as long as their share.

    With several captions, only those of the kind `TAGS` are lists of tags.
    """
    left = place * sum(caption.share for caption in captions)
    for caption in captions:
        left -= caption.share
        if left < 0:
            return caption
    return captions[-1]


def _augment_captions(
    chosen: Sequence[WeightedCaption], generator: torch.Generator, config: TrainConfig
) -> tuple[str, ...]:
    captions = [caption.text for caption in chosen]
    if config.shuffle_tags:
        captions = [
            shuffle_tags(caption.text, generator, kept=config.keep_tags)
            if caption.kind == TAGS
            else caption.text
            for caption in chosen
        ]
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
