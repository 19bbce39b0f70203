"""Measures candidates on the same prompts and chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

from worker.core.evaluation.choice import Candidate, choose
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.measures import FEWEST_SUBJECTS, Adherence, MemoryScale, drift, variety
from worker.core.evaluation.report import CheckpointReport, WeightReport
from worker.core.evaluation.style import PatchScale, StyleScale
from worker.core.evaluation.subjects import FEWEST_IMAGES, MOST_CAPTIONS, spread
from worker.core.evaluation.weights import WeightMeasure, weight_card
from worker.core.eyes.interface import Eyes
from worker.core.lora_files.weights import weight_name


class Drawing(Protocol):
    """Draws with the base or a candidate, or has what was drawn."""

    def images(self, candidate: str | None, prompts: Sequence[str]) -> list[Image.Image]:
        """An image of each prompt; None: without an adapter. The seed of a prompt is its place."""

    def through_autoencoder(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images as the base can draw them, at its native size."""


@dataclass(frozen=True)
class Captioned:
    """An image of the dataset and its caption."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Question:
    """The prompts with the subject of each, and the images that the candidates learned from.

    `held_out` are images of the same style that they did not learn from; there may be none.
    `plain`: the first prompts without the trigger word; empty if there is no trigger word.
    """

    prompts: Sequence[str]
    subjects: Sequence[str]
    trained: Sequence[Captioned]
    held_out: Sequence[Captioned] = ()
    plain: Sequence[str] = ()

    @property
    def to_recall(self) -> tuple[list[Captioned], list[Captioned]]:
        """The trained and held-out images whose captions are drawn: some of those that have one."""
        trained, held_out = (
            spread([one for one in row if one.caption], MOST_CAPTIONS)
            for row in (self.trained, self.held_out)
        )
        return trained, held_out

    @property
    def renders(self) -> int:
        """The images to draw for each candidate."""
        return len(self.prompts) + len(self.plain) + sum(map(len, self.to_recall))


class References:
    """What all candidates are compared with: the base's images of the prompts, and the dataset."""

    def __init__(self, question: Question, *, drawing: Drawing, eyes: Eyes) -> None:
        """Raises EvaluationError, RenderError, and NotMeasured if the style is not."""
        if len(question.prompts) != len(question.subjects):
            raise EvaluationError("Each prompt needs its subject.")
        self.notes: list[str] = []
        self.base = drawing.images(None, question.prompts)
        images = [one.image for one in (*question.trained, *question.held_out)]
        self.dataset = drawing.through_autoencoder(images)
        self._eyes = eyes
        dataset = eyes.channel_statistics(self.dataset)
        self._scale = StyleScale(eyes.channel_statistics(self.base), dataset)
        self._plain: StyleScale | None = None
        self._base_of_plain = drawing.images(None, question.plain) if question.plain else []
        if question.plain:
            try:
                self._plain = StyleScale(eyes.channel_statistics(self._base_of_plain), dataset)
            except NotMeasured:
                self.notes.append(
                    "The style without the trigger word is not measured: on these few prompts, "
                    "base model and dataset cannot be told apart."
                )
        self._adherence: Adherence | None = None
        try:
            self._adherence = Adherence(eyes, question.subjects, self.base)
        except NotMeasured as error:
            self.notes.append(str(error))

    def measure(self, name: str, images: Sequence[Image.Image]) -> Candidate:
        """Style, adherence and variety of one image for each prompt."""
        style = self._scale.score(self._eyes.channel_statistics(images))
        adherence = None if self._adherence is None else self._adherence.of(images)
        return Candidate(name, style, adherence, variety=variety(images, self.base))

    def without_trigger(self, images: Sequence[Image.Image]) -> tuple[float | None, float | None]:
        """Style and drift of images of the prompts without the trigger word; None: not measured."""
        if len(images) < FEWEST_SUBJECTS:
            return None, None
        seen = self._eyes.channel_statistics(images)
        leak = None if self._plain is None else self._plain.mean_score(seen)
        return leak, drift(self._eyes, images, self._base_of_plain)

    def style_inside(self, images: Sequence[Image.Image]) -> float | None:
        """The style of renders of the dataset's captions; None if there are too few."""
        if len(images) < FEWEST_IMAGES:
            return None
        return self._scale.mean_score(self._eyes.channel_statistics(images))


def evaluate(
    question: Question, names: Sequence[str], *, drawing: Drawing, eyes: Eyes
) -> CheckpointReport:
    """The report on these candidates, which are in the order of training.

    Raises EvaluationError, NotMeasured if the style is not, and the errors of `drawing`.
    """
    if not names:
        raise EvaluationError("There is nothing to compare. Give at least one adapter.")
    references = References(question, drawing=drawing, eyes=eyes)
    trained, held_out = question.to_recall
    captions = [one.caption for one in (*trained, *held_out)]
    memory = MemoryScale(eyes, [one.image for one in trained], [one.image for one in held_out])
    candidates = []
    for name in names:
        found = references.measure(name, drawing.images(name, question.prompts))
        # one call, so that trained and held-out captions have seeds in one row
        drawn = drawing.images(name, captions)
        remembered = memory.of(drawn[: len(trained)], drawn[len(trained) :])
        plain = drawing.images(name, question.plain) if question.plain else []
        leak, moved = references.without_trigger(plain)
        inside = references.style_inside(drawn[: len(trained)])
        candidates.append(replace(found, memory=remembered, leak=leak, drift=moved, inside=inside))
    notes = list(references.notes)
    if remembered.ratio is None:
        notes.append(
            "Copying is not measured: no images, or fewer than 4, were held out of the training."
        )
    return CheckpointReport(candidates, notes, choose(candidates))


def evaluate_weights(
    question: Question, weights: Sequence[float], *, drawing: Drawing, eyes: Eyes
) -> WeightReport:
    """The report on one adapter at these weights, in rising order. Raises as `evaluate`.

    Where no weight shows the style, it has a note in place of the card.

    `drawing` knows each weight as `weight_name` calls it.
    """
    references = References(question, drawing=drawing, eyes=eyes)
    patches = PatchScale(references.base, references.dataset)
    measures = []
    for weight in weights:
        images = drawing.images(weight_name(weight), question.prompts)
        found = references.measure(weight_name(weight), images)
        score = patches.score(images)
        measures.append(WeightMeasure(**vars(found), weight=weight, patches=score))
    card, notes = None, list(references.notes)
    try:
        card = weight_card(measures)
    except NotMeasured as error:
        notes.append(str(error))
    return WeightReport(measures, notes, card)
