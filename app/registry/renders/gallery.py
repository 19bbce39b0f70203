"""The gallery: all finished renders, searched and filtered, in pages, each image once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from app.registry.adapters.library.search import needles, searched_lines
from app.registry.paging import Page, read_rows
from app.registry.renders.listing import ShownRender, first_images, is_listed, is_no_twin
from app.registry.slugs import id_of
from app.registry.tables.adapters import Adapter
from app.registry.tables.owned import hidden_rows
from app.registry.tables.renders import Render, RenderAdapter

IMAGES_A_PAGE = 48
CHOICES_SHOWN = 200  # of the newest adapters with renders


@dataclass(frozen=True)
class GalleryFilter:
    """Search and filters of the gallery; `deleted`: only what was deleted."""

    q: str = ""
    adapter: str = ""
    starred: bool = False
    deleted: bool = False

    @property
    def is_narrow(self) -> bool:
        """True if it leaves out renders that are not deleted."""
        return bool(self.q.strip() or self.adapter or self.starred)


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter to filter by; its label has its slug if another has its name."""

    slug: str
    label: str


def gallery_page(session: Session, filters: GalleryFilter, page: int = 1) -> Page[ShownRender]:
    """A page of finished renders, newest first; a render and its equals are one."""
    found = list_renders(session, filters, size=IMAGES_A_PAGE, number=page)
    images = first_images(session, found.items)
    return found.of([ShownRender(row, images[row.key]) for row in found.items if row.key in images])


def list_renders(
    session: Session,
    filters: GalleryFilter,
    *,
    size: int,
    number: int = 1,
    before: int | None = None,
) -> Page[Render]:
    """Finished renders under these filters, newest first; `before`: only those with a lower id."""
    conditions = _conditions(session, filters)
    return read_rows(session, Render, *conditions, size=size, number=number, before=before)


def has_deleted(session: Session) -> bool:
    """True if a render of the gallery was deleted."""
    query = select(Render.id).where(is_listed(deleted=True), is_no_twin())
    return session.exec(query.limit(1)).first() is not None


def adapter_choices(session: Session, chosen: str = "") -> list[AdapterChoice]:
    """The newest adapters with renders, by name, and the `chosen` one, given by its slug."""
    has_renders = sa.exists().where(col(RenderAdapter.adapter_id) == col(Adapter.id))
    is_other = col(Adapter.slug) != chosen
    query = select(Adapter).where(has_renders | sa.not_(is_other)).limit(CHOICES_SHOWN)
    rows = session.exec(query.order_by(is_other, col(Adapter.id).desc())).all()
    named = Counter(row.name for row in rows)
    choices = []
    for row in rows:
        marks = [row.slug] if named[row.name] > 1 else []
        marks += ["deleted"] if row.deleted_at else []
        label = f"{row.name} ({', '.join(marks)})" if marks else row.name
        choices.append(AdapterChoice(row.slug, label))
    if chosen and all(row.slug != chosen for row in rows):
        choices.append(AdapterChoice(chosen, f"{chosen} (unknown)"))
    return sorted(choices, key=lambda choice: (choice.label.casefold(), choice.slug))


def _conditions(session: Session, filters: GalleryFilter) -> list[ColumnElement[bool]]:
    conditions = [
        is_listed(deleted=filters.deleted),
        is_no_twin(),
        _is_newest_of_equals(deleted=filters.deleted),
        *_matches(session, filters.q),
    ]
    if filters.starred:
        conditions.append(col(Render.starred).is_(True))
    if filters.adapter:
        is_named = Adapter.slug == filters.adapter  # an older slug may be a number
        key = session.exec(select(Adapter.id).where(is_named)).first()
        conditions.append(_uses_adapters([key or id_of(session, Adapter, filters.adapter)]))
    return conditions


def _is_newest_of_equals(*, deleted: bool) -> ColumnElement[bool]:
    """Condition for renders without a newer one that has the same images."""
    newer = aliased(Render)
    return ~(
        select(1)
        .where(
            col(newer.cache_key) == col(Render.cache_key),
            col(newer.owner_id) == col(Render.owner_id),
            col(newer.id) > col(Render.id),
            col(newer.precision).is_not_distinct_from(col(Render.precision)),
            is_listed(newer, deleted=deleted),
            is_no_twin(newer),
        )
        .exists()
    )


def _matches(session: Session, query: str) -> list[ColumnElement[bool]]:
    """A condition per word of a search: the prompt or an adapter of the render has it.

    Of adapters: the name, the slug and the trigger words, as they are now and as the render has
    them; a render with an adapter that is hidden is found by its prompt alone.
    """
    words = needles(query)
    if not words:
        return [sa.false()] if query.strip() else []
    texts, hidden = _adapter_texts(session), hidden_rows(session, Adapter, "id")
    conditions = []
    for word in words:
        found: ColumnElement[bool] = col(Render.search_text).contains(word, autoescape=True)
        if hidden is not None:
            in_prompt = col(Render.prompt).icontains(word, autoescape=True)
            found = (found & ~_uses_adapters(hidden)) | in_prompt
        if keys := [key for key, text in texts.items() if word in text]:
            found |= _uses_adapters(keys)
        conditions.append(found)
    return conditions


def _adapter_texts(session: Session) -> dict[int, str]:
    """The searched texts of the adapters with renders, by id."""
    has_renders = sa.exists().where(col(RenderAdapter.adapter_id) == col(Adapter.id))
    columns: list[Any] = [Adapter.id, Adapter.name, Adapter.slug, Adapter.trigger_words]
    rows = session.exec(select(*columns).where(has_renders))
    return {row.id: searched_lines([row.name, row.slug, *row.trigger_words]) for row in rows}


def _uses_adapters(adapter_ids: Sequence[int] | sa.Select[Any]) -> ColumnElement[bool]:
    """Condition for renders with one of these adapters."""
    is_used = col(RenderAdapter.adapter_id).in_(adapter_ids)
    links = sa.select(col(RenderAdapter.render_id)).where(is_used)
    return col(Render.id).in_(links)
