"""Reads `metadata.jsonl`, the captions of many images, and what Brushwork adds to an export.

A line is `{"file_name": "a.png", "text": "…"}`, the layout of Hugging Face image folders. Brushwork
writes further fields when it exports a dataset; of other programs' lines, those with the same names
are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from app.registry.datasets.captions import CaptionRefused, Refusal, clean_caption, decode_text
from app.registry.datasets.several_captions import KindCaption
from app.registry.errors import InvalidInput
from app.registry.file_names import clean_filename, folder_of
from app.registry.tables.datasets import MAX_REPEATS
from app.registry.validation import reason
from app.registry.wording import size_text
from worker.core.words import CaptionKind

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Flag = Annotated[bool, Field(strict=True)]
METADATA_NAME = "metadata.jsonl"
LEFT_OUT_NAME = "left-out.jsonl"
DATASET_NAME = "dataset.json"
MAX_METADATA_BYTES = 60_000_000


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


NOTHING_ELSE = ImageFacts()
_LINE = TypeAdapter(ImageFacts)


def read_facts(entry: Mapping[str, Any]) -> ImageFacts:
    """The facts in a line of `metadata.jsonl`. Raises CaptionRefused with the field."""
    try:
        return _LINE.validate_python(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CaptionRefused(f"“{problem['loc'][0]}”: {reason(problem)}") from None


@dataclass(frozen=True)
class FileCaption:
    """A caption from a file, for the image with this name (with or without suffix)."""

    name: str  # as shown to users
    text: str
    folder: str = ""  # inside a metadata.jsonl: the part before the name
    facts: ImageFacts = NOTHING_ELSE


@dataclass(frozen=True)
class DatasetFacts:
    """The name and the trigger word in the `dataset.json` of an export."""

    name: str = ""
    trigger_word: str = ""


def is_metadata(filename: str) -> bool:
    """True if a file of this name contains the captions of many images."""
    return filename.lower() == METADATA_NAME


def is_about_export(filename: str) -> bool:
    """True for the files of an export that are about no image in it."""
    return filename.lower() in (LEFT_OUT_NAME, DATASET_NAME)


def read_metadata(data: bytes) -> Iterator[FileCaption | str]:
    """The captions in a `metadata.jsonl`; for each invalid line, an error message instead.

    Of a line in which only something else is invalid, the caption comes before the message.
    """
    for number, line in _lines(data):
        if isinstance(line, str):
            yield line
            continue
        try:
            found = _caption_of(line)
        except CaptionRefused as refusal:
            yield f"Line {number}: {refusal.detail}"
            continue
        try:
            facts = read_facts(line)
        except CaptionRefused as refusal:
            yield found
            yield f"Line {number}: {refusal.detail} Only its caption was read."
        else:
            text = found.text or (facts.captions[0].caption if facts.captions else "")
            yield FileCaption(found.name, text, found.folder, facts)


def _caption_of(entry: dict[str, Any]) -> FileCaption:
    if not isinstance(entry.get("file_name"), str):
        raise CaptionRefused('It has no "file_name".')
    text = entry.get("text", entry.get("caption", "" if entry.get("captions") else None))
    if not isinstance(text, str):
        raise CaptionRefused('It has no "text".')
    path = entry["file_name"].replace("\\", "/")
    return FileCaption(clean_filename(path), clean_caption(text), folder_of(path))


def _lines(data: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Number and content of each line that is not empty; an error message where it has none."""
    if len(data) > MAX_METADATA_BYTES:
        yield 0, f"The file is larger than {size_text(MAX_METADATA_BYTES)}; split it."
        return
    try:
        lines = decode_text(data).split("\n")
    except CaptionRefused as refusal:
        yield 0, refusal.detail
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            yield number, f"Line {number}: This is not JSON."
            continue
        if not isinstance(entry, dict):
            entry = {}
        yield number, entry


def read_left_out(data: bytes) -> Iterator[Refusal]:
    """The images that an export could not read."""
    for _, line in _lines(data):
        if isinstance(line, dict) and isinstance(line.get("file_name"), str):
            reason = str(line.get("reason", ""))[:500]
            name = clean_filename(line["file_name"])
            yield Refusal(name, f"The export has no such image. {reason}")


def read_dataset_facts(data: bytes) -> DatasetFacts:
    """The facts in a `dataset.json`; values that cannot be used are empty."""
    try:
        entry: Any = json.loads(decode_text(data))
    except (InvalidInput, ValueError, RecursionError):
        return DatasetFacts()
    if not isinstance(entry, dict):
        return DatasetFacts()
    return DatasetFacts(_label(entry.get("name")), _label(entry.get("trigger_word")))


def _label(value: Any) -> str:
    try:
        return clean_caption(value) if isinstance(value, str) else ""
    except CaptionRefused:
        return ""
