"""Two runs side by side: settings, data, result figures and samples; and two steps of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.comparison.side_by_side import (
    NONE,
    Columns,
    Facts,
    PinnedByDataset,
    SideBySide,
    column_facts,
    dataset_changes,
    pair_samples,
    side_by_side,
)
from app.registry.datasets.used_datasets import image_total, is_of_datasets, labels, used_datasets
from app.registry.errors import NotFound
from app.registry.runs import checkpoints, service
from app.registry.runs.changing import changes_words
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.runs.epochs import run_epochs
from app.registry.runs.presets import preset_title
from app.registry.runs.progress import HELD_OUT, values_by_step
from app.registry.runs.settings import Difference, config_differences, setting_names
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.owned import source_of
from app.registry.tables.runs import Run, Sample
from app.registry.wording import count_text, duration, epochs_text, size_text

RUNS_TO_CHOOSE = 100
SIZES: Columns = {
    "peak_memory_bytes": ("Peak memory", size_text),
    "trainable_parameters": ("Trained parameters", count_text),
}


@dataclass(frozen=True, kw_only=True)
class TwoRuns(SideBySide[Run]):
    """Two runs; `data` and `results` have also the values that are equal."""

    data: list[Difference]
    results: list[Difference]


def compare_runs(session: Session, a: int, b: int) -> TwoRuns:
    """Compare two runs. Raises NotFound, which names the run that does not exist."""
    first, second = _find_run(session, a), _find_run(session, b)
    settings = config_differences(first.config, second.config)
    samples = [_newest_samples(session, run) for run in (first, second)]
    return TwoRuns(
        a=first,
        b=second,
        a_label=_label(first, samples[0]),
        b_label=_label(second, samples[1]),
        settings=settings,
        equal_count=len(setting_names(first.config, second.config)) - len(settings),
        data=side_by_side(_data_facts(session, first), _data_facts(session, second)),
        results=side_by_side(_result_facts(session, first), _result_facts(session, second)),
        notes=_notes(session, first, second),
        pairs=pair_samples(*samples),
    )


def _label(run: Run, samples: Sequence[Sample]) -> str:
    """The run with the step of its samples."""
    step = samples[0].step if samples else run.step
    return f"Run {run.key}, " + (f"step {step:,}" if step else "base model")


def usual_pair(session: Session, a: int | None, b: int | None) -> tuple[int | None, int | None]:
    """The runs to compare where one or both were not named; None where there is no other run.

    The partner of a run is the run before it on the same dataset, else the newest other one.
    """
    if a is None and b is None:
        b = session.exec(select(Run.id).order_by(col(Run.id).desc())).first()
    if a is not None and b is not None:
        return a, b
    known = a if b is None else b
    run = session.get(Run, known or 0)
    others = select(Run.id).where(col(Run.id) != known).order_by(col(Run.id).desc())
    partner = None
    if run is not None:
        same = others.where(is_of_datasets([run.dataset_id]), col(Run.id) < run.key)
        partner = session.exec(same.limit(1)).first()
    partner = partner or session.exec(others.limit(1)).first()
    return (partner, b) if a is None else (a, partner)


def runs_to_choose(session: Session, *shown: int | None) -> list[Run]:
    """The newest runs, and those that are shown, newest first."""
    newest = select(Run).order_by(col(Run.id).desc())
    found = {run.key: run for run in session.exec(newest.limit(RUNS_TO_CHOOSE))}
    for run in session.exec(select(Run).where(col(Run.id).in_([key or 0 for key in shown]))):
        found[run.key] = run
    return [found[key] for key in sorted(found, reverse=True)]


def _find_run(session: Session, run_id: int) -> Run:
    run = session.get(Run, run_id)
    if run is None:
        sentence = f"Run {run_id} does not exist; it may have been deleted. Choose another one."
        raise NotFound(sentence)
    return run


def _data_facts(session: Session, run: Run) -> Facts:
    used = used_datasets(session, run)
    names, images = labels(used), image_total(used)
    base = base_models.base_of(session, run.base_model_id)
    own = session.get(DatasetVersion, run.regularization_version_id or 0)
    others = session.get(Dataset, own.dataset_id) if own else None
    return {
        "dataset": ("Dataset", names, names),
        "images": ("Images", images, count_text(images)),
        "trigger_word": ("Trigger word", run.trigger_word, run.trigger_word or NONE),
        "regularization": (
            "Regularization images",
            others.name if others else None,
            others.name if others else NONE,
        ),
        "base_model": ("Base model", base.name, base.name),
        "preset": ("Preset", preset_title(run) or None, preset_title(run) or NONE),
        "changes": ("Changed while it trained", run.changes or None, changes_words(run) or NONE),
    }


def _result_facts(session: Session, run: Run) -> Facts:
    trained = adapters.trained_version(session, run)
    epoch = run_epochs(session, run).at(run.step)
    lowest = min(values_by_step(session, run.key, HELD_OUT[0]).values(), default=None)
    size = adapters.download_bytes(session, trained[1]) if trained else None
    seconds = run.training_seconds or None
    speed = run.steps_per_second
    return {
        "status": ("State", run.status, service.STATUS_PHRASES.get(run.state, "is training")),
        "step": ("Steps trained", run.step, count_text(run.step)),
        "epoch": ("Epochs", epoch, "not known" if epoch is None else epochs_text(epoch)),
        "loss": ("Loss, smoothed", run.loss, _figure(run.loss, 3)),
        "held_out": ("Lowest validation loss", lowest, _figure(lowest, 3)),
        "training_seconds": ("Training time", seconds, duration(seconds)),
        "steps_per_second": ("Steps per second", speed, _figure(speed, 1)),
        **column_facts(run, SIZES),
        "adapter_bytes": ("Adapter file", size, size_text(size)),
        "adapter": (
            "Adapter",
            trained[0].name if trained else None,
            f"{trained[0].name}, version {trained[1].version}" if trained else NONE,
        ),
        "device": ("Device", run.device, run.device or "not known"),
    }


def _figure(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _notes(session: Session, a: Run, b: Run) -> list[str]:
    notes = []
    if a.base_model_id != b.base_model_id:
        notes.append(
            "They were trained on different base models, so losses and samples differ for that "
            "reason too."
        )
    for name, changes in dataset_changes(_pinned(session, a), _pinned(session, b)):
        which = f"the dataset {name}".rstrip()
        notes.append(f"Between run {a.key} and run {b.key} {which} changed: {changes}.")
    if b.parent_id == a.key:
        notes.append(f"Run {b.key} continues run {a.key}.")
    elif a.parent_id == b.key:
        notes.append(f"Run {a.key} continues run {b.key}.")
    return notes


def _pinned(session: Session, run: Run) -> PinnedByDataset:
    return {
        one.id: (one.name, source_of(session, DatasetVersion, one.version_id))
        for one in used_datasets(session, run)
    }


def _newest_samples(session: Session, run: Run) -> list[Sample]:
    """The samples of the last step that has any, by prompt."""
    newest = select(func.max(Sample.step)).where(Sample.run_id == run.key)
    step = session.exec(newest).one()
    return [] if step is None else step_samples(session, run.key, step)


@dataclass(frozen=True)
class ComparedStep:
    """A step of a run that has samples; 0 is the base model. `checkpoint`: if it is stored."""

    step: int
    checkpoint: RunCheckpoint | None

    @property
    def label(self) -> str:
        """The displayed name, such as “Step 150”."""
        return f"Step {self.step:,}" if self.step else "Base model"

    @property
    def option(self) -> str:
        """The label with what is known of the checkpoint, for a list to choose from."""
        row = self.checkpoint
        marks = {
            "in use": row is not None and row.is_in_use,
            "kept": row is not None and row.kept,
            "no checkpoint": row is None and self.step > 0,
        }
        return ", ".join([self.label, *(word for word, holds in marks.items() if holds)])


@dataclass(frozen=True, kw_only=True)
class TwoSteps(SideBySide[ComparedStep]):
    """Two steps of a run, and all steps to choose from; with a single one both are the same."""

    run: Run
    steps: list[ComparedStep]


def compare_steps(
    session: Session, run_id: int, a: int | None = None, b: int | None = None
) -> TwoSteps:
    """Compare two steps; by default the newest with the one before it. Raises NotFound."""
    run = service.get_run(session, run_id)
    sampled = select(Sample.step).where(Sample.run_id == run_id).distinct()
    found = session.exec(sampled.order_by(col(Sample.step).desc())).all()
    if not found:
        raise NotFound("This run has no samples, so there is nothing to compare.")
    stored = {row.step: row for row in checkpoints.list_checkpoints(session, run_id)}
    steps = {step: ComparedStep(step, stored.get(step)) for step in found}
    second = _step_at(steps, b, next(iter(steps)))
    others = [step for step in steps if step != second.step] or [second.step]
    earlier = [step for step in others if step < second.step]
    first = _step_at(steps, a, (earlier or others)[0])
    samples = [step_samples(session, run_id, one.step) for one in (first, second)]
    return TwoSteps(
        run=run,
        steps=list(steps.values()),
        a=first,
        b=second,
        a_label=first.label,
        b_label=second.label,
        pairs=pair_samples(*samples),
    )


def _step_at(steps: dict[int, ComparedStep], step: int | None, usual: int) -> ComparedStep:
    number = usual if step is None else step
    if number not in steps:
        raise NotFound(f"This run has no samples at step {number:,}. Choose another step.")
    return steps[number]


def step_samples(session: Session, run_id: int, step: int) -> list[Sample]:
    """The samples of a step, by prompt."""
    query = select(Sample).where(Sample.run_id == run_id, Sample.step == step)
    return list(session.exec(query.order_by(col(Sample.prompt_index))))
