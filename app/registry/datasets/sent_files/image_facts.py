"""Facts of an image in a line of `metadata.jsonl`, besides its caption.

Brushwork writes these fields when it exports a dataset; of other programs' lines, those with the
same names are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.registry.datasets.captions import CaptionRefused, clean_caption
from app.registry.file_names import clean_filename
from app.registry.tables.datasets import MAX_REPEATS, MAX_SHARE
from app.registry.validation import reason
from worker.core.words import CaptionKind

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class KindCaption:
    """One of the captions of an image."""

    kind: CaptionKind
    text: str
    share: int = 1


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an uploaded image; None: not given.

    `sha256` is the hash of the file it was first uploaded as, and `clean_sha256` that of the
    exported image: only together do they say something about the file that they come with.
    """

    captions: tuple[KindCaption, ...] = ()
    repeats: int | None = None
    never_flip: bool | None = None
    set_aside: bool | None = None
    focus: tuple[float, float] | None = None
    filename: str | None = None
    sha256: str | None = None
    clean_sha256: str | None = None

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes by which an image that is there is recognized."""
        return tuple(one for one in (self.sha256, self.clean_sha256) if one)


class _Caption(BaseModel):
    model_config = ConfigDict(extra="ignore")

    caption: str = Field(strict=True)
    kind: CaptionKind = CaptionKind.LONG
    share: int = Field(1, ge=1, le=MAX_SHARE, strict=True)


class _Facts(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    captions: list[_Caption] | None = Field(None, max_length=len(CaptionKind))
    repeats: int | None = Field(None, ge=1, le=MAX_REPEATS)
    never_flip: bool | None = None
    set_aside: bool | None = None
    focus: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = None
    name: str | None = None
    sha256: Hash | None = None
    clean_sha256: Hash | None = None


def read_facts(entry: Mapping[str, Any]) -> ImageFacts:
    """The facts in a line of `metadata.jsonl`. Raises CaptionRefused with the field."""
    try:
        facts = _Facts.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CaptionRefused(f"“{problem['loc'][0]}”: {reason(problem)}") from None
    captions = tuple(
        KindCaption(one.kind, clean_caption(one.caption), one.share) for one in facts.captions or ()
    )
    if len({one.kind for one in captions}) < len(captions):
        raise CaptionRefused("“captions”: Two captions have the same kind.")
    return ImageFacts(
        captions=captions,
        repeats=facts.repeats,
        never_flip=facts.never_flip,
        set_aside=facts.set_aside,
        focus=(facts.focus[0], facts.focus[1]) if facts.focus else None,
        filename=clean_filename(facts.name) if facts.name else None,
        sha256=facts.sha256,
        clean_sha256=facts.clean_sha256,
    )
