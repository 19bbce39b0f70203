"""The training set: every drawing on plain colors and in drawn looks, with captions."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tools.starter.artwork import (
    BACKGROUNDS,
    DARK_GROUNDS,
    ArtworkSet,
    ArtworkSubject,
    render_drawing,
)
from tools.starter.captions import Look, write_caption
from tools.starter.looks import draw_in_look

MARGIN = 1 / 16
"""Of a drawing, as a share of the image. No flips, shifts or other sizes: with little time to
train, more variety costs sharpness."""

COLORED = tuple(name for name in BACKGROUNDS if name != "white")
DARK = ("black", "red", "green", "teal", "blue", "purple")

WEIGHTS = {
    Look.PLAIN: 0.7,
    Look.LINES: 0.7,
    Look.TWO_TONE: 0.5,
    Look.OUTLINED: 0.5,
    Look.SILHOUETTE: 0.5,
    Look.LIGHT_OUTLINES: 0.9,
}
WHITE_WEIGHT = 2.2
"""Of a drawing on white, against 0.7 on a color: most prompts name no color."""

OBJECT_WEIGHT = 1.5
"""Objects are drawn in less uniform ways than animals or food, so they are shown more often."""

DEFAULT_SET_WEIGHT = 1.3


@dataclass(frozen=True)
class DrawnImage:
    """One image of the training set, by what it shows."""

    subject: int
    """Index into the subjects."""
    hand: ArtworkSet
    ground: str
    look: Look


class DefaultSets:
    """The set that a subject's bare name means, by the subject's index; at first none is chosen."""

    def __init__(self) -> None:
        self._chosen: dict[int, ArtworkSet] = {}

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def get(self, subject: int) -> ArtworkSet | None:
        """The default set of a subject, or None before the choice."""
        return self._chosen.get(subject)

    def choose(self, errors: Mapping[tuple[int, ArtworkSet], float]) -> None:
        """Take the set of the lowest error for each subject."""
        for subject, hand in sorted(errors, key=lambda key: -errors[key]):
            self._chosen[subject] = hand

    def state_dict(self) -> dict[str, dict[int, str]]:
        """The choice, for a checkpoint."""
        return {"chosen": {subject: hand.value for subject, hand in self._chosen.items()}}

    def load_state_dict(self, state: dict[str, dict[int, str]]) -> None:
        """Take over the choice of an interrupted stage."""
        self._chosen = {subject: ArtworkSet(hand) for subject, hand in state["chosen"].items()}


@dataclass(frozen=True)
class TrainingSet:
    """The images that all stages learn from, and what they show."""

    subjects: Sequence[ArtworkSubject]
    images: list[DrawnImage]
    size: int
    """Side of an image in pixels."""
    default_sets: DefaultSets = field(default_factory=DefaultSets)

    def render(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Every image as (index, (height, width, 3)); each drawing is rendered once."""
        key, drawing = None, None
        for index, shown in enumerate(self.images):
            if key != (shown.subject, shown.hand):
                key = (shown.subject, shown.hand)
                svg = self.subjects[shown.subject].drawings[shown.hand]
                drawing = render_drawing(svg, 2 * self.size, margin=MARGIN)
            assert drawing is not None
            image = draw_in_look(drawing, shown.look, shown.ground)
            small = image.resize((self.size, self.size), Image.Resampling.BOX)
            yield index, np.asarray(small)

    def caption(self, index: int, rng: random.Random) -> str:
        """One of the captions of an image."""
        shown = self.images[index]
        subject = self.subjects[shown.subject]
        is_default = self.default_sets.get(shown.subject) is shown.hand
        return write_caption(
            subject, shown.hand, shown.ground, shown.look, is_default=is_default, rng=rng
        )

    def canonical_caption(self, index: int) -> str:
        """The shortest caption that says everything about a plain image."""
        shown = self.images[index]
        words = f"{self.subjects[shown.subject].name}, {shown.hand.value} style"
        return words if shown.ground == "white" else f"{words} on a {shown.ground} background"

    def weights(self) -> Tensor:
        """The weight of each image in random draws, (n,)."""
        return torch.tensor([self._weight(shown) for shown in self.images])

    def _weight(self, shown: DrawnImage) -> float:
        weight = WEIGHTS[shown.look]
        if shown.look is Look.PLAIN and shown.ground == "white":
            weight = WHITE_WEIGHT
        if self.subjects[shown.subject].group == "objects":
            weight *= OBJECT_WEIGHT
        is_default = self.default_sets.get(shown.subject) is shown.hand
        return weight * (DEFAULT_SET_WEIGHT if is_default else 1)


def choose_images(subjects: Sequence[ArtworkSubject], *, size: int, seed: int = 0) -> TrainingSet:
    """Each drawing on white, on two colors, as lines, in one more look, and with light outlines."""
    rng, dark = random.Random(seed), random.Random(f"dark grounds {seed}")
    images = []
    for index, subject in enumerate(subjects):
        for hand in subject.drawings:
            shown = [("white", Look.PLAIN)]
            shown += [(color, Look.PLAIN) for color in rng.sample(COLORED, 2)]
            shown.append(("white" if rng.random() < 0.6 else rng.choice(DARK), Look.LINES))
            shown.append(_one_more(rng))
            shown.append((dark.choice(tuple(DARK_GROUNDS)), Look.LIGHT_OUTLINES))
            images += [DrawnImage(index, hand, ground, look) for ground, look in shown]
    return TrainingSet(subjects, images, size)


def _one_more(rng: random.Random) -> tuple[str, Look]:
    """A ground and one of the looks that are not lines."""
    looks = (Look.TWO_TONE, Look.TWO_TONE, Look.OUTLINED, Look.OUTLINED, Look.SILHOUETTE)
    look = rng.choice(looks)
    if rng.random() < 0.7:
        return "white", look
    return ("black" if look is Look.TWO_TONE else rng.choice(COLORED)), look
