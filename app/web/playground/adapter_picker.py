"""Adapters that the playground offers to add: the newest, or the results of a search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sized
from dataclasses import dataclass

from app.registry.adapters import fitting
from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import BaseKind
from app.registry.adapters.service import AdapterPage, AdapterSummary, Filter
from app.registry.adapters.versions.aliases import VersionNames, names_of
from app.registry.db import Session
from app.registry.errors import NotFound
from app.registry.tables.adapters import Adapter
from app.registry.wording import plural
from app.web.playground.adapter_rows import read_reference

MAX_WORDS = 200


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter to add, as a row of the picker; `names` only if it has several versions.

    `is_used`: it is in the stack, and only offered to the axes of a grid.
    """

    adapter: Adapter
    version: int
    cover: str | None
    names: VersionNames | None = None
    is_used: bool = False


@dataclass(frozen=True)
class AdapterChoices:
    """Adapters to choose from; `is_part`: there are more; `hint`: a summary of the list.

    `others` were also found, but do not fit the base model: each with that it was made for.
    """

    words: str
    adapters: list[AdapterChoice]
    others: list[tuple[AdapterChoice, str]]
    is_part: bool
    hint: str

    @property
    def all_used(self) -> bool:
        """True if there are adapters to choose from, and all of them are in the stack."""
        return bool(self.adapters) and all(choice.is_used for choice in self.adapters)


def find_adapter_choices(
    session: Session,
    words: str,
    *,
    used: Collection[str],
    base_kind: BaseKind | None = None,
    with_used: bool = False,
) -> AdapterChoices:
    """Search adapters, or list the newest without words; adapters in use are left out.

    `base_kind` is the kind of base model that they must fit. `with_used`: those in use are marked
    instead.
    """
    words = words.strip()[:MAX_WORDS]
    page = adapters.list_adapters(session, Filter(q=words))
    is_part = bool(words) or len(page.items) < page.total
    fits, others = _split_by_fit(session, page, base_kind)
    if base_kind and base_kind.family and is_part and not (words or fits):
        page = adapters.list_adapters(session, Filter(base=base_kind.family))
        fits, others = _split_by_fit(session, page, base_kind)
    if not with_used:
        fits = [item for item in fits if item.adapter.slug not in used]
    names = names_of(session, [item.adapter.key for item in fits if item.version_count > 1])
    shown = [_choice(item, names.get(item.adapter.key), used) for item in fits]
    unfit = [(_choice(item), kind.name) for item, kind in others if item.adapter.slug not in used]
    hint = _list_hint(words, page, shown, unfit) if is_part else ""
    return AdapterChoices(words, shown, unfit, is_part, hint)


def _split_by_fit(
    session: Session, page: AdapterPage, base_kind: BaseKind | None
) -> tuple[list[AdapterSummary], list[tuple[AdapterSummary, BaseKind]]]:
    """Split a page into adapters that fit and others, with the kind that these were made for."""
    if base_kind is None:
        return list(page.items), []
    kinds = fitting.kinds(session, [(item.adapter, item.version) for item in page.items])
    pairs = list(zip(page.items, kinds, strict=True))
    return (
        [item for item, kind in pairs if kind.fits(base_kind)],
        [(item, kind) for item, kind in pairs if not kind.fits(base_kind)],
    )


def _choice(
    item: AdapterSummary, names: VersionNames | None = None, used: Collection[str] = ()
) -> AdapterChoice:
    cover = next(iter(item.covers), None)
    is_used = item.adapter.slug in used
    return AdapterChoice(item.adapter, item.version.version, cover, names, is_used)


def _list_hint(words: str, page: AdapterPage, shown: list[AdapterChoice], others: Sized) -> str:
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


def with_exact(session: Session, change: Mapping[str, str]) -> Mapping[str, str]:
    """A change of the stack without scripts: what is searched is added if it is a reference.

    Such as `ink` or `ink@best`.
    """
    words = change.get("find", "").strip()
    if not words or change.get("add") or "drop" in change:
        return change
    try:
        adapters.adapter_by_slug(session, read_reference(words).slug)
    except NotFound:
        return change
    return {**change, "add": words}
