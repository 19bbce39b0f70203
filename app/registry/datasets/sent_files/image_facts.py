"""Facts of an image in a line of `metadata.jsonl`, besides its caption.

Brushwork writes these fields when it exports a dataset; of other programs' lines, those with the
same names are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from app.registry.datasets.captions import CaptionRefused
from app.registry.datasets.several_captions import KindCaption
from app.registry.file_names import clean_filename
from app.registry.tables.datasets import MAX_REPEATS
from app.registry.validation import reason
from worker.core.words import CaptionKind

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Flag = Annotated[bool, Field(strict=True)]


def _distinct(captions: tuple[KindCaption, ...]) -> tuple[KindCaption, ...]:
    if len({one.kind for one in captions}) < len(captions):
        raise CaptionRefused("“captions”: Two captions have the same kind.")
    return captions


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image in an export, as their line names them; None: not given.

    `sha256` is the hash of the file it was first uploaded as, and `clean_sha256` that of the
    exported image: only together do they say something about the file that they come with.
    """

    captions: Annotated[
        tuple[KindCaption, ...],
        Field(max_length=len(CaptionKind)),
        AfterValidator(_distinct),
        BeforeValidator(lambda sent: () if sent is None else sent),
    ] = ()
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS, strict=True)] | None = None
    never_flip: Flag | None = None
    set_aside: Flag | None = None
    focus: tuple[Fraction, Fraction] | None = None
    filename: Annotated[
        str | None,
        Field(alias="name"),
        AfterValidator(lambda name: clean_filename(name) if name else None),
    ] = None
    sha256: Hash | None = None
    clean_sha256: Hash | None = None

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes by which an image that is there is recognized."""
        return tuple(one for one in (self.sha256, self.clean_sha256) if one)


_LINE = TypeAdapter(ImageFacts)


def read_facts(entry: Mapping[str, Any]) -> ImageFacts:
    """The facts in a line of `metadata.jsonl`. Raises CaptionRefused with the field."""
    try:
        return _LINE.validate_python(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CaptionRefused(f"“{problem['loc'][0]}”: {reason(problem)}") from None
