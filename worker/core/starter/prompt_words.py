"""Words of a prompt as the embedded base reads them: subjects, and words that it was never taught.

Everything follows from the list of subjects in `subjects.json`; no model is loaded.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from worker.core.starter.subjects import KnownSubject, known_subjects

TAUGHT = (
    "picture drawing style background noto twemoji fluent line outline outlines cartoon silhouette "
    "dark white black gray red orange yellow green teal blue purple pink"
)
CAPTION_WORDS = frozenset(TAUGHT.split())
"""Words of the captions that the base was trained on, other than subjects and keywords."""

UNDRAWN_WORDS = (
    "a an the of on in at by to from for with without and or near under over behind beside between "
    "into is are its it this that"
)
FUNCTION_WORDS = frozenset(UNDRAWN_WORDS.split())
"""Words without a picture of their own: nobody expects a drawing of them."""

WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)*(?!\w)")  # without digits: no “4k”
TAG = re.compile(r"<[^<>]*>")  # of an adapter, as in <lora:ink:0.8>
MAX_READ = 200  # words of a text that are looked at; more than the base has tokens for
SIMILARITY = 0.8  # of a word to a known one, as difflib measures it: "lighthause" to "lighthouse"


@dataclass(frozen=True)
class PromptReading:
    """The words of a prompt, sorted by what the base knows of them.

    `unknown`: the words that it was never taught, once each, as typed. `similar`: known subjects
    whose names resemble them. `has_subject`: whether the prompt names anything that it can draw.
    """

    unknown: tuple[str, ...]
    similar: tuple[str, ...]
    has_subject: bool


def read_prompt(prompt: str, *, taught: Iterable[str] = ()) -> PromptReading:
    """Look up every word of a prompt; `taught` are texts an adapter knows, as its trigger words."""
    typed = _words(TAG.sub(" ", prompt))
    known = _known_words() | {word.lower() for text in taught for word in _words(text)}
    unknown = [word for word in typed if word.lower() not in known]
    unknown = list({word.lower(): word for word in reversed(unknown)}.values())[::-1]
    similar = dict.fromkeys(name for word in unknown for name in _similar_names(word.lower()))
    lowered = [word.lower() for word in typed]
    return PromptReading(tuple(unknown), tuple(similar), any(_phrases(lowered)))


def subject_for(noun: str) -> KnownSubject | None:
    """The subject with this name or plain name; None if the artwork has no drawing of it.

    A keyword is not enough: "back" is one of a door, and "men" one of a cocktail glass.
    """
    return _main_names().get(" ".join(noun.lower().split()))


def search_subjects(text: str) -> list[KnownSubject]:
    """The subjects with all words of `text` in their names and keywords, best matches first.

    A word matches where another one begins with it. Names come before plain names, and these before
    keywords. An empty text finds all, in the order of the list.
    """
    words = _words(text.lower())
    ranked = [(_rank(subject, words), subject) for subject in known_subjects()]
    found = [(rank, subject) for rank, subject in ranked if rank is not None]
    return [subject for _, subject in sorted(found, key=lambda pair: pair[0])]


def with_subject(prompt: str, name: str) -> str:
    """The prompt with `name` in front, in place of the subject that it begins with, if any.

    Only a first part that is a subject and nothing else is replaced: "castle, chalkboard style".
    """
    first, comma, rest = prompt.strip().partition(",")
    if not first.strip() or " ".join(_words(first.lower())) in _names():
        return f"{name},{rest}" if comma and rest.strip() else name
    return f"{name}, {prompt.strip()}"


def _words(text: str) -> list[str]:
    return [found[0] for found in islice(WORD.finditer(text), MAX_READ)]


@cache
def _names() -> Mapping[str, KnownSubject]:
    """Every text that stands for one subject."""
    subjects = known_subjects()
    count = Counter(keyword for subject in subjects for keyword in subject.keywords)
    named = {
        keyword: subject
        for subject in subjects
        for keyword in subject.keywords
        if count[keyword] == 1
    }
    named |= {name: subject for subject in subjects for name in subject.plain_names}
    named |= {subject.name: subject for subject in subjects}
    return {" ".join(_words(text)): subject for text, subject in named.items() if _words(text)}


@cache
def _known_words() -> frozenset[str]:
    texts = [
        text
        for subject in known_subjects()
        for text in (subject.name, *subject.plain_names, *subject.keywords)
    ]
    return CAPTION_WORDS | FUNCTION_WORDS | {word for text in texts for word in _words(text)}


@cache
def _longest_name() -> int:
    return max(len(name.split()) for name in _names())


def _phrases(words: Sequence[str]) -> Iterable[str]:
    """Every run of words that names a subject."""
    for start in range(len(words)):
        for end in range(start + 1, min(start + _longest_name(), len(words)) + 1):
            phrase = " ".join(words[start:end])
            if phrase in _names():
                yield phrase


def _similar_names(word: str) -> list[str]:
    """Names that resemble a word: its singular, or one with a letter or two in another place."""
    for singular in (word.removesuffix("s"), word.removesuffix("es")):
        if singular != word and singular in _names():
            return [singular]
    return difflib.get_close_matches(word, _main_names(), n=1, cutoff=SIMILARITY)


@cache
def _main_names() -> Mapping[str, KnownSubject]:
    """Names and plain names without the keywords."""
    subjects = known_subjects()
    plain = {name: subject for subject in subjects for name in subject.plain_names}
    return plain | {subject.name: subject for subject in subjects}


def _rank(subject: KnownSubject, words: Sequence[str]) -> tuple[int, int] | None:
    """(worst field that a word needs, position in it); None if a word is nowhere."""
    fields = (subject.name, " ".join(subject.plain_names), " ".join(subject.keywords))
    worst = 0
    for word in words:
        places = [
            index
            for index, text in enumerate(fields)
            if any(other.startswith(word) for other in text.split())
        ]
        if not places:
            return None
        worst = max(worst, places[0])
    text = " ".join(words)
    exact = text in (subject.name, *subject.plain_names)
    return (0 if exact else worst + 1, 0 if not words or fields[0].startswith(text) else 1)
