"""Dry runs: the first steps of a training and one sample, measured and thrown away."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from app.registry.base_models import service as base_models
from app.registry.base_models.speeds import record_speed
from app.registry.job_kinds.kinds import DryRunArgs, DryRunResult, RoundTrip
from app.registry.jobs import service as jobs
from app.registry.runs import dry_runs
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run
from worker.core.evaluation.subjects import spread
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.training.config import TrainConfig
from worker.core.training.events import (
    BaseFacts,
    Commands,
    Control,
    Notice,
    Phase,
    PhaseStarted,
    SampleSaved,
    StepDone,
)
from worker.core.training.fallback import reduce_memory_use
from worker.core.training.outcome import TrainedAdapter
from worker.runtime.attempts.attempt import CRASHED, NO_MEMORY, POLL_SECONDS
from worker.runtime.job_progress import IoWork, JobWatch, OtherJobsWaiting, RefusedError, succeed
from worker.runtime.line_process import Ended
from worker.runtime.messages import FailureReport, Message, Ready, RoundTrips, Train
from worker.runtime.scratch import ItemsToTrain, write_images
from worker.runtime.trainer_process import WarmTrainer

STEPS = 8  # after the first one, which takes longer
SHORT = {
    **dict.fromkeys(("checkpoint_every", "sample_every", "validation_share", "patience"), 0),
    "steps": 1_000,
}
"""Settings of a training that saves nothing before it is canceled."""
MOST_IMAGES = 24

Heard = list[tuple[float, Message]]
"""The messages of a training with the times when they came, in seconds."""


def run(trainers: WarmTrainer, work: IoWork) -> None:
    """Measure what a training takes, while no run trains or waits. Raises RefusedError.

    It trains for a few steps, with less memory if it does not suffice.
    """
    args = work.job.arguments(DryRunArgs)
    config, changes = TrainConfig.model_validate(args.config), list[str]()
    with work.database.read() as session:
        base = base_models.get_base_model(session, work.job.subject_id or 0)
        base_models.require_ready(base)
        images = ItemsToTrain(spread(dry_runs.items_of(session, args), MOST_IMAGES))
    write_images(work.store, [images], work.scratch / "data", work.scratch / "blobs")
    with work.cancelable(result={}):
        watch = _Watch(work.database, work.lease, work.stopping)
        while True:
            heard = _train(trainers, base.location, work.scratch, config, watch)
            end = heard[-1][1]
            if not isinstance(end, FailureReport):
                break
            if end.code != "out_of_memory":
                raise RefusedError(end.code, end.error)
            reduced = reduce_memory_use(config, find_family(base.family) or FALLBACK_FAMILY)
            if reduced is None:
                raise RefusedError(end.code, NO_MEMORY)
            config, change = reduced
            changes.append(change)
        _store(work, base, config, heard, changes)


def _train(
    trainers: WarmTrainer, model: Path, scratch: Path, config: TrainConfig, watch: JobWatch
) -> Heard:
    """Train until enough is measured or it fails, which the last message says."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    short = config.model_copy(update={**SHORT, "sample_prompts": config.sample_prompts[:1]})
    heard: Heard = []
    out, cache = folder / "out", folder / "cache"
    order = Train(model, scratch / "data", out, cache, short, sends_round_trips=True)
    trainer = trainers.take(model)
    try:
        trainer.send(order)
        while not heard or not isinstance(heard[-1][1], TrainedAdapter | FailureReport):
            watch()
            message = trainer.receive(POLL_SECONDS)
            if isinstance(message, Ended):
                raise RefusedError("trainer_crashed", CRASHED.format(code=message.code))
            if message is not None:
                heard.append((time.monotonic(), message))
            if isinstance(message, StepDone) and message.step == STEPS + 1:
                trainer.send(Commands(control=Control.CANCEL))
    finally:
        trainer.kill()
        trainers.warm(model)
    return heard


def _store(
    work: IoWork, base: BaseModel, config: TrainConfig, heard: Heard, changes: list[str]
) -> None:
    """Store what the messages of a training say."""
    import numpy as np  # not by a worker that starts

    from worker.core.evaluation.intervals import mean_interval

    said = [message for _, message in heard]
    totals = [one.step / one.steps_per_second for one in said if isinstance(one, StepDone)]
    step = mean_interval(np.diff(totals[: STEPS + 1]))
    facts = next(one for one in said if isinstance(one, BaseFacts))
    began = [at for at, one in heard if one == PhaseStarted(Phase.SAMPLING)]
    sampled = [at for at, one in heard if isinstance(one, SampleSaved)]
    warnings = [one.text for one in said if isinstance(one, Notice) and one.is_warning]
    result = DryRunResult(
        device=next((one.device for one in said if isinstance(one, Ready)), ""),
        seconds_per_step=step.mean,
        seconds_low=max(0.0, step.low or 0.0),
        seconds_high=step.high,
        sample_seconds=sampled[0] - began[0] if sampled else None,
        peak_memory_bytes=next(
            one.peak_memory_bytes for one in said if isinstance(one, TrainedAdapter)
        ),
        layers=facts.layers,
        all_layers=facts.all_layers,
        changes=(*changes, *warnings),
        round_trips=tuple(
            RoundTrip(
                before=work.store.put_file(before).sha256,
                after=work.store.put_file(after).sha256,
                psnr=round(psnr, 1),
            )
            for one in said
            if isinstance(one, RoundTrips)
            for psnr, before, after in one.found
        ),
    )
    with work.database.write() as session:
        succeed(session, work.lease, result)
        record_speed(
            session,
            base.key,
            config,
            resolution=config.resolution or base.resolution or 512,
            seconds_per_step=step.mean,
            trainable_parameters=facts.trainable_parameters,
            steps=STEPS,
        )


class _Watch(JobWatch):
    """Also raises OtherJobsWaiting once a run waits."""

    def _read(self) -> bool:
        with self._database.read() as session:
            if jobs.has_waiting(session, Run):
                raise OtherJobsWaiting
        return super()._read()
