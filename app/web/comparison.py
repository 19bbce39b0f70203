"""The shared parts of pages that compare two things: their images in pairs, and the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.registry.comparison.side_by_side import SideBySide
from app.registry.tables.runs import Sample


@dataclass(frozen=True)
class ComparedImage:
    """One side of a comparison.

    `preview`: the address of an image that is not stored, shown instead of a file. `is_old`: a
    newer image is on its way.
    """

    sha256: str
    label: str
    alt: str
    preview: str = ""
    is_old: bool = False


@dataclass(frozen=True)
class ComparedPrompt:
    """The images of a prompt on both sides; None where there is none."""

    a: ComparedImage | None
    b: ComparedImage | None
    caption: str


def compared_prompts(found: SideBySide[Any]) -> list[ComparedPrompt]:
    """The samples of both sides, prompt by prompt."""
    return [
        ComparedPrompt(_image(pair.a, found.a_label), _image(pair.b, found.b_label), pair.caption)
        for pair in found.pairs
    ]


def _image(sample: Sample | None, label: str) -> ComparedImage | None:
    if sample is None:
        return None
    return ComparedImage(sample.sha256, label, f"{sample.prompt}, {label.lower()}")
