"""Captions like prompts: what a person would type to get one image of the training set."""

import random
from enum import StrEnum

from tools.starter.artwork import ArtworkSet, ArtworkSubject


class Look(StrEnum):
    """A way to show a drawing of the artwork."""

    PLAIN = "plain"
    LINES = "lines"
    TWO_TONE = "two-tone"
    OUTLINED = "outlined"
    SILHOUETTE = "silhouette"
    LIGHT_OUTLINES = "light outlines"


STYLE_SHARE = 0.35
"""Share of captions that name the style of a subject's default set; those of the others always do.

A bare name that meant all three sets gave a blend of their drawings, with a blurred layout.
"""

LIGHT_GROUNDS = frozenset({"white", "yellow", "pink", "orange", "gray"})

TEMPLATES = {
    Look.LINES: (
        "{ink}line drawing of {a_name}",
        "{name}, {ink}line drawing",
        "{ink}outline of {a_name}",
        "{name}, {ink}outline",
        "{a_name}, {ink}line drawing",
    ),
    Look.TWO_TONE: (
        "black and white {name}",
        "{name}, black and white",
        "black and white drawing of {a_name}",
        "{a_name}, black and white",
    ),
    Look.OUTLINED: (
        "{name} with black outlines",
        "{name}, cartoon",
        "cartoon of {a_name}",
        "{a_name} with black outlines",
    ),
    Look.LIGHT_OUTLINES: (
        "{name} with white outlines",
        "{name}, white outlines",
        "{a_name} with white outlines",
        "{a_name}, white outlines",
    ),
    Look.SILHOUETTE: ("silhouette of {a_name}", "{name}, silhouette", "{name} silhouette"),
}

CAPTION_WORDS: frozenset[str] = frozenset((
    "style", "background", "drawing", "picture", "line", "outline", "outlines", "black",
    "white", "cartoon", "dark", "silhouette", "of", "on", "a", "an", "and", "with",
))  # fmt: skip
"""Every word of a caption that is neither a name, a keyword, a color nor a style."""


def write_caption(
    subject: ArtworkSubject,
    hand: ArtworkSet,
    ground: str,
    look: Look,
    *,
    is_default: bool,
    rng: random.Random,
) -> str:
    """One of the captions of an image: a name of the subject, its look, style and background.

    `is_default` says that the subject's name alone means a drawing of this set.
    """
    name = _choose_name(subject, rng)
    has_ground = ground != "white" or rng.random() < 0.15
    background = f" on a {ground} background" if has_ground else ""
    has_style = not is_default or rng.random() < STYLE_SHARE
    style = f", {hand.value} style" if has_style else ""
    if look is Look.PLAIN:
        words = _frame(name, rng)
        return words + (style + background if rng.random() < 0.7 else background + style)
    template = rng.choice(TEMPLATES[look])
    words = template.format(name=name, a_name=with_article(name), ink=_ink(ground, rng))
    return words + style + background


def with_article(name: str) -> str:
    """The name after "a" or "an"."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _choose_name(subject: ArtworkSubject, rng: random.Random) -> str:
    """A name for the subject: mostly its own, else a plain name, or one with a keyword."""
    share = rng.random()
    if subject.plain_names and share < 0.42:
        return rng.choice(subject.plain_names)
    if subject.only_here and 0.42 <= share < 0.48:
        return rng.choice(subject.only_here)
    if subject.keywords and 0.48 <= share < 0.58:
        keyword = rng.choice(subject.keywords)
        return rng.choice((f"{keyword} {subject.name}", f"{subject.name}, {keyword}"))
    return subject.name


def _frame(name: str, rng: random.Random) -> str:
    """The name, in a quarter of the cases with the words that people put before it."""
    share = rng.random()
    if share < 0.12:
        return with_article(name)
    if share < 0.20:
        return f"a picture of {with_article(name)}"
    if share < 0.28:
        return f"a drawing of {with_article(name)}"
    return name


def _ink(ground: str, rng: random.Random) -> str:
    """The color of the lines with a space after it, or nothing."""
    if ground not in LIGHT_GROUNDS and rng.random() < 0.6:
        return "white "
    return "black and white " if ground == "white" and rng.random() < 0.2 else ""
