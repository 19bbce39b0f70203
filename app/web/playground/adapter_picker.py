"""Adapters that the playground offers to add: the newest, or the results of a search."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from app.registry.adapters import fitting
from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import BaseKind
from app.registry.adapters.models import Adapter
from app.registry.adapters.service import AdapterPage, Filter
from app.registry.db import Session
from app.registry.errors import NotFound
from app.registry.wording import plural
from app.web.playground.forms import read_reference

MAX_WORDS = 200


@dataclass(frozen=True)
class UnfitAdapter:
    """An adapter that does not fit the base model, and the base model it was made for."""

    adapter: Adapter
    made_for: str


@dataclass(frozen=True)
class AdapterChoices:
    """Adapters to choose from; `is_part`: there are more; `hint`: a summary of the list.

    `others` were also found, but do not fit the base model.
    """

    words: str
    adapters: list[Adapter]
    others: list[UnfitAdapter]
    is_part: bool
    hint: str


def find_adapter_choices(
    session: Session, words: str, *, used: Collection[str], base_kind: BaseKind | None = None
) -> AdapterChoices:
    """Search adapters, or list the newest without words; adapters in use are left out.

    `base_kind` is the kind of base model that they must fit.
    """
    words = words.strip()[:MAX_WORDS]
    page = adapters.list_adapters(session, Filter(q=words))
    is_part = bool(words) or len(page.items) < page.total
    fits, others = _split_by_fit(session, page, base_kind)
    if base_kind and base_kind.family and is_part and not (words or fits):
        page = adapters.list_adapters(session, Filter(base=base_kind.family))
        fits, others = _split_by_fit(session, page, base_kind)
    shown = [adapter for adapter in fits if adapter.slug not in used]
    others = [other for other in others if other.adapter.slug not in used]
    hint = _list_hint(words, page, shown, others) if is_part else ""
    return AdapterChoices(words, shown, others, is_part, hint)


def _split_by_fit(
    session: Session, page: AdapterPage, base_kind: BaseKind | None
) -> tuple[list[Adapter], list[UnfitAdapter]]:
    """Split a page into adapters that fit and others."""
    if base_kind is None:
        return [item.adapter for item in page.items], []
    kinds = fitting.kinds(session, [(item.adapter, item.version) for item in page.items])
    pairs = list(zip(page.items, kinds, strict=True))
    return (
        [item.adapter for item, kind in pairs if kind.fits(base_kind)],
        [UnfitAdapter(item.adapter, kind.name) for item, kind in pairs if not kind.fits(base_kind)],
    )


def _list_hint(
    words: str, page: AdapterPage, shown: list[Adapter], others: list[UnfitAdapter]
) -> str:
    if not page.items:
        return f"No adapter has “{words}” in its name, trigger words, tags or notes."
    if not shown and not others:
        return "All results are already in use."
    if len(page.items) < page.total:
        newest = f"The {len(page.items)} newest."
        return (
            f"{newest} Type more to narrow the search." if words else f"{newest} Search for others."
        )
    if not others:
        return f"{plural(len(shown), 'adapter')} found."
    return f"{plural(len(shown), 'adapter')} found for this base model, {len(others)} for others."


def is_exact(session: Session, words: str) -> bool:
    """True if the words are a reference to an adapter, such as `ink` or `ink@best`."""
    try:
        adapters.adapter_by_slug(session, read_reference(words).slug)
    except NotFound:
        return False
    return True
