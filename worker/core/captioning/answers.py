"""Turns what a model answers into a caption: without its thoughts, greetings and quotes."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 2_000
MIN_KEPT = 0.4
"""The least share of a caption that is cut off which its whole sentences have to be."""

# they reorder the text around them, or are not seen at all
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")
# of a terminal: colors and the like, and titles and links, which have texts of their own
ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]"
)
THOUGHTS = re.compile(r"<(think|thinking|thought)>.*?(</\1>|$)", re.DOTALL | re.IGNORECASE)
TAIL_OF_THOUGHTS = re.compile(r"^.*?</(think|thinking|thought)>", re.DOTALL | re.IGNORECASE)
BOLD = re.compile(r"\*\*|__")
SPECIAL_TOKENS = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|<pad>|<unk>", re.IGNORECASE)
GREETING = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok)\b[^:.\n]{0,80}[:.!]\s*)?"
    r"(?:(?:here(?: is|’s|'s)|this is) (?:a|the|your)\b[^:\n]{0,60}:\s*)?"
    r"(?:(?:image )?(?:caption|description|tags|answer)\s*:\s*)?",
    re.IGNORECASE,
)
OPENING = re.compile(
    r"^(?:(?:the|this) (?:image|picture|photo|photograph|illustration|drawing|painting|artwork) "
    r"(?:shows|depicts|features|displays|portrays|is of|contains|presents)"
    r"|(?:an?|the) (?:image|picture|photo|photograph) of)\s+",
    re.IGNORECASE,
)
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}
ENDS = re.compile(r"[.!?。](?=\s|$)|,")


def caption_of_answer(answer: str, *, is_cut_off: bool = False) -> str:
    """The caption in an answer, as one line; "" if there is none.

    `is_cut_off`: the model reached its limit, so its last, unfinished sentence or tag is left out.
    """
    text = unicodedata.normalize("NFC", INVISIBLE.sub("", ESCAPES.sub("", answer)))
    text = TAIL_OF_THOUGHTS.sub("", THOUGHTS.sub(" ", text))
    text = BOLD.sub("", SPECIAL_TOKENS.sub(" ", text))
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text.replace("\n", " "))
    text = _without_frame(" ".join(text.split()))
    if is_cut_off or len(text) > MAX_CHARACTERS:
        text = _whole_part(text[:MAX_CHARACTERS])
    return text


def _without_frame(text: str) -> str:
    """The caption without “Sure, here is a caption:”, quotes and “The image shows”."""
    text = GREETING.sub("", text, count=1).strip()
    while len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return OPENING.sub("", text, count=1).strip()


def _whole_part(text: str) -> str:
    """The text up to its last finished sentence or tag, if that is most of it."""
    ends = [match for match in ENDS.finditer(text) if match.end() >= MIN_KEPT * len(text)]
    if ends:
        text = text[: ends[-1].end()]
    elif " " in text:
        text = text.rpartition(" ")[0]
    return text.rstrip(" ,;")
