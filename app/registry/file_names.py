"""Names and folders of files that people send, as they are shown and stored."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from worker.core.wording import shortened

MAX_FILENAME = 200
LONGEST_SUFFIX = len("safetensors")
# they reorder the text around them: "gnp.exe" would be shown as "exe.png"
BIDI_MARKS = frozenset("\u200e\u200f")  # which stand in Hebrew and Arabic text
BIDI_ORDERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
BIDI_CONTROLS = BIDI_MARKS | BIDI_ORDERS


def clean_filename(name: str) -> str:
    """A display name, never a path: last part, NFC, no control characters.

    It has at most 200 characters; a longer one ends in “…” before its suffix.
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(
        character
        for character in unicodedata.normalize("NFC", last)
        if unicodedata.category(character) not in ("Cc", "Cs") and character not in BIDI_CONTROLS
    ).strip()
    if not kept.strip("."):
        return "unnamed"
    stem, dot, suffix = kept.rpartition(".")
    if len(kept) > MAX_FILENAME and dot and len(suffix) <= LONGEST_SUFFIX:
        return shortened(stem, MAX_FILENAME - len(suffix) - 1) + dot + suffix
    return shortened(kept, MAX_FILENAME)


def folder_of(path: str) -> str:
    """The folder part of a path in an archive, for pairing; it is never opened."""
    parts = PurePosixPath(path.replace("\\", "/")).parts[:-1]
    return "/".join(part for part in parts if part not in (".", "..", "/"))
