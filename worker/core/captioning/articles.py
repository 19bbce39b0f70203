"""“a” or “an” before a word, in English."""

from __future__ import annotations

import re

# written with a vowel and spoken with a consonant, and the other way round
SPOKEN_WITH_CONSONANT = re.compile(r"(?:uni(?![mn])|us[ae]|uten|eu|ewe|one\b|once\b|uk|u-)", re.I)
SPOKEN_WITH_VOWEL = re.compile(r"(?:heir|hono|hour|honest)", re.I)


def fitting_article(article: str, word: str) -> str:
    """The article as it is spoken before this word; other articles than “a” and “an” stay."""
    if article.lower() not in ("a", "an"):
        return article
    starts_with_vowel = word[:1].lower() in "aeiou" and not SPOKEN_WITH_CONSONANT.match(word)
    is_an = starts_with_vowel or SPOKEN_WITH_VOWEL.match(word)
    return article[0] + ("n" if is_an else "")
