"""Subjects that a dataset shows and lacks, by the words of its captions and the measured grounds.

Captions are looked up word by word in lists of common nouns; no image is looked at, so this is
advice. Where too few captions have a known noun, nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

from app.registry.datasets.checks.caption_lint import ReadCaption
from app.registry.datasets.checks.findings import Check, Finding, Severity
from app.registry.datasets.checks.reading import CheckedImage
from app.registry.datasets.checks.style_phrases import singular
from app.registry.wording import join_words, plural
from worker.core.starter.subjects import known_subjects

KEPT_WORDS = 20_000  # whose kind is kept
MIN_KNOWN = 10  # captions with a known noun
KNOWN_SHARE = 0.5  # of all captions
KINDS = ("people", "animals", "plants", "food", "buildings", "vehicles", "landscapes", "things")

PEOPLE = """
    artist baby boy bride child couple crowd dancer doctor face family farmer father girl guy hand
    kid king knight lady man mother musician people person player police portrait prince princess
    queen sailor soldier student teacher teen toddler wizard woman worker
"""
PLANTS = """
    bamboo bonsai bouquet branch bush cactus clover daisy fern flower grass hedge ivy leaf leaves
    lily lotus mushroom oak orchid palm pine plant rose seedling sunflower tree tulip vine
"""
BUILDINGS = """
    apartment barn bridge building cabin castle cathedral chapel church cottage factory farmhouse
    fort garage greenhouse hospital hotel house hut lighthouse mansion mill mosque museum office
    pagoda palace ruin school shed shop shrine skyscraper stadium station store synagogue temple
    tent tower villa warehouse windmill
"""
VEHICLES = """
    aeroplane airplane ambulance automobile balloon bicycle bike boat bus cable canoe car carriage
    cart ferry helicopter jeep kayak limousine locomotive lorry metro moped motorbike motorcycle
    motorboat plane rocket sailboat scooter ship sled sleigh spaceship speedboat submarine tank taxi
    tractor train tram truck van vehicle yacht
"""
LANDSCAPES = """
    alley beach canyon city cityscape cliff cloud coast countryside desert dune field forest garden
    glacier harbor harbour hill horizon island jungle lake landscape meadow moor mountain ocean park
    path pond river road sea seascape shore skyline square street sunrise sunset swamp town valley
    village volcano waterfall wood woods
"""
FRAMINGS = (
    "close up", "closeup", "portrait", "upper body", "full body", "wide shot", "from above",
    "from below", "from behind", "from the side", "side view", "front view", "profile",
)  # fmt: skip


def coverage(
    captions: Sequence[ReadCaption], images: Sequence[CheckedImage], *, one_subject: bool = False
) -> Finding | None:
    """The subjects that no caption names and those that some name; None if captions do not tell."""
    shown: Counter[str] = Counter()
    known = 0
    for caption in captions:
        kinds = _kinds_of(caption)
        shown.update(kinds)
        known += bool(kinds)
    if one_subject or known < MIN_KNOWN or known < KNOWN_SHARE * len(captions):
        return None
    absent = [kind for kind in KINDS if not shown[kind] and kind != "things"]
    if not absent:
        return None
    named = [f"{kind} {shown[kind]:,}" for kind in KINDS if shown[kind]]
    details = [f"Captions that name {', '.join(named)}.", _framing(captions)]
    if (grounds := _grounds(images)) is not None:
        details.append(grounds)
    return Finding(
        Check.COVERAGE,
        Severity.ADVICE,
        f"No caption names {join_words(absent).replace(' and ', ' or ')}",
        "A style works best on what its images show: to draw these as well, add some. Only the "
        "words of captions were looked up, not the images.",
        details=tuple(details),
    )


def _kinds_of(caption: ReadCaption) -> set[str]:
    found: set[str | None] = set()
    for part, styles in zip(caption.parts, caption.styles, strict=True):
        found.update(
            _kind_of(word)
            for place, word in enumerate(part.words)
            if not styles or not any(start <= place < end for start, end in styles)
        )
    return {kind for kind in found if kind}


@lru_cache(KEPT_WORDS)
def _kind_of(word: str) -> str | None:
    """The kind of a noun, in singular or plural."""
    return _kind_by_word().get(word) or _kind_by_word().get(singular(word))


def _framing(captions: Sequence[ReadCaption]) -> str:
    counted: Counter[str] = Counter()
    for caption in captions:
        text = " , ".join(" ".join(part.words) for part in caption.parts)
        counted.update(name for name in FRAMINGS if f" {name} " in f" {text} ")
    if not counted:
        return "Framing: no caption says how close or from where."
    return "Framing: " + ", ".join(f"{name} {count:,}" for name, count in counted.most_common())


def _grounds(images: Sequence[CheckedImage]) -> str | None:
    measured = [image for image in images if image.is_measured]
    if not measured:
        return None
    plain = sum(image.ground is not None for image in measured)
    return f"Backgrounds: plain in {plain:,} of {plural(len(measured), 'image')}."


@cache
def _kind_by_word() -> dict[str, str]:
    """The kind that a noun in singular belongs to; lists of kinds win over the embedded names."""
    groups = {
        "animals-nature": "animals",
        "food-drink": "food",
        "activities": "things",
        "objects": "things",
    }
    found = {
        name: groups[subject.group]
        for subject in known_subjects()
        if subject.group in groups
        for name in (subject.name, *subject.plain_names)
        if " " not in name
    }
    lists = {
        "landscapes": LANDSCAPES,
        "plants": PLANTS,
        "buildings": BUILDINGS,
        "vehicles": VEHICLES,
        "people": PEOPLE,
    }
    for kind, words in lists.items():
        found |= dict.fromkeys(words.split(), kind)
    return found | {"animal": "animals", "bird": "animals", "fish": "animals", "fruit": "food"}
