"""Runs that exist: look up, list what is active, stop, cancel. Workers write through `progress`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper
from sqlmodel import Session, col, func, select

from app.registry.adapters.library.search import searched_lines, sort_name
from app.registry.base_models import service as base_models
from app.registry.datasets import service as datasets
from app.registry.datasets.used_datasets import image_total, used_datasets
from app.registry.db import database_now
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.presence import present_workers
from app.registry.runs.presets import misfit
from app.registry.tables.jobs import Event, IoJob
from app.registry.tables.owned import everything, principal_of
from app.registry.tables.people import has_device_time
from app.registry.tables.renders import Render
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import WARNING, Run, Sample
from worker.core.families.family import find_family
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset, for_optimizer, preset_config
from worker.core.training.rate_warnings import rate_warnings

STATUS_PHRASES = {
    JobStatus.QUEUED: "is waiting",
    JobStatus.PAUSED: "is paused",
    JobStatus.SUCCEEDED: "has finished",
    JobStatus.FAILED: "has failed",
    JobStatus.CANCELED: "was canceled",
}
EVENTS_SHOWN = 100
ACTIVE_SHOWN = 5
ENDED_SHOWN = 5
ENDED_SECONDS = 600


def run_warnings(session: Session, run: Run) -> list[str]:
    """Likely mistakes in the setup of a run, one sentence each."""
    base = base_models.base_of(session, run.base_model_id)
    config = TrainConfig.model_validate(run.config)
    usual = preset_config(
        Preset(run.preset) if run.preset in set(Preset) else Preset.BALANCED,
        resolution=base.resolution or 512,
        images=run_image_count(session, run),
        family=find_family(base.family),
    )
    found = rate_warnings(config, for_optimizer(usual, config.optimizer))
    found += trigger_warnings(session, run)
    if note := misfit(run.own_preset or {}, base):
        found.append(note)
    return found


def trigger_warnings(session: Session, run: Run) -> list[str]:
    """Which datasets have no caption with the trigger word of the run, as sentences."""
    word, used = run.trigger_word or "", used_datasets(session, run)
    without = [one for one in used if not datasets.caption_has_word(session, one.id, word)]
    if len(without) == len(used):
        effect = "so it will have no effect."
        return [f"No caption contains the trigger word “{word}”, {effect}"] if used else []
    return [
        f"No caption of “{one.name}” contains the trigger word “{word}”, so it does not call what "
        "is learned from these images."
        for one in without
    ]


UNKNOWN = "This run does not exist; it may have been deleted for good already."
DELETED = "This run was deleted. You can restore it on the page of deleted runs."


def get_run(session: Session, run_id: int, *, lock: bool = False) -> Run:
    """Look up a run. Raises NotFound."""
    run = session.get(Run, run_id, with_for_update=lock or None)
    if run is None:
        with deleted_too(session):
            is_deleted = session.get(Run, run_id) is not None
        raise NotFound(DELETED if is_deleted else UNKNOWN)
    return run


def eta_seconds(run: Run) -> float | None:
    """Remaining training seconds at the measured speed; None if unknown."""
    if run.state is not JobStatus.RUNNING or not run.steps_per_second:
        return None
    return max(0, run.total_steps - run.step) / run.steps_per_second


def cancel_run(session: Session, run_id: int) -> Run:
    """Cancel a run; idempotent. Raises Conflict if it has already ended."""
    run = get_run(session, run_id)
    jobs.request_cancel(session, Run, run)
    return run


def request_run_action(session: Session, run_id: int, action: str) -> Run:
    """Request `stop`, `sample` or `save` at the next step of a running training."""
    run = get_run(session, run_id)
    if run.state is not JobStatus.RUNNING:
        raise Conflict(f"This run {STATUS_PHRASES[run.state]}; only a running run can do that.")
    setattr(run, f"{action}_requested", True)
    session.add(run)
    jobs.record(session, Run, run_id, f"{action}_requested")
    return run


def run_samples(session: Session, run_id: int) -> list[Sample]:
    """The samples of a run, by step and prompt."""
    query = select(Sample).where(Sample.run_id == run_id)
    return list(session.exec(query.order_by(col(Sample.step), col(Sample.prompt_index))))


def run_events(session: Session, run_id: int) -> list[Event]:
    """The newest events of a run and all its warnings, newest first."""
    query = select(Event).where(Event.subject == Run.__tablename__, Event.subject_id == run_id)
    newest = query.order_by(col(Event.id).desc()).limit(EVENTS_SHOWN)
    events = list(session.exec(newest))
    if len(events) == EVENTS_SHOWN:
        earlier = query.where(col(Event.kind) == WARNING, col(Event.id) < events[-1].id)
        events += session.exec(earlier.order_by(col(Event.id).desc()).limit(EVENTS_SHOWN))
    return events


def run_image_count(session: Session, run: Run) -> int:
    """Number of training images: those its datasets had when the run was queued."""
    return image_total(used_datasets(session, run))


def has_train_worker(session: Session) -> bool:
    """True if a train worker was seen recently."""
    return bool(present_workers(session, queue=Run.queue))


def elapsed_seconds(run: Run, now: datetime) -> float | None:
    """Seconds since the run started, until it finished or now; None before its start."""
    return ((run.finished_at or now) - run.started_at).total_seconds() if run.started_at else None


def seconds_so_far(session: Session, run: Run) -> float | None:
    """Seconds since the run started, until it finished or now, by the database's clock."""
    return elapsed_seconds(run, database_now(session)) if run.started_at else None


SEARCHED = ("name", "trigger_word", "notes")


@event.listens_for(Run, "before_insert")
@event.listens_for(Run, "before_update")
def _write_keys(_mapper: Mapper[Any], _connection: Connection, run: Run) -> None:
    changed = sa.inspect(run).attrs
    if any(changed[field].history.has_changes() for field in SEARCHED):
        run.sort_name = sort_name(run.name)
        run.search_text = searched_lines(getattr(run, field) for field in SEARCHED)


@dataclass(frozen=True)
class ActiveRuns:
    """The first active runs, running ones before queued ones, and how many there are of each.

    `private`: running ones that the person of the session does not see.
    """

    shown: list[Run]
    running: int
    queued: int
    private: int = 0

    @property
    def total(self) -> int:
        """Number of active runs."""
        return self.running + self.queued

    @property
    def hidden(self) -> int:
        """Number of active runs that are not shown."""
        return self.total - len(self.shown)


def active_runs(session: Session, *, limit: int = ACTIVE_SHOWN) -> ActiveRuns:
    """The first running runs, then queued runs in their order."""
    active = col(Run.status).in_((JobStatus.RUNNING, JobStatus.QUEUED))
    order = (col(Run.status).desc(), *Run.queue_order())
    shown = session.exec(select(Run).where(active).order_by(*order).limit(limit)).all()
    counts = dict(
        session.exec(select(Run.status, func.count()).where(active).group_by(col(Run.status))).all()
    )
    seen, private = counts.get("running", 0), 0
    if principal_of(session) is not None:
        with everything(session):
            running = select(func.count()).where(col(Run.status) == JobStatus.RUNNING)
            private = session.exec(running).one() - seen
    return ActiveRuns(list(shown), seen, counts.get("queued", 0), private)


def is_any_active(session: Session) -> bool:
    """True if a run is running, or queued and could start."""
    can_start = (col(Run.status) == JobStatus.QUEUED) & has_device_time(session, Run.owner_id)
    active = (col(Run.status) == JobStatus.RUNNING) | can_start
    return session.exec(select(Run.id).where(active).limit(1)).first() is not None


def is_machine_busy(session: Session) -> bool:
    """True while a worker trains, generates, or carries out another job."""
    with everything(session):
        return any(
            session.exec(select(job.id).where(job.status == JobStatus.RUNNING).limit(1)).first()
            for job in (Run, Render, IoJob)
        )


def queue_places(session: Session, run_ids: Sequence[int]) -> dict[int, int]:
    """The place of each of these runs that waits for others, from 1 for the one that is next."""
    place = func.row_number().over(order_by=Run.queue_order())
    queue = (
        sa.select(col(Run.id).label("id"), place.label("place"))
        .where(col(Run.status) == JobStatus.QUEUED, has_device_time(session, Run.owner_id))
        .subquery()
    )
    query = sa.select(queue.c.id, queue.c.place).where(queue.c.id.in_(run_ids))
    return {row.id: row.place for row in session.connection().execute(query)}


def runs_ahead(session: Session, run: Run) -> int:
    """Number of running runs and of those before this one in the queue; 0 if it is not queued."""
    if run.status != JobStatus.QUEUED:
        return 0
    place = queue_places(session, [run.key]).get(run.key)
    if place is None:  # a worker has claimed it since the row was read
        return 0
    running = select(func.count()).where(col(Run.status) == JobStatus.RUNNING)
    with everything(session):
        return session.exec(running).one() + place - 1


def ended_runs(session: Session) -> list[Run]:
    """The newest runs that ended in the last ten minutes, the latest end first."""
    since = database_now(session) - timedelta(seconds=ENDED_SECONDS)
    ended = select(Run).where(col(Run.finished_at) > since)
    return list(session.exec(ended.order_by(col(Run.finished_at).desc()).limit(ENDED_SHOWN)).all())
