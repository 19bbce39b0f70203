"""Measures candidates on the same prompts and chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from worker.core.evaluation.choice import Candidate, Choice, choose
from worker.core.evaluation.drawing import AdapterFile, Drawing
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.measures import Adherence, Memory, MemoryScale, variety
from worker.core.evaluation.style import StyleScale
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


@dataclass(frozen=True)
class Report:
    """The candidates with their measures; `notes`: what was not measured, and why."""

    candidates: Sequence[Candidate]
    varieties: Sequence[float]
    choice: Choice
    notes: Sequence[str]


def evaluate(
    question: Question, files: Sequence[AdapterFile], *, drawing: Drawing, eyes: Eyes
) -> Report:
    """The report on these files, which are in the order of training or of weight.

    Raises EvaluationError, AdapterError, RenderError, and NotMeasured if the style is not.
    """
    if not files:
        raise EvaluationError("There is nothing to compare. Give at least one adapter.")
    if len(question.prompts) != len(question.subjects):
        raise EvaluationError("Each prompt needs its subject.")
    notes: list[str] = []
    style_images = [one.image for one in (*question.trained, *question.held_out)]
    base = drawing.images(None, question.prompts)
    scale = StyleScale(
        eyes.channel_statistics(base),
        eyes.channel_statistics(drawing.through_autoencoder(style_images)),
    )
    adherence = None
    try:
        adherence = Adherence(eyes, question.subjects, base)
    except NotMeasured as error:
        notes.append(str(error))
    trained = _spread(question.trained, MOST_CAPTIONS)
    memory = MemoryScale(
        eyes, [one.image for one in trained], [one.image for one in question.held_out]
    )
    candidates, varieties = [], []
    for file in files:
        images = drawing.images(file, question.prompts)
        candidates.append(
            Candidate(
                file.name,
                scale.score(eyes.channel_statistics(images)),
                None if adherence is None else adherence.of(images),
                _memory_of(file, memory, trained, question.held_out, drawing),
            )
        )
        varieties.append(variety(images, base))
    if candidates[0].memory is not None and candidates[0].memory.ratio is None:
        notes.append(
            "Copying is not measured: no images, or fewer than 4, were held out of the training."
        )
    return Report(candidates, varieties, choose(candidates), notes)


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
