"""The io jobs of captions and the models that write them, with their arguments and results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from app.registry.job_kinds.kinds import (
    DownloadModelArgs,
    JobArgs,
    JobKind,
    JobResult,
    StepProgress,
)
from worker.core.captioning.do_not_name import remove_words
from worker.core.captioning.interface import DEFAULT_PROMPT, CaptionAnswer
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind

ONLY_EXCLUDED_WORDS = "The answer had only words that are not to be named."


class CaptionArgs(JobArgs):
    """A question to a provider, for any number of images.

    `address` and `model` are those of a server, `model_id` is a local model. As a person asks it,
    empty texts stand for what is configured. The subject of the job is the dataset.
    """

    provider: ProviderKind
    address: str = ""
    model: str = ""
    model_id: int | None = None
    prompt: str = DEFAULT_PROMPT
    do_not_name: tuple[str, ...] = ()


class CaptionImagesArgs(CaptionArgs, kind=JobKind.CAPTION_IMAGES):
    """The images in the order they are captioned, and what is to become of their captions.

    `caption_kind`: which of their captions; None: the first one. `write`: captions of images
    without one are written at the end; else all stay proposals.
    """

    image_ids: tuple[int, ...]
    mode: CaptionMode = CaptionMode.FILL
    caption_kind: CaptionKind | None = None
    write: bool = False


class CaptionImagesResult(StepProgress):
    """The number of captions that were written at the end, and the step to undo; None if none."""

    written: int | None = None
    edit_id: int | None = None


class PreviewCaptionArgs(CaptionArgs, kind=JobKind.PREVIEW_CAPTION):
    """The image whose caption is shown and not kept."""

    image_id: int


class PreviewCaptionResult(JobResult):
    """The caption; "" if the model answered with none that can be used, for the reason in `note`.

    `guess`: what the provider was too unsure to name, with its `confidence` from 0 to 1, in whole
    percent. `removed`: what the list of words not to name took out of it.
    """

    caption: str = ""
    note: str = ""
    title: str = ""
    removed: tuple[str, ...] = ()
    guess: str = ""
    confidence: float | None = None

    @classmethod
    def of_answer(cls, title: str, answer: CaptionAnswer, do_not_name: Iterable[str]) -> Self:
        """The answer of the provider of this name, without the words that it must not name."""
        cleaned = remove_words(answer.text, do_not_name)
        note = answer.note or ("" if cleaned.text else ONLY_EXCLUDED_WORDS)
        result = cls(caption=cleaned.text, note=note, title=title, removed=cleaned.removed)
        guess = remove_words(answer.guess, do_not_name).text
        if not guess or answer.confidence is None:
            return result
        return result.model_copy(update={"guess": guess, "confidence": round(answer.confidence, 2)})


class DownloadCaptionModelArgs(DownloadModelArgs, kind=JobKind.DOWNLOAD_CAPTION_MODEL):
    """The repository on the Hub; the subject is the caption model."""


class CheckCaptionModelArgs(JobArgs, kind=JobKind.CHECK_CAPTION_MODEL):
    """No arguments: the subject is the caption model."""
