"""Progress and metrics of a run, written by the train worker, and read point by point.

Every write requires a valid claim.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs import findings, thumbnails
from app.registry.job_kinds.kinds import EvaluateRunArgs
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import AFTER_RUNS
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Checkpoint, MetricChunk, Run, Sample
from worker.core.training.config import TrainConfig

CHUNK_POINTS = 200
HELD_OUT = ("held_out", "held_out_low", "held_out_high")
FIXED_LOSS = "fixed_loss"
MEASURED = frozenset({*HELD_OUT, FIXED_LOSS})  # not at every step
MAX_POINTS = 5_000


@dataclass(frozen=True)
class MetricPoints:
    """Values of each metric at consecutive steps, starting with `first_step`."""

    first_step: int
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class NewSample:
    """A sample image of a step, whose blob is stored, with its thumbnails."""

    step: int
    prompt_index: int
    prompt: str
    seed: int
    sha256: str
    thumbnail: Thumbnail | None = None


@dataclass(frozen=True)
class RunFlags:
    """User requests to a running training."""

    cancel: bool
    stop: bool
    sample: bool
    save: bool
    change: dict[str, Any] | None = None


def read_run_flags(session: Session, claim: Claim) -> RunFlags:
    """The request flags of an owned run. Raises LostLease if another worker owns it."""
    columns = ("cancel", "stop", "sample", "save", "change")
    query = sa.select(*(getattr(Run, f"{name}_requested") for name in columns))
    mine = query.where(col(Run.id) == claim.job_id, col(Run.owner_token) == claim.token)
    row = session.connection().execute(mine).first()
    if row is None:
        raise jobs.LostLease(f"run {claim.job_id} belongs to another worker now.")
    return RunFlags(*row)


def write_progress(
    session: Session, claim: Claim, values: Mapping[str, Any], points: MetricPoints | None = None
) -> None:
    """Set columns of the run and append metric points."""
    jobs.update_owned(session, Run, claim, **values)
    if points is not None:
        for key, numbers in points.values.items():
            append_points(session, claim.job_id, key, points.first_step, numbers)


def append_points(
    session: Session, run_id: int, key: str, first_step: int, values: Sequence[float]
) -> None:
    """Append values to the newest chunk of a metric until it is full, then to new chunks."""
    newest = session.exec(
        select(MetricChunk)
        .where(MetricChunk.run_id == run_id, MetricChunk.key == key)
        .order_by(col(MetricChunk.first_step).desc())
        .limit(1)
    ).first()
    rest = list(values)
    if newest is not None and newest.first_step + newest.count == first_step:
        room = CHUNK_POINTS - newest.count
        if room > 0:
            _fill_chunk(newest, [*_unpack_values(newest), *rest[:room]])
            session.add(newest)
            first_step, rest = first_step + min(room, len(rest)), rest[room:]
    for start in range(0, len(rest), CHUNK_POINTS):
        chunk = MetricChunk(
            run_id=run_id,
            key=key,
            first_step=first_step + start,
            count=0,
            minimum=0.0,
            maximum=0.0,
            mean=0.0,
            data=b"",
        )
        _fill_chunk(chunk, rest[start : start + CHUNK_POINTS])
        session.add(chunk)


def forget_after(session: Session, run_id: int, step: int) -> None:
    """Delete the metrics after a step, which a resumed run writes again."""
    chunks = sa.delete(MetricChunk).where(col(MetricChunk.run_id) == run_id)
    session.connection().execute(chunks.where(col(MetricChunk.first_step) > step))
    for chunk in session.exec(
        select(MetricChunk).where(
            MetricChunk.run_id == run_id,
            col(MetricChunk.first_step) + col(MetricChunk.count) > step + 1,
        )
    ):
        _fill_chunk(chunk, _unpack_values(chunk)[: step + 1 - chunk.first_step])
        session.add(chunk)


def add_measures(session: Session, claim: Claim, step: int, values: Mapping[str, float]) -> None:
    """Store what was measured at a step, by metric; replaces its values, and those after it."""
    jobs.require_owner(session, Run, claim)
    for key, value in values.items():
        points = sa.delete(MetricChunk).where(
            col(MetricChunk.run_id) == claim.job_id,
            col(MetricChunk.key) == key,
            col(MetricChunk.first_step) >= step,
        )
        session.connection().execute(points)
        append_points(session, claim.job_id, key, step, [value])


def add_sample(session: Session, claim: Claim, new: NewSample) -> None:
    """Store a sample; replaces an earlier one of the same step and prompt."""
    jobs.require_owner(session, Run, claim)
    row = session.exec(
        select(Sample).where(
            Sample.run_id == claim.job_id,
            Sample.step == new.step,
            Sample.prompt_index == new.prompt_index,
        )
    ).first()
    if row is None:
        row = Sample(
            run_id=claim.job_id,
            step=new.step,
            prompt_index=new.prompt_index,
            prompt=new.prompt,
            seed=new.seed,
            sha256=new.sha256,
        )
    row.prompt, row.seed, row.sha256 = new.prompt, new.seed, new.sha256
    session.add(row)
    findings.forget_problems(session, new.sha256)
    if new.thumbnail is not None:
        thumbnails.save(session, [new.thumbnail])


def add_checkpoint(
    session: Session,
    claim: Claim,
    *,
    step: int,
    sha256: str,
    size_bytes: int,
    keep: int,
    is_requested: bool = False,
    best: int | None = None,
) -> list[str]:
    """Store a training state and drop all but `keep`; return the blobs to delete.

    One of a higher step than any before is progress: attempts are counted from here on. Those of
    higher steps go first: the run could not resume from them, so they are damaged. What a person
    requested or keeps stays, and does not count; that of step `best` stays.
    """
    jobs.require_owner(session, Run, claim)
    rows = {row.step: row for row in checkpoints(session, claim.job_id)}
    if step > max(rows, default=-1):
        jobs.update_owned(session, Run, claim, attempt=1)
    unused = []
    row = rows.get(step)
    if row is None:
        row = rows[step] = Checkpoint(
            run_id=claim.job_id, step=step, sha256=sha256, size_bytes=size_bytes
        )
    elif row.sha256 != sha256:
        unused.append(row.sha256)
        row.sha256, row.size_bytes = sha256, size_bytes
    row.kept = row.kept or is_requested
    session.add(row)
    findings.forget_problems(session, sha256)
    rotating = [number for number in rows if not rows[number].kept]
    oldest_first = sorted(rotating, key=lambda found: (found <= step, found))
    for old in (number for number in oldest_first[:-keep] if number != best):
        unused.append(rows[old].sha256)
        session.delete(rows[old])
    session.flush()
    with deleted_too(session):  # a run that continues this one may refer to the same blob
        named = session.exec(select(Checkpoint.sha256).where(col(Checkpoint.sha256).in_(unused)))
    return sorted(set(unused) - set(named))


def order_evaluation(session: Session, run: Run) -> None:
    """Queue the evaluation of a run that completes in this transaction, if it asked for one."""
    if TrainConfig.model_validate(run.config).evaluate:
        args = EvaluateRunArgs(grid_id=0)
        jobs.enqueue_io(session, args, subject_id=run.key, priority=AFTER_RUNS)


def checkpoints(session: Session, run_id: int) -> list[Checkpoint]:
    """The stored checkpoints of a run, newest first."""
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return list(session.exec(query.order_by(col(Checkpoint.step).desc())))


def samples_until(session: Session, run_id: int, rows: Sequence[Checkpoint]) -> list[Sample]:
    """The samples that a run keeps when it resumes from the first of these checkpoints."""
    if not rows:
        return []
    query = select(Sample).where(Sample.run_id == run_id, col(Sample.step) <= rows[0].step)
    return list(session.exec(query))


def last_sample(session: Session, run_id: int) -> Sample | None:
    """The sample of the first prompt at the newest step, used as the cover."""
    query = select(Sample).where(Sample.run_id == run_id)
    order = (col(Sample.step).desc(), col(Sample.prompt_index))
    return session.exec(query.order_by(*order).limit(1)).first()


def _unpack_values(chunk: MetricChunk) -> list[float]:
    return list(struct.unpack(f"<{chunk.count}f", chunk.data))


def _fill_chunk(chunk: MetricChunk, values: Sequence[float]) -> None:
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    chunk.count = len(values)
    chunk.minimum, chunk.maximum = min(finite), max(finite)
    chunk.mean = sum(finite) / len(finite)
    chunk.data = struct.pack(f"<{len(values)}f", *values)


def run_metrics(
    session: Session,
    run_id: int,
    *,
    after: int = 0,
    keys: Collection[str] = (),
    most: int | None = MAX_POINTS,
) -> dict[str, Any]:
    """Points after a step: {"last_step", "series": {key: {"steps": […], "values": […]}}}.

    At most `most` points per key; call again with `after=last_step` for the rest. Losses that are
    measured now and then are always complete: each comes later than the loss of its step.
    `keys`: only these metrics; empty: all.
    """
    is_new = col(MetricChunk.first_step) + col(MetricChunk.count) > after + 1
    query = select(MetricChunk).where(
        MetricChunk.run_id == run_id, is_new | col(MetricChunk.key).in_(MEASURED)
    )
    if keys:
        query = query.where(col(MetricChunk.key).in_(keys))
    chunks = session.exec(query.order_by(col(MetricChunk.first_step))).all()
    series: dict[str, dict[str, list[Any]]] = {}
    for chunk in chunks:
        points = series.setdefault(chunk.key, {"steps": [], "values": []})
        values = struct.unpack(f"<{chunk.count}f", chunk.data)
        for step, value in enumerate(values, start=chunk.first_step):
            is_included = step > after or chunk.key in MEASURED
            if is_included and (most is None or len(points["steps"]) < most):
                points["steps"].append(step)
                points["values"].append(value if value == value else None)  # JSON has no NaN
    last_steps = [
        points["steps"][-1]
        for key, points in series.items()
        if points["steps"] and key not in MEASURED
    ]
    last = min(last_steps, default=after)
    return {"last_step": last, "series": series}


def values_by_step(session: Session, run_id: int, key: str) -> dict[int, float]:
    """The finite values of one metric by step."""
    return values_of(run_metrics(session, run_id, keys={key}), key)


def values_of(metrics: Mapping[str, Any], key: str) -> dict[int, float]:
    """The finite values of a metric by step, of what `run_metrics` found."""
    points = metrics["series"].get(key, {"steps": [], "values": []})
    pairs = zip(points["steps"], points["values"], strict=True)
    return {step: value for step, value in pairs if value is not None}
