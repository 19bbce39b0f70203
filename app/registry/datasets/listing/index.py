"""The part of a listing that SQL cannot find: near-duplicates, long and same captions, two orders.

These orders are by name and by likeness.

Each is computed once for a state of the dataset and kept in the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.listing.caption_words import parts_of, words_of, words_without_trigger
from app.registry.datasets.listing.kept import KeptResults
from app.registry.datasets.listing.piles import piles
from app.registry.datasets.measures import MEASURED
from app.registry.datasets.several_captions import read_texts
from app.registry.datasets.training_side import tokens_of
from app.registry.tables.datasets import Dataset, Image, ImageCaption, ImageMeasure, is_live

COMPARED_TEXTS = 10_000  # captions whose words are kept, some hundred bytes each
_DIGITS = re.compile(r"([0-9]{1,18})")


@dataclass(frozen=True)
class State:
    """Equal for as long as nothing changes that the index depends on; `count`: of live images."""

    count: int
    images: tuple[Any, ...]
    captions: tuple[Any, ...]
    shares: int  # of the first captions
    trigger_word: str | None

    def of(self, kept: KeptResults[int, Any]) -> object:
        """The part of the state that this result depends on."""
        if kept is same_captions:
            return (self.captions, self.trigger_word)
        return self.captions if kept is long_captions else self.images


def state_columns(dataset_id: int) -> list[sa.ColumnElement[Any]]:
    """Aggregates over the live images of a dataset, their measures and captions."""
    key = sa.cast(col(Image.id), sa.BigInteger)
    aside = sa.case((col(Image.set_aside), key), else_=0)
    further = sa.cast(col(ImageCaption.id), sa.BigInteger)
    return [
        sa.func.count(),
        sa.func.sum(key),
        sa.func.sum(key * key),
        sa.func.sum(aside),
        sa.func.sum(aside * aside),
        sa.func.sum(col(ImageMeasure.measure_version)),
        sa.func.sum(key * col(Image.caption_version)),
        sa.func.sum(key * col(Image.caption_share)),
        _sum_of_further(dataset_id, further),
        _sum_of_further(dataset_id, further * col(ImageCaption.version)),
    ]


def read_state(
    values: Sequence[Any], created_at: datetime, base: str | None, trigger_word: str | None
) -> State:
    """The state from the values of `state_columns`.

    `created_at`: of the dataset, as a database put in place of another one has the same ids.
    `base`: the base model whose tokens are counted.
    """
    *images, captions, shares, further, versions = (int(value or 0) for value in values)
    of_captions = (created_at, *images[:3], captions, further, versions, base)
    return State(images[0], (created_at, *images), of_captions, shares, trigger_word)


def _sum_of_further(dataset_id: int, value: Any) -> sa.ColumnElement[Any]:
    """The sum over the captions after the first one."""
    further = select(sa.func.sum(value)).select_from(ImageCaption)
    query = further.join(Image, col(ImageCaption.image_id) == col(Image.id))
    return query.where(is_live(dataset_id)).correlate(None).scalar_subquery()


def _hashes(session: Session, dataset_id: int, *, trained_only: bool) -> dict[int, int]:
    """The perceptual hashes of the live images that have one, the largest image first."""
    query = (
        select(col(Image.id), col(ImageMeasure.perceptual_hash))
        .join(ImageMeasure, MEASURED)
        .where(
            is_live(dataset_id),
            col(ImageMeasure.perceptual_hash).is_not(None),
        )
        .order_by((col(Image.width) * col(Image.height)).desc(), col(Image.id))
    )
    if trained_only:
        query = query.where(col(Image.set_aside).is_(False))
    return {key or 0: int(digits or "", 16) for key, digits in session.exec(query)}


def _near_duplicates(session: Session, dataset_id: int) -> frozenset[int]:
    """Images in a pile of near-duplicates; those set aside do not count."""
    trained = _hashes(session, dataset_id, trained_only=True)
    found = piles(trained, best_first=list(trained))
    return frozenset(key for pile in found for key in pile)


def _long_captions(session: Session, dataset_id: int) -> frozenset[int]:
    """Images of which a caption has more tokens than the base model reads."""
    tokens = tokens_of(session, dataset_id)
    # a token has a byte at least, and a character 4 bytes at most
    texts = read_texts(session, dataset_id, longer_than=tokens.limit // 4)
    return frozenset(key for key, caption in texts if tokens.is_too_long(caption))


def _same_captions(session: Session, dataset_id: int) -> frozenset[int]:
    """Images with a caption that another image has too, as the checks compare them."""
    trigger = words_of(session.get_one(Dataset, dataset_id).trigger_word or "")
    images: dict[str, set[int]] = {}
    for key, caption in read_texts(session, dataset_id):
        if words := _compared(caption, trigger):
            images.setdefault(words, set()).add(key)
    return frozenset(key for same in images.values() if len(same) > 1 for key in same)


@lru_cache(COMPARED_TEXTS)
def _compared(caption: str, trigger: tuple[str, ...]) -> str:
    """The words of a caption that count: of 5,000, a person changes one at a time."""
    return " ".join(words_without_trigger(parts_of(caption, trigger)))


def _all_hashes(session: Session, dataset_id: int) -> dict[int, int]:
    """The perceptual hashes of the live images that have one, oldest image first."""
    return dict(sorted(_hashes(session, dataset_id, trained_only=False).items()))


def _by_likeness(session: Session, dataset_id: int) -> list[int]:
    """A chain in which each image is followed by the one most like it that is left."""
    return nearest_chain(_all_hashes(session, dataset_id))


def nearest_chain(hashes: Mapping[int, int]) -> list[int]:
    """The keys, each followed by the one whose hash differs least of those that are left."""
    import numpy as np  # pages without this order need not load it

    if not hashes:
        return []
    keys, values = list(hashes), np.array(list(hashes.values()), dtype=np.uint64)
    is_left = np.ones(len(keys), dtype=bool)
    place, chain = 0, []
    while True:
        chain.append(keys[place])
        is_left[place] = False
        if len(chain) == len(keys):
            return chain
        distances = np.bitwise_count(values ^ values[place])
        place = int(np.where(is_left, distances, np.uint8(255)).argmin())


def _by_name(session: Session, dataset_id: int) -> list[int]:
    rows: Any = session.exec(select(Image.id, Image.filename).where(is_live(dataset_id)))
    return [key for key, name in sorted(rows, key=lambda row: (natural_key(row[1]), row[0]))]


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people do: “2.png” before “10.png”, capitals beside small ones."""
    parts = _DIGITS.split(name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


hashes = KeptResults(_all_hashes)
near_duplicates = KeptResults(_near_duplicates)
long_captions = KeptResults(_long_captions)
same_captions = KeptResults(_same_captions)
by_likeness = KeptResults(_by_likeness)
by_name = KeptResults(_by_name)
