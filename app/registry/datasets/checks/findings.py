"""Findings of the checks of a dataset: one for each thing that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Severity(StrEnum):
    """The severity of a finding. Only an error stops a run."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


class Check(StrEnum):
    """The checks, in the order in which findings are shown."""

    FILES = "files"
    FEW_IMAGES = "few_images"
    NO_CAPTION = "no_caption"
    TRIGGER_WORD = "trigger_word"
    LONG = "long"
    REPEATED_WORDS = "repeated_words"
    STYLE_WORDS = "style_words"
    SAME_CAPTION = "same_caption"
    SUBJECT = "subject"
    ONE_SUBJECT = "one_subject"
    NEAR_DUPLICATES = "near_duplicates"
    SIZE = "size"
    SHARPNESS = "sharpness"
    SHAPE = "shape"
    TRANSPARENCY = "transparency"
    ONE_GROUND = "one_ground"
    COVERAGE = "coverage"

    @property
    def label(self) -> str:
        """The name of the check, in a word or two."""
        return _LABELS[self]


_LABELS = {
    Check.FILES: "Files",
    Check.FEW_IMAGES: "Number of images",
    Check.NO_CAPTION: "Captions",
    Check.TRIGGER_WORD: "Trigger word",
    Check.LONG: "Length",
    Check.REPEATED_WORDS: "Repeated words",
    Check.STYLE_WORDS: "Style words",
    Check.SAME_CAPTION: "Same caption",
    Check.SUBJECT: "Missing subject",
    Check.ONE_SUBJECT: "One subject",
    Check.NEAR_DUPLICATES: "Near-duplicates",
    Check.SIZE: "Size",
    Check.SHARPNESS: "Sharpness",
    Check.SHAPE: "Shape",
    Check.TRANSPARENCY: "Transparency",
    Check.ONE_GROUND: "Ground",
    Check.COVERAGE: "Coverage",
}
CAPTION_CHECKS = (
    Check.NO_CAPTION,
    Check.TRIGGER_WORD,
    Check.LONG,
    Check.REPEATED_WORDS,
    Check.STYLE_WORDS,
    Check.SAME_CAPTION,
    Check.SUBJECT,
    Check.ONE_SUBJECT,
)


@dataclass(frozen=True)
class CheckedCaption:
    """A caption that a run would train with, and the image it belongs to."""

    image_id: int
    text: str


@dataclass(frozen=True)
class Finding:
    """Something to look at before a training.

    `phrase`: the words that it is about. `fragments`: the words to remove from the
    captions, as they are written there, most common first. `piles`: images that belong together,
    the one to keep first.
    """

    check: Check
    level: Severity
    title: str
    reason: str
    image_ids: tuple[int, ...] = ()
    phrase: str = ""
    fragments: tuple[str, ...] = ()
    piles: tuple[tuple[int, ...], ...] = ()
    details: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of images that it concerns."""
        return len(self.image_ids)

    @property
    def not_kept(self) -> list[int]:
        """The images of near-duplicates that are not the first of their pile."""
        if self.check is not Check.NEAR_DUPLICATES:
            return []
        return [image_id for pile in self.piles for image_id in pile[1:]]


@dataclass(frozen=True)
class Report:
    """The findings of a dataset, what was checked without a finding, and what was not checked.

    `image_count`: the images that were checked; those set aside were not.
    `not_measured`: for each check that could not look at all images, “not measured for 12 images
    yet”.
    """

    image_count: int
    caption_count: int
    findings: tuple[Finding, ...]
    clear: tuple[Check, ...]
    not_measured: Mapping[Check, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def open(self) -> list[Finding]:
        """The findings that ask for a change; without mere advice."""
        return [found for found in self.findings if found.level is not Severity.ADVICE]

    @property
    def rest(self) -> list[str]:
        """Sentences with the checks that found nothing, and those that were not measured."""
        groups: dict[str, list[Check]] = {"nothing found": [*self.clear]} if self.clear else {}
        for check, why in self.not_measured.items():
            groups.setdefault(why, []).append(check)
        return [f"{_as_list(checks)}: {what}." for what, checks in groups.items()]


def _as_list(checks: Sequence[Check]) -> str:
    """“Size, shape, sharpness”."""
    words = ", ".join(check.label for check in checks)
    return words[:1] + words[1:].lower()
