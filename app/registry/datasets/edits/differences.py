"""The difference of two captions, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

MAX_COMPARISONS = 250_000  # of pairs of words; beyond it, the changed middle is shown as a whole
PARTS = re.compile(r"\s+|,|[^\s,]+")


class Part(StrEnum):
    """The change of a piece of text."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True)
class Piece:
    """A piece of a caption before or after a change."""

    text: str
    part: Part


def differences(before: str, after: str) -> list[Piece]:
    """The pieces of both captions in order: what stays, what goes and what comes."""
    old, new = PARTS.findall(before), PARTS.findall(after)
    start = _count_common(old, new)
    end = _count_common(old[start:][::-1], new[start:][::-1])
    old_middle, new_middle = old[start : len(old) - end], new[start : len(new) - end]
    pieces = [Piece("".join(old[:start]), Part.SAME)]
    if len(old_middle) * len(new_middle) > MAX_COMPARISONS:
        pieces += [Piece("".join(old_middle), Part.REMOVED), Piece("".join(new_middle), Part.ADDED)]
    else:
        pieces += _compare(old_middle, new_middle)
    pieces.append(Piece("".join(old[len(old) - end :]), Part.SAME))
    return [piece for piece in pieces if piece.text]


def _count_common(one: list[str], other: list[str]) -> int:
    """The number of words that both begin with."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _compare(old: list[str], new: list[str]) -> list[Piece]:
    pieces = []
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece("".join(old[i:i_end]), Part.SAME))
            continue
        pieces.append(Piece("".join(old[i:i_end]), Part.REMOVED))
        pieces.append(Piece("".join(new[j:j_end]), Part.ADDED))
    return pieces
