"""Findings of the checks of a dataset: one for each thing that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field, computed_field

from app.registry.api_records import api_record
from worker.core.words import Labeled


class Severity(StrEnum):
    """The severity of a finding. Only an error stops a run."""

    ERROR = "error"
    WARNING = "warning"
    ADVICE = "advice"


class Check(Labeled):
    """The checks, in the order in which findings are shown."""

    FILES = "files", "Files"
    FEW_IMAGES = "few_images", "Number of images"
    NO_CAPTION = "no_caption", "Captions"
    TRIGGER_WORD = "trigger_word", "Trigger word"
    LONG = "long", "Length"
    REPEATED_WORDS = "repeated_words", "Repeated words"
    STYLE_WORDS = "style_words", "Style words"
    SAME_CAPTION = "same_caption", "Same caption"
    SUBJECT = "subject", "Missing subject"
    ONE_SUBJECT = "one_subject", "One subject"
    NEAR_DUPLICATES = "near_duplicates", "Near-duplicates"
    SIZE = "size", "Size"
    SHARPNESS = "sharpness", "Sharpness"
    SHAPE = "shape", "Shape"
    TRANSPARENCY = "transparency", "Transparency"
    ONE_GROUND = "one_ground", "Ground"
    COVERAGE = "coverage", "Coverage"


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


@api_record
class Finding:
    """Something to look at before a training."""

    check: Check = Field(description="What was checked.")
    level: Severity = Field(
        description="`error`: cannot train. `warning`: likely makes the result worse. `advice`: "
        "right for some styles."
    )
    title: str = Field(description="What was found, with its count.")
    reason: str = Field(description="Why it matters and what to do, as a sentence or two.")
    image_ids: tuple[int, ...] = Field(default=(), description="Ids of these images.")
    phrase: str = ""
    """The words that it is about; empty for most checks."""
    fragments: tuple[str, ...] = ()
    """Words to remove from captions as they are written there, most common first."""
    piles: tuple[tuple[int, ...], ...] = ()
    """Ids of images that belong together, the one to keep first."""
    details: tuple[str, ...] = Field(default=(), description="Further sentences.")

    @computed_field  # type: ignore[prop-decorator]
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


@api_record
class Report:
    """The findings of a dataset, and what was checked without one."""

    image_count: int = Field(description="Number of images checked; not those set aside.")
    caption_count: int = Field(description="Number of captions checked.")
    findings: tuple[Finding, ...] = Field(description="What was found.")
    clear: tuple[Check, ...] = Field(description="What was checked without a finding.")
    not_measured: dict[Check, str] = Field(default_factory=dict)
    """Why a check could not look at all images: “not measured for 12 images yet”."""

    @computed_field(alias="open")  # type: ignore[prop-decorator]
    @property
    def open_count(self) -> int:
        """Number of findings that are not mere advice."""
        return len(self.open)

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
