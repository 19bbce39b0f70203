"""Jobs of every kind in one list: runs, renders, grids and io jobs, as one query."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.db import MAX_ID
from app.registry.errors import NotFound
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.paging import foreign_cursor
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Grid, GridCell, Render, is_on_its_own
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Run

RUN, RENDER, GRID = "run", "render", "grid"
GRID_STATUSES = (  # of its cells' renders, the first that one of them has
    JobStatus.RUNNING,
    JobStatus.QUEUED,
    JobStatus.PAUSED,
    JobStatus.FAILED,
    JobStatus.CANCELED,
    JobStatus.SUCCEEDED,
)
Position = tuple[datetime, str, int]


@dataclass(frozen=True)
class ListedJob:
    """A job; `number` is its id in its table, `subject_id` what an io job is about.

    `adapter_id`: the adapter of that, if it is a version.
    """

    kind: str
    number: int
    status: JobStatus
    created_at: datetime
    finished_at: datetime | None
    subject_id: int | None
    adapter_id: int | None

    @property
    def id(self) -> str:
        """An id that no job of another kind has, such as `run-12`."""
        return f"{self.kind}-{self.number}"


def list_jobs(
    session: Session,
    *,
    limit: int,
    after: tuple[Any, ...] | None = None,
    kinds: Collection[str] = (),
    statuses: Collection[JobStatus] = (),
    number: int | None = None,
) -> list[ListedJob]:
    """The newest jobs of these kinds and statuses, all if none is named; `after`: a position.

    Left out are what is deleted, drafts, and the renders of grids: their grid is in the list.
    """
    own = (_select(RUN, Run), _select(RENDER, Render).where(col(Render.draft_slot).is_(None)))
    jobs = sa.union_all(*own, _grids(), _io_jobs()).subquery()
    order = (jobs.c.created_at, jobs.c.kind, jobs.c.number)
    query: Any = sa.select(jobs).order_by(*(column.desc() for column in order)).limit(limit)
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    if statuses:
        query = query.where(jobs.c.status.in_(statuses))
    if number is not None:
        query = query.where(jobs.c.number == number)
    if after is not None:
        place = zip(_read_position(after), order, strict=True)
        here = sa.tuple_(*(sa.literal(value, column.type) for value, column in place))
        query = query.where(sa.tuple_(*order) < here)
    with deleted_too(session):  # of what an io job is about
        rows = session.exec(query).mappings()
    return [ListedJob(**{**row, "status": JobStatus(row["status"])}) for row in rows]


def get_job(session: Session, job_id: str) -> ListedJob:
    """The job with this id, such as `run-12`. Raises NotFound."""
    kind, _, number = job_id.rpartition("-")
    if number.isdecimal() and len(number) < len(str(MAX_ID)):
        for found in list_jobs(session, limit=1, kinds=[kind], number=int(number)):
            return found
    raise NotFound("There is no such job; it may have been deleted.")


def _read_position(position: Sequence[Any]) -> Position:
    """The position in a cursor. Raises InvalidInput for any other."""
    try:
        moment, kind, number = position
        if not isinstance(kind, str) or type(number) is not int or not 0 < number <= MAX_ID:
            raise ValueError
        return datetime.fromisoformat(moment), kind, number
    except (ValueError, TypeError):
        raise foreign_cursor() from None


def _select(kind: str, table: type[Run | Render]) -> sa.Select[Any]:
    columns = (table.id, table.status, table.created_at, table.finished_at)
    return _row(sa.literal(kind), *columns).where(col(table.deleted_at).is_(None))


def _row(*columns: Any) -> sa.Select[Any]:
    """A select of the fields of `ListedJob` in their order; the last ones may be missing."""
    names = [*ListedJob.__dataclass_fields__]
    missing = [sa.cast(sa.null(), sa.Integer)] * (len(names) - len(columns))
    values = zip([*columns, *missing], names, strict=True)
    return sa.select(*(value.label(name) for value, name in values))


def _grids() -> sa.Select[Any]:
    """Grids with the status of the render that is furthest from its end, as the list has them."""
    places = {status.value: place for place, status in enumerate(GRID_STATUSES)}
    first = sa.func.min(sa.case(places, value=col(Render.status)))
    active = [places[status] for status in GRID_STATUSES if not status.is_final]
    status = sa.case({place: status for status, place in places.items()}, value=first)
    ended = sa.case((first.not_in(active), sa.func.max(col(Render.finished_at))))
    return (
        _row(sa.literal(GRID), Grid.id, status, Grid.created_at, ended)
        .select_from(Grid)
        .join(GridCell, col(GridCell.grid_id) == col(Grid.id))
        .join(Render, col(Render.id) == col(GridCell.render_id))
        .where(col(Grid.deleted_at).is_(None), is_on_its_own())
        .group_by(col(Grid.id), col(Grid.created_at))
    )


def _io_jobs() -> sa.Select[Any]:
    """Io jobs, with the adapter of the version that they are about, if any."""
    columns = (IoJob.kind, IoJob.id, IoJob.status, IoJob.created_at, IoJob.finished_at)
    return (
        _row(*columns, IoJob.subject_id, AdapterVersion.adapter_id)
        .select_from(IoJob)
        .outerjoin(AdapterVersion, col(AdapterVersion.id) == col(IoJob.subject_id))
        .where(col(IoJob.kind).in_(list(JobKind)))
    )
