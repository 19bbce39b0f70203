r"""Reads emphasis in a prompt, in the syntax of A1111; imports nothing, so that pages read it too.

`(word)` multiplies the weight by 1.1, `[word]` divides it by 1.1, `(word:1.3)` multiplies it by the
number; they nest. `\(`, `\)`, `\[`, `\]` and `\\` are the signs themselves. BREAK begins a new
section. The syntax is described in A1111's wiki, "Features: Attention/emphasis".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

MAX_WORD_WEIGHT = 3.0
"""Weights go from 0 to this: beyond, images fall apart."""

PROMPT_VERSION = 1
"""Version of what is read here; increase it when the same prompt gives another image."""

STEP = 1.1
# each of them looks at a sign a few times at most, however long a prompt somebody sends
SIGN = re.compile(r"\\[()\[\]\\]|[()\[\]]|(?:(?<!\s)\s+)?\bBREAK\b\s*")
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
EDITING = re.compile(r"\[[^\[\]|:]*[|:][^\[\]]*\]")
WORDS = re.compile(r"\w+|[^\w\s]")
FEW_WORDS = 20  # with punctuation; `starter` reads 22 tokens at once
OPENING = {")": "(", "]": "["}

LIMITED = f"Weights in the prompt go from 0 to {MAX_WORD_WEIGHT:g}; one beyond was limited."
NOT_EDITED = "“[a:b:0.5]” and “[a|b]” do not change the prompt between steps here: they are text."


@dataclass(frozen=True)
class Fragment:
    """A part of a prompt without syntax, and the weight of its words."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt in sections, which are encoded one after another; `notes` are for the user."""

    sections: tuple[tuple[Fragment, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> str | None:
        """The text to encode as it is; None if there are weights or several sections."""
        if len(self.sections) > 1 or any(part.weight != 1 for part in self.sections[0]):
            return None
        return self.text

    @property
    def text(self) -> str:
        """All words, without syntax."""
        return " ".join("".join(part.text for part in section) for section in self.sections)


@dataclass
class _Piece:
    """A literal text with its weight; `sign` is a bracket that was not closed yet, or BREAK."""

    text: str
    weight: float = 1.0
    sign: str = ""


def has_syntax(prompt: str) -> bool:
    """True if anything in the prompt could be syntax."""
    return SIGN.search(prompt) is not None


def is_simple(prompt: str) -> bool:
    """True if the prompt has no syntax and surely fits in one chunk of any base model.

    Images of such prompts are older than what is read here.
    """
    return not has_syntax(prompt) and len(WORDS.findall(prompt)) <= FEW_WORDS


def parse_prompt(prompt: str, *, has_weights: bool = True) -> ParsedPrompt:
    """The sections of a prompt; brackets without a counterpart are text, and a note says so.

    Without weights, for families that have none, all of it is text.
    """
    if not has_weights or not has_syntax(prompt):
        return ParsedPrompt(((Fragment(prompt),),))
    pieces, lone = _read_pieces(prompt)
    notes = []
    if lone:
        signs = " and ".join(f"“{sign}”" for sign in dict.fromkeys(lone))
        notes.append(
            f"{signs} in the prompt has no counterpart and was read as text. Close it, or write "
            f"“\\{lone[0]}” where it is meant as text."
        )
    if any(not 0 <= piece.weight <= MAX_WORD_WEIGHT for piece in pieces if piece.text.strip()):
        notes.append(LIMITED)
    if EDITING.search(prompt):
        notes.append(NOT_EDITED)
    return ParsedPrompt(_sections(pieces), tuple(notes))


def _read_pieces(prompt: str) -> tuple[list[_Piece], list[str]]:
    """The pieces of a prompt with the weights of the brackets around them, and lone brackets."""
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    lone: list[str] = []
    end = 0
    for found in SIGN.finditer(prompt):
        pieces.append(_Piece(prompt[end : found.start()]))
        sign, end = found[0].strip(), found.end()
        if sign in opened:
            opened[sign].append(len(pieces))
            pieces.append(_Piece("", sign=sign))
        elif sign not in OPENING:
            pieces.append(_Piece("", sign=sign) if sign == "BREAK" else _Piece(sign[1:]))
        elif starts := opened[OPENING[sign]]:
            _close(pieces, starts.pop(), sign)
        else:
            pieces.append(_Piece(sign))
            lone.append(sign)
    pieces.append(_Piece(prompt[end:]))
    for piece in pieces:
        if piece.sign in opened:
            piece.text = piece.sign
            lone.append(piece.sign)
    return pieces, lone


def _close(pieces: list[_Piece], start: int, sign: str) -> None:
    """Weight everything after the bracket at index `start`, which `sign` closes."""
    pieces[start].sign = ""
    factor = STEP if sign == ")" else 1 / STEP
    text, colon, number = pieces[-1].text.rpartition(":")
    if sign == ")" and colon and NUMBER.fullmatch(number.strip()):
        factor = float(number)
        pieces[-1].text = text.rstrip()
    for piece in pieces[start + 1 :]:
        piece.weight *= factor


def _sections(pieces: Sequence[_Piece]) -> tuple[tuple[Fragment, ...], ...]:
    """The fragments between BREAKs; adjacent ones of the same weight are one."""
    sections = []
    for is_break, group in groupby(pieces, key=lambda piece: piece.sign == "BREAK"):
        if is_break:
            continue
        weighted = [(min(max(piece.weight, 0.0), MAX_WORD_WEIGHT), piece.text) for piece in group]
        parts = [
            Fragment("".join(text for _, text in same), weight)
            for weight, same in groupby(
                filter(lambda pair: pair[1], weighted), lambda pair: pair[0]
            )
        ]
        if any(part.text.strip() for part in parts):
            sections.append(tuple(parts))
    return tuple(sections) or ((Fragment(""),),)
