"""Captions from the names of image files: “red_fox-02.png” is “red fox”. No image is looked at."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from worker.core.captioning.interface import CaptionAnswer
from worker.core.captioning.words import ProviderKind

TITLE = ProviderKind.FILENAME.label
CODE = "Its file name has no words, only numbers or codes."
GIVEN = "Its file name is one that a camera or a program gave."
SHARED = "Its file name has only words that all names share."

SUFFIX = re.compile(r"(?:\.(?:png|jpe?g|webp))+$", re.IGNORECASE)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
HEXADECIMAL = re.compile(r"(?=.*[0-9])[0-9a-f]+", re.IGNORECASE)
LONG_HASH = 16  # hexadecimal digits
SHORT_PIECES = 3  # characters; random text has a digit or a capital sooner

CAMERAS = frozenset(("dji", "dsc", "dscf", "dscn", "fb", "gopr", "imag", "img", "mg", "mvi", "pxl"))
"""Words that cameras and phones put before a number; they name no subject anywhere."""
PROGRAMS = frozenset(
    word
    for text in (
        "am app at comfy copy download file frame image photo pic picture",
        "pm scan signal ui whats whatsapp",
    )
    for word in text.split()
)
"""Words that name no subject beside a number, where a name has no others."""
UNNAMED = frozenset(("tmp", "unnamed", "untitled"))
SCREENSHOTS = ("screenshot", "screen shot", "bildschirmfoto", "capture d’écran", "captura de")
UNITS = frozenset(("px", "dpi", "mp"))


def captions_of_files(filenames: Sequence[str]) -> list[CaptionAnswer]:
    """The caption of each file, or the reason why its name gives none.

    Numbers, codes, separators and the suffix are left out, and words that all names with words
    share, such as that of a collection, if most of them have others.
    """
    found = [_subject(filename) for filename in filenames]
    named = [set(words) for words in found if isinstance(words, list)]
    shared = set.intersection(*named) if named else set()
    if 2 * sum(words > shared for words in named) <= len(named):
        shared = set()
    return [_answer(words, shared) for words in found]


def _answer(words: list[str] | str, shared: set[str]) -> CaptionAnswer:
    if isinstance(words, str):
        return CaptionAnswer("", words)
    text = " ".join(word for word in words if word not in shared)
    return CaptionAnswer(text, "" if text else SHARED)


def _subject(filename: str) -> list[str] | str:
    """The words of a file name that may name its subject, or why there are none."""
    words = _words(filename)
    if not words:
        return CODE
    has_number = any(character.isdigit() for character in filename)
    given = CAMERAS | UNNAMED | (PROGRAMS if has_number else set())
    if given.issuperset(words) or " ".join(words).startswith(SCREENSHOTS):
        return GIVEN
    return [word for word in words if word not in CAMERAS]


def _words(filename: str) -> list[str]:
    """The words of a file name in lower case."""
    stem = SUFFIX.sub("", unicodedata.normalize("NFC", filename))
    text = UUID.sub(" ", stem)
    text = "".join(c if c in "'’" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    found = [word for token in text.split() for word in _words_of(token)]
    return [word for word in found if word not in UNITS]


def _words_of(token: str) -> Iterator[str]:
    """The words of a part between separators; none if it is a code.

    A single letter beside a number is none, as in “v2”.
    """
    pieces = list(_pieces(token))
    if _is_code(token, pieces):
        return
    has_number = any(piece.isdigit() for piece in pieces)
    for piece in pieces:
        word = piece.strip("'’").lower()
        if word and not word.isdigit() and not (has_number and len(word) == 1):
            yield word


def _is_code(token: str, pieces: Sequence[str]) -> bool:
    if HEXADECIMAL.fullmatch(token) and (len(pieces) > 2 or len(token) >= LONG_HASH):
        return True
    return len(pieces) > 3 and len(token) < SHORT_PIECES * len(pieces)


def _pieces(token: str) -> Iterator[str]:
    """A token, split at numbers and where a capital begins a word."""
    start = 0
    for at in range(1, len(token)):
        before, here = token[at - 1], token[at]
        begins_word = here.isupper() and (before.islower() or token[at + 1 : at + 2].islower())
        if before.isdigit() != here.isdigit() or begins_word:
            yield token[start:at]
            start = at
    yield token[start:]
