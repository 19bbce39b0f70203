"""Captions uploaded with images: read from files, cleaned, and paired by name.

Supported are `a.txt` or `a.caption` next to `a.png`; `metadata_lines` reads a `metadata.jsonl`.
"""

from __future__ import annotations

import codecs
import unicodedata
from typing import NamedTuple

from app.registry.errors import InvalidInput
from app.registry.file_names import BIDI_ORDERS
from app.registry.wording import size_text

MAX_CHARACTERS = 2_000
MAX_TEXT_BYTES = 2_000_000  # of a caption file
CAPTION_SUFFIXES = (".txt", ".caption")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class CaptionRefused(InvalidInput, code="caption_refused"):
    """The caption cannot be used; the message gives the reason."""


class CaptionFromFile(NamedTuple):
    """A caption and the file it came from, as shown to users."""

    text: str
    file: str


NO_CAPTION = CaptionFromFile("", "")


class Refusal(NamedTuple):
    """A refused file, and the reason."""

    filename: str
    reason: str


def clean_caption(text: str) -> str:
    """The caption as one line of NFC text without control characters. Raises CaptionRefused.

    Characters that turn the order of the text around them are left out too: nobody sees them.
    """
    kept = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFC", text)
        if character.isspace()
        or (unicodedata.category(character) not in ("Cc", "Cs") and character not in BIDI_ORDERS)
    )
    line = " ".join(kept.replace("\ufeff", "").split())
    if len(line) > MAX_CHARACTERS:
        raise CaptionRefused(
            f"The caption has {len(line):,} characters; at most {MAX_CHARACTERS:,} are allowed. "
            "Shorten it: text encoders read about the first 75 words."
        )
    return line


def decode_text(data: bytes) -> str:
    """The text of a file: UTF-8 or UTF-16 by its byte order mark, else UTF-8, else Windows-1252.

    Raises CaptionRefused if it is not text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise CaptionRefused("The file is not text. Save it as UTF-8.") from None
    if data.count(0) > 0:
        return _unmarked_utf16(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _unmarked_utf16(data: bytes) -> str:
    """Decode UTF-16 without a byte order mark, recognized by zeros at every second byte."""
    for encoding, zeros, others in (
        ("utf-16-le", data[1::2], data[0::2]),
        ("utf-16-be", data[0::2], data[1::2]),
    ):
        if len(data) % 2 == 0 and zeros.count(0) > len(zeros) // 2 and others.count(0) == 0:
            return data.decode(encoding, errors="replace")
    raise CaptionRefused("The file is not text. Save it as UTF-8.")


def is_caption(filename: str) -> bool:
    """True if a file of this name contains the caption of one image."""
    return filename.lower().endswith(CAPTION_SUFFIXES)


def read_caption(data: bytes) -> str:
    """The caption in a `.txt` or `.caption` file. Raises CaptionRefused."""
    if len(data) > MAX_TEXT_BYTES:
        raise CaptionRefused(
            f"The file is larger than {size_text(MAX_TEXT_BYTES)}, too large for a caption."
        )
    return clean_caption(decode_text(data))


def stem_of(filename: str) -> str:
    """The name without its last suffix, which an image and its caption file share."""
    stem, dot, _ = filename.rpartition(".")
    return stem if dot and stem else filename


def pairing_stem(filename: str) -> str:
    """The stem of the image that a caption file belongs to: "a" for `a.txt` and `a.png.txt`."""
    stem = stem_of(filename)
    return stem_of(stem) if stem.lower().endswith(PICTURE_SUFFIXES) else stem
