"""Recipes and grids that need a version of an adapter, as sentences for whoever deletes it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.renders.grids.cells import STACK
from app.registry.tables.renders import Grid, Recipe
from app.registry.wording import join_words, plural

MOST_NAMES = 3


def dependents_of(session: Session, adapter_id: int, number: int | None = None) -> list[str]:
    """Sentences on the recipes and grids that use this version of an adapter, or any; or none."""
    recipes = [recipe.name for recipe in _recipes(session, adapter_id, number)]
    grids = [grid.title for grid in _grids(session, adapter_id, number)]
    found = []
    if recipes:
        is_all = number is None
        then = "it is left out there" if is_all else "the version in use takes its place there"
        found.append(f"{_subject_words('recipe', recipes)} it; {then}.")
    if grids:
        found.append(
            f"{_subject_words('grid', grids)} it: images that are not there yet cannot be made."
        )
    return found


def _subject_words(word: str, names: Sequence[str]) -> str:
    """“The recipe “Soft” uses”, or “The recipes “Soft”, “Hard” and 4 more use”."""
    shown = [f"“{name}”" for name in names[:MOST_NAMES]]
    if more := len(names) - len(shown):
        shown.append(f"{more:,} more")
    words = plural(len(names), word).partition(" ")[2]
    return f"The {words} {join_words(shown)} {'uses' if len(names) == 1 else 'use'}"


def _recipes(session: Session, adapter_id: int, number: int | None) -> Iterator[Recipe]:
    """The recipes with a version, unless they find it by an alias: then it cannot be deleted."""
    named = sa.cast(col(Recipe.adapters), sa.Text).contains(f'"adapter_id": {adapter_id}')
    for recipe in session.exec(select(Recipe).where(named, col(Recipe.deleted_at).is_(None))):
        used = [one for one in recipe.stack if one.adapter_id == adapter_id]
        if number is not None:
            used = [one for one in used if one.version == number and one.alias is None]
        if used:
            yield recipe


def _grids(session: Session, adapter_id: int, number: int | None) -> Iterator[Grid]:
    texts = [sa.cast(column, sa.Text) for column in (col(Grid.request), col(Grid.axes))]
    named = sa.or_(*(text.contains(f'"adapter_id": {adapter_id}') for text in texts))
    for grid in session.exec(select(Grid).where(named, col(Grid.deleted_at).is_(None))):
        if any(
            number is None or used.get("version") == number
            for used in _entries([*grid.request["adapters"], *grid.axes])
            if used.get("adapter_id") == adapter_id
        ):
            yield grid


def _entries(values: Collection[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The adapters of a request, and those that its axes name."""
    for value in values:
        if "adapter_id" in value:
            yield value
        for one in value.get("values", ()):
            if isinstance(one["value"], dict):
                yield from one["value"].get(STACK, [one["value"]])
