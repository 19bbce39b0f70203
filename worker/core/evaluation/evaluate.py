"""Measures candidates on the same prompts and chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from worker.core.evaluation.choice import Candidate, choose
from worker.core.evaluation.drawing import AdapterFile, Drawing
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.measures import Adherence, Memory, MemoryScale, variety
from worker.core.evaluation.patches import PatchScale
from worker.core.evaluation.report import Report, WeightReport
from worker.core.evaluation.style import StyleScale
from worker.core.evaluation.weights import WeightMeasure, weight_card
from worker.core.eyes.interface import Eyes

MOST_CAPTIONS = 24
"""Captions of trained images that are rendered for each candidate, to find copies."""


@dataclass(frozen=True)
class Captioned:
    """An image of the dataset and its caption."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Question:
    """The prompts with the subject of each, and the images that the candidates learned from.

    `held_out` are images of the same style that they did not learn from; there may be none.
    """

    prompts: Sequence[str]
    subjects: Sequence[str]
    trained: Sequence[Captioned]
    held_out: Sequence[Captioned] = ()

    @property
    def renders(self) -> int:
        """The images to draw for each candidate."""
        return len(self.prompts) + min(MOST_CAPTIONS, len(self.trained)) + len(self.held_out)


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
        self._scale = StyleScale(
            eyes.channel_statistics(self.base), eyes.channel_statistics(self.dataset)
        )
        self._adherence: Adherence | None = None
        try:
            self._adherence = Adherence(eyes, question.subjects, self.base)
        except NotMeasured as error:
            self.notes.append(str(error))

    def measure(self, name: str, images: Sequence[Image.Image]) -> Candidate:
        """Style and adherence of one image for each prompt."""
        style = self._scale.score(self._eyes.channel_statistics(images))
        adherence = None if self._adherence is None else self._adherence.of(images)
        return Candidate(name, style, adherence)


def evaluate(
    question: Question, files: Sequence[AdapterFile], *, drawing: Drawing, eyes: Eyes
) -> Report:
    """The report on these files, which are in the order of training.

    Raises EvaluationError, AdapterError, RenderError, and NotMeasured if the style is not.
    """
    if not files:
        raise EvaluationError("There is nothing to compare. Give at least one adapter.")
    references = References(question, drawing=drawing, eyes=eyes)
    trained = _spread(question.trained, MOST_CAPTIONS)
    memory = MemoryScale(
        eyes, [one.image for one in trained], [one.image for one in question.held_out]
    )
    candidates, varieties = [], []
    for file in files:
        images = drawing.images(file, question.prompts)
        found = references.measure(file.name, images)
        remembered = _memory_of(file, memory, trained, question.held_out, drawing)
        candidates.append(replace(found, memory=remembered))
        varieties.append(variety(images, references.base))
    notes = list(references.notes)
    if remembered.ratio is None:
        notes.append(
            "Copying is not measured: no images, or fewer than 4, were held out of the training."
        )
    return Report(candidates, varieties, choose(candidates), notes)


def evaluate_weights(
    question: Question, files: Sequence[AdapterFile], *, drawing: Drawing, eyes: Eyes
) -> WeightReport:
    """The report on one adapter at several weights, in rising order. Raises as `evaluate`."""
    references = References(question, drawing=drawing, eyes=eyes)
    patches = PatchScale(references.base, references.dataset)
    measures, styles = [], []
    for file in files:
        images = drawing.images(file, question.prompts)
        found = references.measure(file.name, images)
        score = patches.score(images)
        measures.append(WeightMeasure(file.weight, score, found.mean_adherence))
        styles.append(found.style)
    return WeightReport(measures, styles, weight_card(measures), references.notes)


def _memory_of(
    file: AdapterFile,
    scale: MemoryScale,
    trained: Sequence[Captioned],
    held_out: Sequence[Captioned],
    drawing: Drawing,
) -> Memory:
    """One call of `images`, so that trained and held-out captions have seeds in one row."""
    drawn = drawing.images(file, [one.caption for one in (*trained, *held_out)])
    return scale.of(drawn[: len(trained)], drawn[len(trained) :])


def _spread(images: Sequence[Captioned], most: int) -> list[Captioned]:
    """At most so many, evenly over the whole list."""
    if len(images) <= most:
        return list(images)
    return [images[place * len(images) // most] for place in range(most)]
