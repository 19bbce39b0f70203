"""Reads `metadata.jsonl`, the captions of many images, and what Brushwork adds to an export.

A line is `{"file_name": "a.png", "text": "…"}`, the layout of Hugging Face image folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.registry.datasets.captions import CaptionRefused, Refusal, clean_caption, decode_text
from app.registry.datasets.sent_files.image_facts import ImageFacts, read_facts
from app.registry.errors import InvalidInput
from app.registry.file_names import clean_filename, folder_of
from app.registry.wording import size_text

METADATA_NAME = "metadata.jsonl"
LEFT_OUT_NAME = "left-out.jsonl"
DATASET_NAME = "dataset.json"
MAX_METADATA_BYTES = 60_000_000
NOTHING_ELSE = ImageFacts()


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
