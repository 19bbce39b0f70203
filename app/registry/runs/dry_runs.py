"""Dry runs: a few real steps and one sample, which measure what a training takes before it starts.

Each is a job of the train queue that gives way to runs. What it found is kept with it, for its base
model and the settings that decide time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.datasets import service as datasets
from app.registry.datasets.pinned import current_items
from app.registry.db import utcnow
from app.registry.errors import NotFound
from app.registry.job_kinds.kinds import DryRunArgs, DryRunResult, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs.requests import RunRequest, check_request
from app.registry.tables.jobs import AFTER_RUNS, JOB_FILES_KEPT, IoJob
from app.registry.wording import aware
from worker.core.training.config import TrainConfig

SEARCHED = 50  # newest dry runs of a base model
COSTLY = (
    *("kind", "rank", "targets", "blocks", "train_text_encoder", "text_encoder_rank"),
    *("batch_size", "gradient_accumulation", "optimizer", "ema_decay", "shuffle_tags"),
    *("resolution", "aspect_buckets", "masked_loss", "precision", "gradient_checkpointing"),
    *("compile", "base_weights", "sample_steps"),
)
"""Settings that decide time and memory."""


@dataclass(frozen=True)
class DryRun:
    """The newest dry run of these settings, None without one, and the last one that measured."""

    newest: IoJob | None = None
    measured: IoJob | None = None

    @property
    def is_active(self) -> bool:
        """True while it waits or measures."""
        return self.newest is not None and self.newest.state.is_active

    @property
    def result(self) -> DryRunResult:
        """What was measured."""
        return self.measured.outcome(DryRunResult) if self.measured else DryRunResult()


def order_dry_run(session: Session, request: RunRequest) -> IoJob:
    """Queue a dry run of a run; one of these settings that has not ended is returned instead.

    Raises InvalidInput and NotFound as the run itself would.
    """
    checked = check_request(session, request)
    known = find_dry_run(session, checked.base.key, checked.config)
    if known.newest is not None and known.is_active:
        return known.newest
    ids = tuple(one.summary.dataset.key for one in checked.datasets)
    args = DryRunArgs(config=checked.config.model_dump(mode="json"), dataset_ids=ids)
    return jobs.enqueue_io(session, args, subject_id=checked.base.key, priority=AFTER_RUNS)


def find_dry_run(session: Session, base_id: int, config: TrainConfig) -> DryRun:
    """The dry run of a config on a base model."""
    mine = select(IoJob).where(IoJob.kind == JobKind.DRY_RUN, IoJob.subject_id == base_id)
    wanted = _costly(config.model_dump(mode="json"))
    found = [
        job
        for job in session.exec(mine.order_by(col(IoJob.id).desc()).limit(SEARCHED))
        if isinstance(args := job.readable_arguments(), DryRunArgs)
        and _costly(args.config) == wanted
    ]
    measured = (job for job in found if job.state is JobStatus.SUCCEEDED)
    return DryRun(next(iter(found), None), next(measured, None))


def items_of(session: Session, args: DryRunArgs) -> list[dict[str, Any]]:
    """The images of its datasets as they are now, with captions. Raises NotFound without any."""
    keys = [datasets.get_dataset(session, key).key for key in args.dataset_ids]
    items = [item for key in keys for item in current_items(session, key)]
    if not items:
        raise NotFound("The images to measure with were deleted.")
    return items


def get_dry_run(session: Session, job_id: int) -> IoJob:
    """Look up a dry run. Raises NotFound."""
    return jobs.get_io(session, job_id, "dry run", JobKind.DRY_RUN)


def is_old(job: IoJob) -> bool:
    """True once the images of a dry run may be deleted."""
    return job.finished_at is not None and aware(job.finished_at) < utcnow() - JOB_FILES_KEPT


def cancel_dry_run(session: Session, job_id: int) -> IoJob:
    """Cancel a dry run; idempotent. Raises NotFound, and Conflict if it has ended."""
    job = get_dry_run(session, job_id)
    jobs.request_cancel(session, IoJob, job)
    return job


def _costly(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config.get(name, TrainConfig.model_fields[name].default) for name in COSTLY}
