"""The list of runs: search, filters, sort orders, pages, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.adapters.library.search import needles, spaced
from app.registry.datasets.used_datasets import UsedDataset, is_of_datasets, used_of_runs
from app.registry.db import MAX_ID, database_now
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.quotas import waits_until
from app.registry.paging import Page
from app.registry.runs.epochs import Epochs, epochs_of_runs
from app.registry.runs.service import elapsed_seconds, queue_places
from app.registry.tables.adapters import Adapter, AdapterVersion, is_listed
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import Run, RunDataset, Sample, Sweep
from worker.core.words import Labeled

RUNS_A_PAGE = 30
SAMPLES_SHOWN = 5
CHOICES_SHOWN = 200  # of the newest datasets, base models or adapters with runs
STATUS_ORDER = (
    JobStatus.RUNNING,
    JobStatus.QUEUED,
    JobStatus.PAUSED,
    JobStatus.SUCCEEDED,
    JobStatus.FAILED,
    JobStatus.CANCELED,
)


NamedRow = TypeVar("NamedRow", Dataset, BaseModel, Adapter)
Row = TypeVar("Row", Dataset, BaseModel, Adapter, AdapterVersion, Run)


class RunSort(Labeled):
    """Sort orders of the list of runs; the newest first among equals."""

    NEWEST = "newest", "Newest first"
    OLDEST = "oldest", "Oldest first"
    NAME = "name", "Name, A to Z"
    NAME_DOWN = "name-down", "Name, Z to A"
    STATUS = "status", "State"
    LOSS = "loss", "Lowest loss"
    LONGEST = "longest", "Longest time"
    SHORTEST = "shortest", "Shortest time"


@dataclass(frozen=True)
class RunFilter:
    """Search, filters, sort order and page of the list of runs; all are part of the URL."""

    q: str = ""
    status: str = ""
    dataset_id: int | None = None
    base_model_id: int | None = None
    adapter_id: int | None = None
    sort: RunSort = RunSort.NEWEST
    page: int = 1
    sweep_id: int | None = None  # the runs of this one; None: all, each sweep as one row

    @property
    def is_narrow(self) -> bool:
        """True if it leaves out runs."""
        return bool(self.q or self.status or self.places)

    @property
    def places(self) -> dict[str, int]:
        """The ids to filter by, such as that of a dataset, by the name of the filter."""
        ids = {
            "dataset_id": self.dataset_id,
            "base_model_id": self.base_model_id,
            "adapter_id": self.adapter_id,
            "sweep_id": self.sweep_id,
        }
        return {name: key for name, key in ids.items() if key is not None}


@dataclass(frozen=True)
class SweepInList:
    """A sweep that is one row of the list: its runs by status; `place`: of the next one."""

    id: int
    title: str
    counts: dict[str, int]
    place: int | None


@dataclass(frozen=True)
class RunRow:
    """A run of the list, with what it was trained on and made.

    `samples`: those of its newest step, by prompt. `place`: in the queue, from 1; None if it does
    not wait. `seconds`: since its start until its end or now; None before the start. `sweep`: the
    row stands for all runs of this sweep, of which it has the newest. `device_time_at`: when its
    owner has device time again, for which it waits.
    """

    run: Run
    datasets: list[UsedDataset]
    base: BaseModel | None
    adapter: Adapter | None
    version: AdapterVersion | None
    samples: list[Sample]
    epochs: Epochs
    place: int | None
    seconds: float | None
    sweep: SweepInList | None = None
    device_time_at: datetime | None = None

    @property
    def waits_for(self) -> str | None:
        """What it waits for, besides others, as a sentence."""
        if self.device_time_at is None:
            return self.run.waits_for
        until = f"{self.device_time_at:%Y-%m-%d %H:%M} UTC"
        return f"The device time of its owner is used up until {until}."

    @property
    def rank(self) -> float | None:
        """The rank of its adapter; None if its settings are damaged."""
        return self._number("rank")

    @property
    def learning_rate(self) -> float | None:
        """Its learning rate; None if its settings are damaged."""
        return self._number("learning_rate")

    def _number(self, setting: str) -> float | None:
        value = self.run.config.get(setting)
        return value if isinstance(value, int | float) else None


@dataclass(frozen=True)
class RunPage(Page[RunRow]):
    """One page of the list.

    `counts`: runs by status under the other filters; `everything`: without any filter.
    """

    counts: dict[str, int]
    everything: dict[str, int]

    @property
    def all_count(self) -> int:
        """Number of all runs."""
        return sum(self.everything.values())

    @property
    def queue_length(self) -> int:
        """Number of all runs that wait."""
        return self.everything.get(JobStatus.QUEUED, 0)

    @property
    def is_live(self) -> bool:
        """True while a run waits or trains."""
        return any(number and JobStatus(name).is_active for name, number in self.everything.items())


@dataclass(frozen=True)
class Choice:
    """A dataset, base model or adapter to filter by; its label says if it was deleted."""

    id: int
    label: str


@dataclass(frozen=True)
class RunChoices:
    """The choices of the filters: the newest of each kind that has runs."""

    datasets: list[Choice]
    base_models: list[Choice]
    adapters: list[Choice]


def list_runs(session: Session, filters: RunFilter) -> RunPage:
    """The page of runs for this filter."""
    words, placed = _matches(session, filters.q), _places(filters)
    by_status = select(Run.status, func.count()).group_by(col(Run.status))
    everything = dict(session.exec(by_status).all())
    counts = everything
    if filters.q or filters.places:
        counts = dict(session.exec(by_status.where(*words, *placed)).all())
    now = database_now(session)
    query = _query(filters, words, now)
    group = col(Run.id) if filters.sweep_id else func.coalesce(-col(Run.sweep_id), col(Run.id))
    newest = query.with_only_columns(func.max(Run.id)).order_by(None).group_by(group)
    total = session.exec(select(func.count()).select_from(newest.subquery())).one()
    query = query.where(col(Run.id).in_(newest))
    query = query.offset((filters.page - 1) * RUNS_A_PAGE).limit(RUNS_A_PAGE)
    runs = session.exec(query).all()
    ids = {run.sweep_id for run in runs if run.sweep_id and not filters.sweep_id}
    sweeps = _sweeps(session, ids) if ids else {}
    rows = _rows(session, runs, now)
    return RunPage(
        items=[replace(row, sweep=sweeps.get(row.run.sweep_id or 0)) for row in rows],
        total=total,
        number=filters.page,
        size=RUNS_A_PAGE,
        counts=counts,
        everything=everything,
    )


def _sweeps(session: Session, ids: set[int]) -> dict[int, SweepInList]:
    """These sweeps, by id."""
    of_these = col(Run.sweep_id).in_(ids)
    counts: dict[int, dict[str, int]] = {}
    query = select(Run.sweep_id, Run.status, func.count()).where(of_these)
    for key, status, number in session.exec(query.group_by(col(Run.sweep_id), col(Run.status))):
        counts.setdefault(key or 0, {})[status] = number
    waiting = select(Run.id, Run.sweep_id).where(of_these, Run.status == JobStatus.QUEUED)
    sweep_of = {run: key for run, key in session.exec(waiting) if run is not None}
    places: dict[int | None, int] = {}
    for run, place in queue_places(session, list(sweep_of)).items():
        places[sweep_of[run]] = min(place, places.get(sweep_of[run], place))
    return {
        one.key: SweepInList(one.key, one.title, counts.get(one.key, {}), places.get(one.key))
        for one in session.exec(select(Sweep).where(col(Sweep.id).in_(ids)))
    }


def matching_runs(session: Session, filters: RunFilter) -> list[int]:
    """The ids of all runs for this filter, in its order."""
    query = _query(filters, _matches(session, filters.q), database_now(session))
    ids: Any = query.with_only_columns(col(Run.id))
    return list(session.exec(ids))


def _query(
    filters: RunFilter, words: Sequence[ColumnElement[bool]], now: datetime
) -> SelectOfScalar[Run]:
    query = select(Run).where(*words, *_places(filters))
    if filters.status:
        query = query.where(Run.status == filters.status)
    return query.order_by(*_order(filters.sort, now))


def read_runs(session: Session, ids: Sequence[int]) -> list[RunRow]:
    """These runs, in this order, with everything that the list shows."""
    runs = _by_id(session, Run, ids)
    return _rows(session, [runs[key] for key in ids if key in runs], database_now(session))


def run_choices(session: Session, filters: RunFilter) -> RunChoices:
    """The choices of the filters, including the present ones."""
    used = sa.union(sa.select(col(Run.dataset_id)), sa.select(col(RunDataset.dataset_id)))
    datasets = _choices(session, Dataset, col(Dataset.id).in_(used), filters.dataset_id)
    has_runs = sa.exists().where(col(Run.base_model_id) == col(BaseModel.id))
    bases = _choices(session, BaseModel, has_runs, filters.base_model_id)
    made = sa.exists().where(
        col(AdapterVersion.adapter_id) == col(Adapter.id), col(AdapterVersion.run_id).is_not(None)
    )
    planned = sa.exists().where(col(Run.adapter_id) == col(Adapter.id))
    listed = is_listed() & (made | planned)
    return RunChoices(datasets, bases, _choices(session, Adapter, listed, filters.adapter_id))


def _choices(
    session: Session,
    model: type[NamedRow],
    condition: ColumnElement[bool],
    chosen: int | None,
) -> list[Choice]:
    is_other = col(model.id) != (chosen or 0)
    query = select(model).where(condition | sa.not_(is_other)).limit(CHOICES_SHOWN)
    rows = session.exec(query.order_by(is_other, col(model.id).desc())).all()
    choices = [Choice(row.key, f"{row.name}{_deleted_suffix(row)}") for row in rows]
    choices.sort(key=lambda choice: (choice.label.casefold(), choice.id))
    if chosen is not None and all(row.key != chosen for row in rows):
        choices.append(Choice(chosen, f"number {chosen} (deleted for good)"))
    return choices


def _deleted_suffix(row: NamedRow) -> str:
    """The suffix of the name of a deleted dataset or adapter, or a removed base model."""
    if isinstance(row, BaseModel):
        return " (removed)" if row.status == ModelStatus.REMOVED else ""
    return " (deleted)" if row.deleted_at else ""


def _places(filters: RunFilter) -> list[ColumnElement[bool]]:
    """The conditions of the filters by dataset, base model, adapter and sweep."""
    conditions: list[ColumnElement[bool]] = []
    if filters.dataset_id is not None:
        conditions.append(is_of_datasets([filters.dataset_id]))
    if filters.base_model_id is not None:
        conditions.append(col(Run.base_model_id) == filters.base_model_id)
    if filters.adapter_id is not None:
        made = sa.select(col(AdapterVersion.run_id)).where(
            col(AdapterVersion.adapter_id) == filters.adapter_id,
            col(AdapterVersion.run_id).is_not(None),
        )
        is_planned = col(Run.adapter_id) == filters.adapter_id
        conditions.append(col(Run.id).in_(made) | is_planned)
    if filters.sweep_id is not None:
        conditions.append(col(Run.sweep_id) == filters.sweep_id)
    return conditions


def _matches(session: Session, query: str) -> list[ColumnElement[bool]]:
    """A condition per word of a search: a text of the run, its number or a name beside it has it.

    The names are those of its dataset, its base model and the adapter it made.
    """
    words = needles(query)
    if not words:
        return [sa.false()] if query.strip() else []
    datasets = _texts(session, Dataset, sa.select(col(Run.dataset_id)))
    datasets |= _texts(session, Dataset, sa.select(col(RunDataset.dataset_id)))
    bases = _texts(session, BaseModel, sa.select(col(Run.base_model_id)))
    made = sa.select(col(AdapterVersion.adapter_id)).join(
        Run, col(AdapterVersion.id) == col(Run.adapter_version_id)
    )
    adapters = _texts(session, Adapter, made)
    conditions: list[ColumnElement[bool]] = []
    for word in words:
        versions = sa.select(col(AdapterVersion.id)).where(
            col(AdapterVersion.adapter_id).in_(_with(word, adapters))
        )
        found: ColumnElement[bool] = (
            col(Run.search_text).contains(word, autoescape=True)
            | is_of_datasets(_with(word, datasets))
            | col(Run.base_model_id).in_(_with(word, bases))
            | col(Run.adapter_version_id).in_(versions)
        )
        number = word.strip()
        if number.isdecimal() and len(number) <= len(str(MAX_ID)) and int(number) <= MAX_ID:
            found |= col(Run.id) == int(number)
        conditions.append(found)
    return conditions


def _texts(session: Session, model: type[NamedRow], used: sa.Select[Any]) -> dict[int, str]:
    """The searched names of what runs refer to by these ids, by id."""
    query = select(model.id, model.name).where(col(model.id).in_(used))
    return {key or 0: spaced(name) for key, name in session.exec(query)}


def _with(word: str, texts: Mapping[int, str]) -> list[int]:
    return [key for key, text in texts.items() if word in text]


def _order(sort: RunSort, now: datetime) -> list[ColumnElement[Any]]:
    newest = col(Run.id).desc()
    if sort is RunSort.OLDEST:
        return [col(Run.id).asc()]
    if sort is RunSort.NAME:
        return [col(Run.sort_name).asc(), newest]
    if sort is RunSort.NAME_DOWN:
        return [col(Run.sort_name).desc(), newest]
    if sort is RunSort.LOSS:
        return [col(Run.loss).is_(None), col(Run.loss).asc(), newest]
    if sort is RunSort.STATUS:
        places = {status.value: place for place, status in enumerate(STATUS_ORDER)}
        return [sa.case(places, value=col(Run.status)), newest]
    if sort in (RunSort.LONGEST, RunSort.SHORTEST):
        end = func.coalesce(col(Run.finished_at), sa.literal(now, sa.DateTime(timezone=True)))
        seconds = sa.extract("epoch", end) - sa.extract("epoch", col(Run.started_at))
        order = seconds.desc() if sort is RunSort.LONGEST else seconds.asc()
        return [col(Run.started_at).is_(None), order, newest]
    return [newest]


def _rows(session: Session, runs: Sequence[Run], now: datetime) -> list[RunRow]:
    """The runs with everything that the list shows, in a fixed number of queries."""
    datasets = used_of_runs(session, runs)
    bases = _by_id(session, BaseModel, (run.base_model_id for run in runs))
    versions = _by_id(session, AdapterVersion, (run.adapter_version_id for run in runs))
    adapters = _by_id(session, Adapter, (version.adapter_id for version in versions.values()))
    samples = newest_samples(session, [run.key for run in runs])
    waiting = [run.key for run in runs if run.state is JobStatus.QUEUED]
    places = queue_places(session, waiting) if waiting else {}
    owners = sorted({run.owner_id for run in runs if run.state is JobStatus.QUEUED})
    until = {owner: waits_until(session, owner) for owner in owners}
    epochs = epochs_of_runs(session, runs, used=datasets)
    rows = []
    for run in runs:
        version = versions.get(run.adapter_version_id or 0)
        rows.append(
            RunRow(
                run=run,
                datasets=datasets[run.key],
                base=bases.get(run.base_model_id),
                adapter=adapters.get(version.adapter_id) if version else None,
                version=version,
                samples=samples.get(run.key, []),
                epochs=epochs[run.key],
                place=places.get(run.key),
                seconds=elapsed_seconds(run, now),
                device_time_at=until[run.owner_id] if run.state is JobStatus.QUEUED else None,
            )
        )
    return rows


def _by_id(session: Session, model: type[Row], keys: Iterable[int | None]) -> dict[int, Row]:
    wanted = {key for key in keys if key is not None}
    if not wanted:
        return {}
    found = session.exec(select(model).where(col(model.id).in_(wanted)))
    return {row.key: row for row in found}


def newest_samples(session: Session, run_ids: Sequence[int]) -> dict[int, list[Sample]]:
    """The first samples of the newest sampled step of each run, by prompt."""
    last = (
        sa.select(col(Sample.run_id), func.max(Sample.step).label("step"))
        .where(col(Sample.run_id).in_(run_ids))
        .group_by(col(Sample.run_id))
        .subquery()
    )
    is_last = (col(Sample.run_id) == last.c.run_id) & (col(Sample.step) == last.c.step)
    query = select(last.c.run_id, Sample).join(last, is_last)
    query = query.where(Sample.prompt_index < SAMPLES_SHOWN).order_by(col(Sample.prompt_index))
    found: dict[int, list[Sample]] = {}
    for run_id, sample in session.exec(query):
        found.setdefault(run_id, []).append(sample)
    return found
