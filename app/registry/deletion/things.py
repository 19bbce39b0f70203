"""What is deleted and can be restored, listed by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import object_session
from sqlmodel import Session, col, func, select

from app.registry.actor import Role
from app.registry.adapters.library.cards import summarize
from app.registry.datasets.used_datasets import count_runs
from app.registry.deletion.lists import count_deleted, deleted_rows
from app.registry.paging import Page
from app.registry.renders.grids.views import grid_rows
from app.registry.renders.recipes.service import find_covers
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library, is_listed
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.owned import may_edit, may_own, principal_of, thing_of
from app.registry.tables.prompt_sets import PromptSet
from app.registry.tables.renders import Grid, Recipe
from app.registry.tables.runs import OwnPreset, Run, Sweep
from app.registry.wording import plural


class DeletedKind(StrEnum):
    """A kind of deleted things that are listed together; checkpoints count as versions."""

    RUNS = "runs"
    VERSIONS = "versions"
    ADAPTERS = "adapters"
    DATASETS = "datasets"
    GRIDS = "grids"
    BLIND_TESTS = "blind_tests"
    RECIPES = "recipes"
    PRESETS = "presets"
    PROMPT_SETS = "prompt_sets"
    SWEEPS = "sweeps"


@dataclass(frozen=True)
class DeletedThing:
    """Something that is deleted.

    `name`: of it, or of what it is a version of; `place`: the end of its addresses; `cover`: one of
    its images; `may_restore`, `may_delete`: whether the person of the session may.
    """

    id: int
    name: str
    about: str
    place: str
    deleted_at: datetime
    cover: str | None = None
    may_restore: bool = True
    may_delete: bool = True


Describe = Callable[[Session, Sequence[Any]], list[DeletedThing]]


def list_things(session: Session, kind: DeletedKind, **part: Any) -> Page[DeletedThing]:
    """The deleted things of a kind, the last deleted first; `part`: as of `deleted_rows`."""
    table, conditions, describe = KINDS[kind]
    found = deleted_rows(session, table, *conditions, **part)
    return found.of(describe(session, found.items))


def count_things(session: Session) -> dict[DeletedKind, int]:
    """The number of deleted things of each kind."""
    return {
        kind: count_deleted(session, table, *conditions)
        for kind, (table, conditions, _) in KINDS.items()
    }


def title_of(session: Session, row: Any) -> str:
    """The title of a row that was deleted or restored: “Chalk”, Version 2 of “Chalk”."""
    version = row.version if isinstance(row, RunCheckpoint) else row
    if not isinstance(version, AdapterVersion):
        return f"“{_name(row)}”"
    adapter = session.get_one(Adapter, version.adapter_id)
    return f"{adapter.version_label(version.version).capitalize()} of “{adapter.name}”"


def list_images(session: Session, dataset: Dataset, *, page: int = 1) -> Page[DeletedThing]:
    """The deleted images of a dataset, the last deleted first."""
    found = deleted_rows(session, Image, col(Image.dataset_id) == dataset.key, page=page)
    place = f"/datasets/{dataset.slug}/images"
    return found.of(
        [
            _thing(
                image,
                image.filename,
                f"{image.width} × {image.height}",
                place,
                cover=image.thumbnail_sha256,
            )
            for image in found.items
        ]
    )


def _thing(
    row: Any, name: str, about: str, place: str, *, number: int = 0, cover: str | None = None
) -> DeletedThing:
    address = f"{place}/{number or row.key}"
    return DeletedThing(row.key, name, about, address, row.deleted_at, cover, *_rights(row))


def _rights(row: Any) -> tuple[bool, bool]:
    """Whether the person of its session may restore a row, and delete it for good."""
    session: Any = object_session(row)
    principal = principal_of(session)
    if principal is None:
        return True, True
    if principal.role is Role.VIEWER:
        return False, False
    thing = thing_of(session, row)
    owns = may_own(principal, thing)
    return owns or (thing is not row and may_edit(session, principal, thing)), owns


def _name(row: Any) -> str:
    return str(row.title if isinstance(row, Grid | BlindTest | Sweep) else row.name)


def _named(place: str, about: Callable[[Any], str]) -> Describe:
    """Describes rows by their names."""
    return lambda session, rows: [_thing(row, _name(row), about(row), place) for row in rows]


def _grids(session: Session, rows: Sequence[Grid]) -> list[DeletedThing]:
    return [
        _thing(
            one.grid,
            one.grid.title,
            plural(one.cells, "image"),
            "/grids",
            cover=next((image.sha256 for image in one.images), None),
        )
        for one in grid_rows(session, rows)
    ]


def _recipes(session: Session, rows: Sequence[Recipe]) -> list[DeletedThing]:
    covers = find_covers(session, rows)
    return [_thing(row, row.name, "recipe", "/recipes", cover=covers.get(row.key)) for row in rows]


def _versions(session: Session, rows: Sequence[AdapterVersion]) -> list[DeletedThing]:
    things = []
    for row in rows:
        adapter = session.get_one(Adapter, row.adapter_id)
        place = f"/adapters/{adapter.key}/versions"
        if not adapter.is_listed:
            place = f"/runs/{adapter.run_id}/checkpoints"
        about = adapter.version_label(row.version)
        things.append(_thing(row, adapter.name, about, place, number=row.version))
    return things


def _adapters(session: Session, rows: Sequence[Adapter]) -> list[DeletedThing]:
    known = {row.adapter.key: row for row in summarize(session, rows)}
    things = []
    for row in rows:
        card = known.get(row.key)
        about = f"{row.family_label}, {plural(card.version_count if card else 0, 'version')}"
        cover = card.covers[0] if card and card.covers else None
        things.append(_thing(row, row.name, about, "/adapters", cover=cover))
    return things


def _datasets(session: Session, rows: Sequence[Dataset]) -> list[DeletedThing]:
    keys = [row.key for row in rows]
    of_dataset = col(Image.dataset_id)
    counted = select(of_dataset, func.count()).where(of_dataset.in_(keys)).group_by(of_dataset)
    images, runs = dict(session.exec(counted).all()), count_runs(session, keys)
    things = []
    for row in rows:
        about = plural(images.get(row.key, 0), "image")
        if number := runs.get(row.key):
            about += f", {plural(number, 'run')} trained on it"
        things.append(_thing(row, row.name, about, "/datasets"))
    return things


def _is_of_listed() -> sa.ColumnElement[bool]:
    """Condition for versions whose adapter is there, or the run whose checkpoints they are."""
    runs = select(Run.id).where(col(Run.deleted_at).is_(None))
    owners = select(Adapter.id).where(is_in_library() | col(Adapter.run_id).in_(runs))
    return col(AdapterVersion.adapter_id).in_(owners)


KINDS: dict[DeletedKind, tuple[type[Any], tuple[sa.ColumnElement[bool], ...], Describe]] = {
    DeletedKind.RUNS: (Run, (), _named("/runs", lambda run: f"run {run.key}")),
    DeletedKind.VERSIONS: (AdapterVersion, (_is_of_listed(),), _versions),
    DeletedKind.ADAPTERS: (Adapter, (is_listed(),), _adapters),
    DeletedKind.DATASETS: (Dataset, (), _datasets),
    DeletedKind.GRIDS: (Grid, (), _grids),
    DeletedKind.BLIND_TESTS: (BlindTest, (), _named("/blind-tests", lambda _: "blind test")),
    DeletedKind.RECIPES: (Recipe, (), _recipes),
    DeletedKind.PRESETS: (OwnPreset, (), _named("/presets", lambda _: "preset")),
    DeletedKind.PROMPT_SETS: (PromptSet, (), _named("/prompt-sets", lambda _: "prompt set")),
    DeletedKind.SWEEPS: (Sweep, (), _named("/sweeps", lambda _: "sweep")),
}
