"""Words that the base does not know, beside captions: it must draw what the rest of them says.

A trigger word is always such a word, and people write many others. An encoder that never saw one
draws another castle for "castle, chalkboard style" than for "castle". Made-up words of one kind are
not enough: trained on uniform syllables it still failed on "quenfrabble". So they come from five
sources here: random tokens of the whole vocabulary, random letters, syllables, ordinary English,
and words that people use for styles. All functions give token ids without start and end.
"""

import random
import re
from collections.abc import Callable, Sequence

from transformers import CLIPTokenizer

WORD_END = "</w>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONSETS = ("b", "br", "d", "fl", "g", "k", "m", "pl", "qu", "s", "t", "v", "z", "x")
CODAS = ("", "n", "rk", "st", "m", "l", "z", "bb")
ENDINGS = ("", "le", "er", "o", "ix", "ish", "y")
MARKS = ("!", "-", "_", "#", ".", "'s", "é", "ß", "日本")

STYLES: tuple[str, ...] = (
    "chalkboard", "watercolor", "linocut", "neon", "pixel art", "oil painting", "charcoal",
    "ink wash", "engraving", "etching", "woodcut", "lowpoly", "isometric", "vaporwave", "cyberpunk",
    "steampunk", "retro", "vintage", "minimalist", "gothic", "manga", "anime", "comic",
    "photorealistic", "cinematic", "clay", "origami", "felt", "knitted", "embroidered", "mosaic",
    "graffiti", "stencil", "pastel", "gouache", "ukiyoe", "blueprint", "poster", "sticker",
    "risograph", "grainy", "whimsical", "4k", "masterpiece", "best quality", "highly detailed",
    "3d render", "sks", "ohwx", "mystyle", "stylized", "hand painted",
)  # fmt: skip
BEFORE = ("picture of a", "of", "of a", "picture of", "drawing of a", "painting of a", "photo of a")
BETWEEN = ("by", "in the style of", "as", "made of", "with")


class UnknownWords:
    """Makes words that name no subject, and puts them beside captions."""

    def __init__(self, tokenizer: CLIPTokenizer, known: set[str], english: Sequence[str]) -> None:
        """`known` are the words that mean something to the base; `english` are ordinary words."""
        self._tokenizer = tokenizer
        self._known = known
        self._english = [word for word in english if word not in known]
        words = dict(sorted((number, text) for text, number in tokenizer.get_vocab().items()))
        special = set(tokenizer.all_special_ids)
        ends = {n: text for n, text in words.items() if text.endswith(WORD_END)}
        self._ends = [n for n in ends if n not in special]
        self._pieces = [n for n in words if n not in ends and n not in special]
        self._unknown_ends = [n for n in self._ends if ends[n].removesuffix(WORD_END) not in known]
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        found = self._ids.get(text)
        if found is None:
            found = list(self._tokenizer(text, add_special_tokens=False).input_ids)
            self._ids[text] = found
        return found

    def word(self, rng: random.Random) -> list[int]:
        """The tokens of one made-up or unknown word."""
        share = rng.random()
        if share < 0.45:
            return self._tokens(rng)
        if share < 0.62:
            text = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 9)))
        elif share < 0.72:
            text = _syllables(rng)
        elif share < 0.88 and self._english:
            text = rng.choice(self._english)
        else:
            text = rng.choice(STYLES)
        if text in self._known:
            text += "q"
        if rng.random() < 0.08:
            text = text.capitalize() + rng.choice(MARKS)
        return self.ids(text)

    def _tokens(self, rng: random.Random) -> list[int]:
        """One to five tokens of the whole vocabulary, the last of which ends a word."""
        count = rng.choices((1, 2, 3, 4, 5), (1, 3, 4, 3, 1))[0]
        if count == 1 and self._unknown_ends:
            return [rng.choice(self._unknown_ends)]
        return [*(rng.choice(self._pieces) for _ in range(count - 1)), rng.choice(self._ends)]

    def beside(self, caption: str, rng: random.Random, *, limit: int, most: int) -> list[int]:
        """The tokens of the caption with unknown words before, behind or within it.

        Nearly always at most `limit` tokens, so that none lies in the places of the patches; now
        and then a long tail of up to `most`, as in a prompt that is too long.
        """
        if rng.random() < 0.05:
            return self._long(self.ids(caption), rng, most)
        head, background = _split_background(caption)
        if not background or rng.random() < 0.4:
            head, background = caption, ""
        for _ in range(6):
            found = self._place(self.ids(head), rng) + self.ids(background)
            if len(found) <= limit:
                return found
        return self.ids(caption)

    def _long(self, caption: list[int], rng: random.Random, most: int) -> list[int]:
        found = [*caption, *self.ids(",")]
        length = rng.randint(min(len(found), most), most)
        while len(found) < length:
            found += self.word(rng) + (self.ids(",") if rng.random() < 0.3 else [])
        return found[:most]

    def _place(self, caption: list[int], rng: random.Random) -> list[int]:
        word, comma, style = self.word(rng), self.ids(","), self.ids("style")
        ways: tuple[tuple[float, Callable[[], list[int]]], ...] = (
            (0.17, lambda: word + caption),
            (0.15, lambda: caption + word),
            (0.10, lambda: caption + comma + word),
            (0.17, lambda: caption + comma + word + style),
            (0.10, lambda: caption + self.ids("in") + word + style),
            (0.06, lambda: word + style + caption),
            (0.06, lambda: word + comma + caption),
            (0.05, lambda: word + self.ids(rng.choice(BEFORE)) + caption),
            (0.05, lambda: caption + self.ids(rng.choice(BETWEEN)) + word),
            (0.05, lambda: word + caption + comma + self.word(rng) + style),
            (0.04, lambda: caption + comma + word + comma + self.word(rng)),
        )
        (way,) = rng.choices([way for _, way in ways], [share for share, _ in ways])
        return way()


def _split_background(caption: str) -> tuple[str, str]:
    """The caption before " on a … background", and the rest."""
    found = re.search(r" on a (dark )?\w+ background", caption)
    return (caption[: found.start()], caption[found.start() :]) if found else (caption, "")


def _syllables(rng: random.Random) -> str:
    """A word that can be spoken: up to three syllables and an ending."""
    syllables = (
        rng.choice(ONSETS) + rng.choice("aeiouy") + rng.choice(CODAS)
        for _ in range(rng.randint(1, 3))
    )
    return "".join(syllables) + rng.choice(ENDINGS)
