"""The filters of images as conditions in SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.caption_words import has_words
from app.registry.datasets.filters import ImageFilter, Show
from app.registry.datasets.measures.thresholds import BLURRY_BELOW, ELONGATED_ABOVE
from app.registry.datasets.models import (
    CaptionRevision,
    CaptionSource,
    Dataset,
    Image,
    ImageMeasure,
)
from app.registry.datasets.training_side import training_side

Condition = sa.ColumnElement[bool]

short_side = sa.case(
    (col(Image.width) < col(Image.height), col(Image.width)), else_=col(Image.height)
)
long_side = sa.case(
    (col(Image.width) < col(Image.height), col(Image.height)), else_=col(Image.width)
)


@dataclass(frozen=True)
class Scope:
    """What the conditions depend on: the dataset's images, its trigger word, its training size."""

    dataset_id: int
    trigger_word: str | None
    training_side: int

    @property
    def live(self) -> Condition:
        """Condition: an image of the dataset that is not deleted."""
        return (col(Image.dataset_id) == self.dataset_id) & col(Image.deleted_at).is_(None)


def scope_of(session: Session, dataset: Dataset) -> Scope:
    """What the conditions on images of this dataset depend on."""
    side = training_side(session, dataset.key).pixels
    return Scope(dataset.key, dataset.trigger_word, side)


def conditions_of(wanted: ImageFilter, scope: Scope) -> list[Condition]:
    """The filter as conditions, all of which have to hold; without those that SQL cannot check."""
    caption = col(Image.caption)
    found = [scope.live]
    found += [condition_of(kind, scope) for kind in Show if kind in wanted.show & IN_SQL]
    found += [has_words(caption, words) for words in wanted.with_words]
    found += [~has_words(caption, words) for words in wanted.without_words]
    if wanted.q:
        found.append(
            caption.icontains(wanted.q, autoescape=True)
            | col(Image.filename).icontains(wanted.q, autoescape=True)
        )
    return found


def condition_of(kind: Show, scope: Scope) -> Condition:
    """A filter as a condition on images that are outer-joined with their measures."""
    return _CONDITIONS[kind](scope)


def _is_uncaptioned(_: Scope) -> Condition:
    return col(Image.caption) == ""


def _lacks_trigger(scope: Scope) -> Condition:
    if not scope.trigger_word:
        return sa.false()
    return ~has_words(col(Image.caption), scope.trigger_word)


def _repeats_caption(scope: Scope) -> Condition:
    caption = sa.func.lower(col(Image.caption))
    repeated = (
        sa.select(caption)
        .where(scope.live, col(Image.caption) != "")
        .group_by(caption)
        .having(sa.func.count() > 1)
    )
    return caption.in_(repeated)


def _is_small(scope: Scope) -> Condition:
    return short_side < scope.training_side


def _is_blurry(_: Scope) -> Condition:
    return col(ImageMeasure.sharpness) < BLURRY_BELOW


def _is_elongated(_: Scope) -> Condition:
    return long_side > ELONGATED_ABOVE * short_side


def _is_transparent(_: Scope) -> Condition:
    return col(ImageMeasure.has_transparency).is_(True)


def _is_set_aside(_: Scope) -> Condition:
    return col(Image.set_aside).is_(True)


def _is_from_provider(scope: Scope) -> Condition:
    """The caption as it is now was written by a provider."""
    now = (
        (col(CaptionRevision.image_id) == col(Image.id))
        & (col(CaptionRevision.kind) == col(Image.caption_kind))
        & (col(CaptionRevision.version) == col(Image.caption_version))
    )
    written = (
        select(Image.id)
        .join(CaptionRevision, now)
        .where(scope.live, CaptionRevision.source == CaptionSource.PROVIDER)
    )
    return col(Image.id).in_(written)


def _is_unmeasured(_: Scope) -> Condition:
    return col(ImageMeasure.clean_sha256).is_(None)


_CONDITIONS: dict[Show, Callable[[Scope], Condition]] = {
    Show.UNCAPTIONED: _is_uncaptioned,
    Show.NO_TRIGGER: _lacks_trigger,
    Show.SAME_CAPTION: _repeats_caption,
    Show.SMALL: _is_small,
    Show.BLURRY: _is_blurry,
    Show.ELONGATED: _is_elongated,
    Show.TRANSPARENT: _is_transparent,
    Show.SET_ASIDE: _is_set_aside,
    Show.PROVIDER: _is_from_provider,
    Show.UNMEASURED: _is_unmeasured,
}
IN_SQL = frozenset(_CONDITIONS)
"""The filters that SQL can check; `listing.index` finds the others."""
