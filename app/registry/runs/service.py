"""Runs that exist: look them up, stop or cancel them. Workers write through `progress`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper
from sqlmodel import Session, col, select

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
from app.registry.tables.jobs import Event
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


def _searched_text(run: Run) -> str:
    """The searched text of a run."""
    return searched_lines(getattr(run, field) for field in SEARCHED)


@event.listens_for(Run, "before_insert")
@event.listens_for(Run, "before_update")
def _write_keys(_mapper: Mapper[Any], _connection: Connection, run: Run) -> None:
    changed = sa.inspect(run).attrs
    if any(changed[field].history.has_changes() for field in SEARCHED):
        run.sort_name = sort_name(run.name)
        run.search_text = _searched_text(run)
