"""The filters of images as conditions in SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.caption_words import has_words
from app.registry.datasets.filters import ImageFilter, Show
from app.registry.datasets.measures import BLURRY_BELOW, ELONGATED_ABOVE
from app.registry.datasets.several_captions import has_several_captions
from app.registry.datasets.training_side import training_side
from app.registry.tables.datasets import (
    CaptionRevision,
    CaptionSource,
    Dataset,
    Image,
    ImageCaption,
    ImageMeasure,
    is_live,
)
from worker.core.captioning.file_names import TITLE as FILE_NAMES

Condition = sa.ColumnElement[bool]

short_side = sa.case(
    (col(Image.width) < col(Image.height), col(Image.width)), else_=col(Image.height)
)
long_side = sa.case(
    (col(Image.width) < col(Image.height), col(Image.height)), else_=col(Image.width)
)


@dataclass(frozen=True)
class Scope:
    """The inputs of the conditions: the dataset's images, its trigger word, its training size.

    `has_several`: an image has more than one caption, which costs the conditions a look at these.
    """

    dataset_id: int
    trigger_word: str | None
    training_side: int
    has_several: bool = True

    @property
    def live(self) -> Condition:
        """Condition: an image of the dataset that is not deleted."""
        return is_live(self.dataset_id)


def scope_of(session: Session, dataset: Dataset) -> Scope:
    """The inputs of the conditions on images of this dataset."""
    side = training_side(session, dataset.key).pixels
    several = has_several_captions(session, dataset.key)
    return Scope(dataset.key, dataset.trigger_word, side, several)


def conditions_of(wanted: ImageFilter, scope: Scope) -> list[Condition]:
    """The filter as conditions, all of which have to hold; without those that SQL cannot check.

    A word is in an image's captions if one of them contains it.
    """
    found = [scope.live]
    found += [condition_of(kind, scope) for kind in Show if kind in wanted.show & IN_SQL]
    found += [_contains(scope, words) for words in wanted.with_words]
    found += [~_contains(scope, words) for words in wanted.without_words]
    if wanted.q:
        found.append(
            any_caption(scope, lambda caption: caption.icontains(wanted.q, autoescape=True))
            | col(Image.filename).icontains(wanted.q, autoescape=True)
        )
    return found


def any_caption(scope: Scope, holds: Callable[[Any], Condition]) -> Condition:
    """Condition on an image: this holds for one of its captions, the first or a further one."""
    if not scope.has_several:
        return holds(col(Image.caption))
    further = further_captions_of(scope, col(ImageCaption.image_id))
    return holds(col(Image.caption)) | col(Image.id).in_(
        further.where(holds(col(ImageCaption.caption)))
    )


def further_captions_of(scope: Scope, *columns: Any) -> sa.Select[Any]:
    """A query of the captions after the first one of the dataset's images."""
    of_image = col(ImageCaption.image_id) == col(Image.id)
    return sa.select(*columns).select_from(ImageCaption).join(Image, of_image).where(scope.live)


def _contains(scope: Scope, words: str) -> Condition:
    return any_caption(scope, lambda caption: has_words(caption, words))


def condition_of(kind: Show, scope: Scope) -> Condition:
    """A filter as a condition on images that are outer-joined with their measures."""
    return _CONDITIONS[kind](scope)


def _is_uncaptioned(scope: Scope) -> Condition:
    return ~any_caption(scope, lambda caption: caption != "")


def _lacks_trigger(scope: Scope) -> Condition:
    """No caption, or one that lacks the trigger word: training uses each of them."""
    word = scope.trigger_word
    if not word:
        return sa.false()
    lacking = any_caption(scope, lambda caption: (caption != "") & ~has_words(caption, word))
    return lacking | _is_uncaptioned(scope)


def _is_from_provider(scope: Scope) -> Condition:
    """A caption as it is now was written by a provider that looked at the image."""
    now = (
        (col(CaptionRevision.image_id) == col(Image.id))
        & (col(CaptionRevision.kind) == col(Image.caption_kind))
        & (col(CaptionRevision.version) == col(Image.caption_version))
    )
    by_provider = (col(CaptionRevision.source) == CaptionSource.PROVIDER) & col(
        CaptionRevision.source_name
    ).is_distinct_from(FILE_NAMES)
    first = select(Image.id).join(CaptionRevision, now).where(scope.live, by_provider)
    if not scope.has_several:
        return col(Image.id).in_(first)
    further = further_captions_of(scope, col(ImageCaption.image_id)).where(
        sa.exists().where(
            col(CaptionRevision.image_id) == col(ImageCaption.image_id),
            col(CaptionRevision.kind) == col(ImageCaption.kind),
            col(CaptionRevision.version) == col(ImageCaption.version),
            by_provider,
        )
    )
    return col(Image.id).in_(first) | col(Image.id).in_(further)


_CONDITIONS: dict[Show, Callable[[Scope], Condition]] = {
    Show.UNCAPTIONED: _is_uncaptioned,
    Show.NO_TRIGGER: _lacks_trigger,
    Show.SMALL: lambda scope: short_side < scope.training_side,
    Show.BLURRY: lambda _: col(ImageMeasure.sharpness) < BLURRY_BELOW,
    Show.ELONGATED: lambda _: long_side > ELONGATED_ABOVE * short_side,
    Show.TRANSPARENT: lambda _: col(ImageMeasure.has_transparency).is_(True),
    Show.SET_ASIDE: lambda _: col(Image.set_aside).is_(True),
    Show.PROVIDER: _is_from_provider,
    Show.UNMEASURED: lambda _: col(ImageMeasure.clean_sha256).is_(None),
}
IN_SQL = frozenset(_CONDITIONS)
"""The filters that SQL can check; `listing.index` finds the others."""
