"""Checks a dataset before training, and keeps the result until the dataset changes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session

from app.registry.datasets.checks.caption_lint import (
    MIN_CAPTIONS,
    ReadCaption,
    lint_captions,
    read_captions,
)
from app.registry.datasets.checks.coverage import coverage
from app.registry.datasets.checks.findings import (
    CAPTION_CHECKS,
    Check,
    Finding,
    Report,
    Severity,
)
from app.registry.datasets.checks.pixel_checks import MIN_IMAGES, check_pixels, not_measured
from app.registry.datasets.checks.reading import CheckedImage, read_images, read_state
from app.registry.datasets.listing.kept import KeptResults
from app.registry.datasets.training_side import (
    CaptionTokens,
    TrainingSide,
    tokens_for,
    training_side,
)
from app.registry.tables.datasets import Dataset
from app.registry.wording import plural

CHECKS_OF_MANY_CAPTIONS = (Check.REPEATED_WORDS, Check.ONE_SUBJECT, Check.ONE_GROUND)


def check_dataset(session: Session, dataset: Dataset, side: TrainingSide | None = None) -> Report:
    """The findings of a dataset, from the last check if nothing has changed since.

    A check of 5,000 images takes up to a second, a look at an earlier one some milliseconds.
    `side`: the size and base model to check for; None: those that it is usually trained with.
    """
    key = (dataset.key, side or training_side(session, dataset.key))
    return _reports.find(session, key, read_state(session, dataset))


def known_report(
    session: Session, dataset: Dataset, side: TrainingSide | None = None
) -> Report | None:
    """The findings, if the dataset was checked since it was changed; takes some milliseconds."""
    key = (dataset.key, side or training_side(session, dataset.key))
    return _reports.known(session, key, read_state(session, dataset))


def _check(session: Session, key: tuple[int, TrainingSide]) -> Report:
    dataset, side = session.get_one(Dataset, key[0]), key[1]
    return make_report(read_images(session, dataset), trigger_word=dataset.trigger_word, side=side)


_reports = KeptResults(_check)


def make_report(
    images: Sequence[CheckedImage],
    *,
    trigger_word: str | None,
    side: TrainingSide,
) -> Report:
    """Carry out all checks of these images, which are trained at this side."""
    texts = ((image.id, text) for image in images for text in image.captions)
    captions = read_captions(texts, trigger_word)
    found = [
        *_unusable(images),
        *_few(images),
        *_no_caption(images),
        *_too_long(captions, tokens_for(side)),
        *lint_captions(captions, trigger_word=trigger_word),
        *check_pixels(images, side),
    ]
    is_of_one = any(one.check is Check.ONE_SUBJECT for one in found)
    if (advice := coverage(captions, images, one_subject=is_of_one)) is not None:
        found.append(advice)
    order = list(Check)
    findings = tuple(sorted(found, key=lambda one: order.index(one.check)))
    unmeasured = not_measured(images)
    skipped = {one.check for one in findings} | set(unmeasured) | {Check.COVERAGE}
    if not trigger_word:
        skipped.add(Check.TRIGGER_WORD)
    if len(captions) < MIN_CAPTIONS:
        skipped |= {*CHECKS_OF_MANY_CAPTIONS}
    if not captions:
        skipped |= {*CAPTION_CHECKS}
    clear = tuple(one for one in order if one not in skipped) if images else ()
    return Report(len(images), len(captions), findings, clear, unmeasured)


def _unusable(images: Sequence[CheckedImage]) -> list[Finding]:
    ids = tuple(image.id for image in images if image.is_unusable)
    if not ids:
        return []
    title = f"{plural(len(ids), 'image')} cannot be read"
    reason = (
        "The stored files are missing or damaged, so a run would fail. Upload the images again, or "
        "set them aside."
    )
    return [Finding(Check.FILES, Severity.ERROR, title, reason, image_ids=ids)]


def _few(images: Sequence[CheckedImage]) -> list[Finding]:
    if not 0 < len(images) < MIN_IMAGES:
        return []
    title = f"Only {plural(len(images), 'image')} to train on"
    reason = "A style is what many images share. Of so few, the subjects are learned too."
    ids = tuple(image.id for image in images)
    return [Finding(Check.FEW_IMAGES, Severity.WARNING, title, reason, image_ids=ids)]


def _no_caption(images: Sequence[CheckedImage]) -> list[Finding]:
    ids = tuple(image.id for image in images if not image.captions)
    if not ids:
        return []
    verb = "has" if len(ids) == 1 else "have"
    title = f"{plural(len(ids), 'image')} {verb} no caption"
    reason = "An image without a caption trains the style without words, so prompts reach it less."
    return [Finding(Check.NO_CAPTION, Severity.WARNING, title, reason, image_ids=ids)]


def _too_long(captions: Sequence[ReadCaption], tokens: CaptionTokens) -> list[Finding]:
    ids = [one.image_id for one in captions if tokens.is_too_long(one.text)]
    if not ids:
        return []
    verb = "has" if len(ids) == 1 else "have"
    title = f"{plural(len(ids), 'caption')} {verb} more than {tokens.limit} tokens"
    reader = f"“{tokens.base}”" if tokens.base else "The text encoder of Stable Diffusion"
    reason = (
        f"{reader} reads {tokens.limit} tokens and cuts the rest off, so the last words are not "
        "learned. Shorten them."
    )
    return [
        Finding(Check.LONG, Severity.WARNING, title, reason, image_ids=tuple(dict.fromkeys(ids)))
    ]
