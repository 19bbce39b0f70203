"""What is deleted and can be restored, listed by kind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlmodel import Session, col, func, select

from app.registry.adapters.library.cards import summarize
from app.registry.datasets.used_datasets import count_runs
from app.registry.deletion.lists import deleted_rows
from app.registry.paging import Page
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library, is_listed
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.runs import OwnPreset, Run
from app.registry.wording import plural


class DeletedKind(StrEnum):
    """A kind of deleted things that are listed together; checkpoints count as versions."""

    RUNS = "runs"
    VERSIONS = "versions"
    ADAPTERS = "adapters"
    DATASETS = "datasets"
    PRESETS = "presets"


@dataclass(frozen=True)
class DeletedThing:
    """Something that is deleted.

    `name`: of it, or of what it is a version of; `place`: the end of its addresses; `cover`: one of
    its images.
    """

    name: str
    about: str
    place: str
    deleted_at: datetime | None
    cover: str | None = None


def list_things(
    session: Session, kind: DeletedKind, *, page: int | None = None
) -> Page[DeletedThing]:
    """A page of the deleted things of a kind, or all pages, the last deleted first."""
    return LISTS[kind](session, page)


def _runs(session: Session, page: int | None) -> Page[DeletedThing]:
    found = deleted_rows(session, Run, page)
    return found.of(
        [
            DeletedThing(run.name, f"run {run.key}", f"/runs/{run.key}", run.deleted_at)
            for run in found.items
        ]
    )


def _presets(session: Session, page: int | None) -> Page[DeletedThing]:
    found = deleted_rows(session, OwnPreset, page)
    return found.of(
        [
            DeletedThing(one.name, "preset", f"/presets/{one.key}", one.deleted_at)
            for one in found.items
        ]
    )


def _versions(session: Session, page: int | None) -> Page[DeletedThing]:
    runs = select(Run.id).where(col(Run.deleted_at).is_(None))
    owners = select(Adapter.id).where(is_in_library() | col(Adapter.run_id).in_(runs))
    is_of_them = col(AdapterVersion.adapter_id).in_(owners)
    found = deleted_rows(session, AdapterVersion, page, is_of_them)
    things = []
    for version in found.items:
        adapter = session.get_one(Adapter, version.adapter_id)
        place = f"/adapters/{adapter.key}/versions/{version.version}"
        if not adapter.is_listed:
            place = f"/runs/{adapter.run_id}/checkpoints/{version.version}"
        about = adapter.version_label(version.version)
        things.append(DeletedThing(adapter.name, about, place, version.deleted_at))
    return found.of(things)


def _adapters(session: Session, page: int | None) -> Page[DeletedThing]:
    found = deleted_rows(session, Adapter, page, is_listed())
    known = {row.adapter.key: row for row in summarize(session, found.items)}
    things = []
    for adapter in found.items:
        row = known.get(adapter.key)
        number = plural(row.version_count if row else 0, "version")
        about, place = f"{adapter.family_label}, {number}", f"/adapters/{adapter.key}"
        cover = row.covers[0] if row and row.covers else None
        things.append(DeletedThing(adapter.name, about, place, adapter.deleted_at, cover))
    return found.of(things)


def _datasets(session: Session, page: int | None) -> Page[DeletedThing]:
    found = deleted_rows(session, Dataset, page)
    keys = [row.key for row in found.items]
    of_dataset = col(Image.dataset_id)
    counted = select(of_dataset, func.count()).where(of_dataset.in_(keys)).group_by(of_dataset)
    images, runs = dict(session.exec(counted).all()), count_runs(session, keys)
    things = []
    for row in found.items:
        about = plural(images.get(row.key, 0), "image")
        if number := runs.get(row.key):
            about += f", {plural(number, 'run')} trained on it"
        things.append(DeletedThing(row.name, about, f"/datasets/{row.key}", row.deleted_at))
    return found.of(things)


LISTS = {
    DeletedKind.RUNS: _runs,
    DeletedKind.VERSIONS: _versions,
    DeletedKind.ADAPTERS: _adapters,
    DeletedKind.DATASETS: _datasets,
    DeletedKind.PRESETS: _presets,
}
