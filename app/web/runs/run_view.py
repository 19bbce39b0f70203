"""Contents of the run page, computed for each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.registry.adapters import service as adapters
from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.db import Session
from app.registry.jobs.models import Event
from app.registry.jobs.states import JobStatus
from app.registry.runs import service
from app.registry.runs.models import WARNING, Checkpoint, Run, Sample
from app.registry.runs.progress import HELD_OUT
from app.registry.runs.sample_pages import list_sample_page
from app.registry.wording import about, duration, plural

CHART_METRICS = ("loss", *HELD_OUT)
SMOOTHING = 0.95
TABLE_ROWS = 20
FULL_TUNING_BYTES_PER_PARAMETER = 16
ANNOUNCE_EVERY = 10  # percent between two announcements for screen readers

PHASES = {
    "preparing": "Getting ready",
    "encoding": "Preparing images",
    "sampling": "Generating samples",
    "saving": "Saving",
}
ADVICE = {
    "diverged": "Train again with a lower learning rate; start with half of it.",
    "out_of_memory": "Train again with a smaller batch size or resolution, or turn on “Gradient "
    "checkpointing”.",
    "dataset": "Check the images and captions of the dataset, then train again.",
    "worker_lost": "The machine may have run out of memory. Train again with a smaller batch size.",
    "storage": "Free some disk space, then train again.",
    "dead": "Train again with a higher learning rate or more steps.",
    "unsupported": "Choose another precision or base model, then train again.",
}
DEFAULT_ADVICE = "Train again. If it fails the same way, report the trace below."


Row = TypeVar("Row")


@dataclass(frozen=True)
class SampleRow:
    """The samples of one step, one cell per prompt."""

    step: int
    cells: list[Sample | None]

    @property
    def label(self) -> str:
        """Heading of the row: the step, or “base”."""
        return f"{self.step:,}" if self.step else "base"


@dataclass(frozen=True)
class LossRow:
    """The loss at one step, raw and smoothed."""

    step: int
    raw: float
    smoothed: float


@dataclass(frozen=True)
class ValidationRow:
    """Validation loss at a step, with its 95 % confidence interval."""

    step: int
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class LogLine:
    """An event of the run, as text."""

    event: Event
    text: str
    after: str


@dataclass(frozen=True)
class RunView:
    """A run with everything its page shows."""

    run: Run
    base: BaseModel
    adapter: Adapter | None
    version: AdapterVersion | None
    image_count: int
    prompts: list[str]
    rows: list[SampleRow]
    older_samples: int | None
    samples_before: int | None
    checkpoints: list[Checkpoint]
    log: list[LogLine]
    losses: list[LossRow]
    held_out: list[ValidationRow]
    runs_ahead: int
    worker_present: bool
    elapsed: float | None
    adapter_bytes: int | None

    @property
    def is_active(self) -> bool:
        """True while the page should keep polling."""
        return self.run.state.is_active

    @property
    def last_step(self) -> int:
        """The last step with a loss."""
        return self.losses[-1].step if self.losses else 0

    @property
    def percent(self) -> int:
        """Percentage of steps done."""
        return min(100, 100 * self.run.step // max(1, self.run.total_steps))

    @property
    def headline(self) -> str:
        """State of the run, in a few words."""
        run = self.run
        steps = f"{run.step:,} of {run.total_steps:,}"
        if run.state is JobStatus.QUEUED:
            return "Waiting to continue" if run.step else "Waiting for a worker"
        if run.state is JobStatus.RUNNING:
            starting = not run.step and run.phase in PHASES
            return PHASES[str(run.phase)] if starting else f"Step {steps}"
        if run.state is JobStatus.SUCCEEDED:
            done = plural(run.step, "step")
            return f"Stopped and kept after {done}" if run.stop_requested else f"Trained {done}"
        words = {JobStatus.FAILED: "Failed", JobStatus.CANCELED: "Canceled"}
        return f"{words.get(run.state, 'Paused')} at step {steps}"

    @property
    def detail(self) -> str:
        """Speed and time left while training; else its wait or its duration."""
        run = self.run
        if run.state is JobStatus.QUEUED:
            return self._waiting_for()
        if run.state is not JobStatus.RUNNING:
            return duration(self.elapsed) if self.elapsed is not None else ""
        if run.cancel_requested:
            return "canceling…"
        if run.stop_requested:
            return "stopping; the adapter will be kept"
        parts = []
        if run.step and run.phase in PHASES:
            parts.append(PHASES[run.phase].lower())
        if run.steps_per_second:
            parts.append(f"{run.steps_per_second:.1f} steps/s")
        left = service.eta_seconds(run)
        if left is not None:
            parts.append(f"{about(left)} left")
        return " · ".join(parts)

    def _waiting_for(self) -> str:
        if self.runs_ahead:
            return f"{plural(self.runs_ahead, 'run')} ahead of it"
        if not self.worker_present:
            return "no training worker is running"
        return "starts in a moment"

    @property
    def announcement(self) -> str:
        """Text for screen readers, changed at most every ten percent."""
        if not self.is_active:
            return self.headline
        return f"{self.percent // ANNOUNCE_EVERY * ANNOUNCE_EVERY} % trained"

    @property
    def advice(self) -> str:
        """Advice after a failure."""
        return ADVICE.get(self.run.error_code or "", DEFAULT_ADVICE)

    @property
    def full_tuning_bytes(self) -> int | None:
        """Memory of full fine-tuning without activations: weights, gradients and AdamW's two
        states, each in fp32; None while the base model's size is unknown."""
        parameters = self.run.base_parameters
        return FULL_TUNING_BYTES_PER_PARAMETER * parameters if parameters else None

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run, oldest first."""
        return [line.text for line in reversed(self.log) if line.event.kind == WARNING]

    @property
    def held_out_sentence(self) -> str:
        """Change of the validation loss, in one sentence; empty without validation images."""
        if not self.held_out:
            return ""
        first, last = self.held_out[0], self.held_out[-1]
        best = min(self.held_out, key=lambda row: row.loss)
        if first is last:
            return f"Validation loss {last.loss:.3f} at step {last.step:,}."
        return (
            f"Validation loss {first.loss:.3f} at step {first.step:,}, {last.loss:.3f} at step "
            f"{last.step:,}; lowest {best.loss:.3f} at step {best.step:,}."
        )

    @property
    def held_out_rows(self) -> list[ValidationRow]:
        """The validation losses of the table."""
        return _thinned(self.held_out)

    @property
    def loss_sentence(self) -> str:
        """Change of the smoothed loss, in one sentence."""
        if not self.losses:
            return "The loss appears after the first steps."
        first, last = self.losses[0], self.losses[-1]
        if first is last:
            return f"Loss {last.smoothed:.3f} at step {last.step:,}."
        moved = "fell" if last.smoothed < first.smoothed else "rose"
        return (
            f"Smoothed loss {moved} from {first.smoothed:.3f} at step {first.step:,} "
            f"to {last.smoothed:.3f} at step {last.step:,}."
        )

    def parts(self) -> dict[str, str]:
        """A token for each part of the page; a part is resent when its token changes."""
        run = self.run
        requests = (run.cancel_requested, run.stop_requested, run.sample_requested)
        shown = sum(1 for row in self.rows for cell in row.cells if cell)
        newest = max((cell.id or 0 for row in self.rows for cell in row.cells if cell), default=0)
        return {
            "head": "".join(
                [
                    run.status,
                    *("1" if requested else "0" for requested in (*requests, run.save_requested)),
                ]
            ),
            "samples": f"{shown}.{newest}.{run.state.is_active:d}",
            "side": f"{run.status}.{run.trainable_parameters}.{len(self.checkpoints)}."
            f"{max((row.step for row in self.checkpoints), default=0)}.{run.peak_memory_bytes}",
            "log": f"{self.log[0].event.id if self.log else 0}",
            "loss": f"{run.status}.{self.last_step}.{len(self.held_out)}",
            "warnings": f"{len(self.warnings)}",
            "announce": self.announcement.replace(" ", ""),
        }


def run_view(session: Session, run_id: int, *, samples_before: int | None = None) -> RunView:
    """Contents of the page of a run, with the newest samples before this step.

    Raises NotFound.
    """
    run = service.get_run(session, run_id)
    trained = adapters.trained_version(session, run)
    page = list_sample_page(session, run_id, before=samples_before)
    metrics = service.run_metrics(session, run_id, keys=CHART_METRICS, most=None)
    prompts = [str(prompt) for prompt in run.config.get("sample_prompts", [])]
    return RunView(
        run=run,
        base=base_models.get_base_model(session, run.base_model_id),
        adapter=trained[0] if trained else None,
        version=trained[1] if trained else None,
        image_count=service.run_image_count(session, run),
        prompts=prompts,
        rows=_sample_rows(page.samples, len(prompts)),
        older_samples=page.older,
        samples_before=page.before,
        checkpoints=service.run_checkpoints(session, run_id),
        log=_log_lines(run, service.run_events(session, run_id)),
        losses=_loss_rows(metrics),
        held_out=_held_out(metrics),
        runs_ahead=service.runs_ahead(session, run),
        worker_present=service.has_train_worker(session),
        elapsed=service.queue_seconds(session, run),
        adapter_bytes=adapters.download_bytes(session, trained[1]) if trained else None,
    )


def _sample_rows(samples: Sequence[Sample], prompt_count: int) -> list[SampleRow]:
    """Sample rows, the newest step first, the base model last."""
    width = max([prompt_count, *(sample.prompt_index + 1 for sample in samples)])
    rows: dict[int, list[Sample | None]] = {}
    for sample in samples:
        rows.setdefault(sample.step, [None] * width)[sample.prompt_index] = sample
    return [SampleRow(step, rows[step]) for step in sorted(rows, reverse=True)]


def _loss_rows(metrics: dict[str, Any]) -> list[LossRow]:
    """About twenty rows of the loss with its debiased moving average, including the last step."""
    points = metrics["series"].get("loss", {"steps": [], "values": []})
    average, weight = 0.0, 0.0
    rows = []
    for step, value in zip(points["steps"], points["values"], strict=True):
        if value is None:
            continue
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        rows.append(LossRow(step, value, average / weight))
    return _thinned(rows)


def _thinned(rows: list[Row]) -> list[Row]:
    """At most about twenty of these, evenly spaced, including the first and the last."""
    kept = rows[:: max(1, -(-len(rows) // TABLE_ROWS))]
    return kept if not rows or kept[-1] is rows[-1] else [*kept, rows[-1]]


def _held_out(metrics: dict[str, Any]) -> list[ValidationRow]:
    series = metrics["series"]
    if not all(key in series for key in HELD_OUT):
        return []
    columns = [series[key]["values"] for key in HELD_OUT]
    return [
        ValidationRow(step, *values)
        for step, *values in zip(series[HELD_OUT[0]]["steps"], *columns, strict=True)
        if None not in values
    ]


def _log_lines(run: Run, events: Sequence[Event]) -> list[LogLine]:
    """Events of the run, newest first, each with the time since the run was queued."""
    lines = []
    for event in events:
        seconds = (event.at - run.created_at).total_seconds()
        after = f"+ {duration(seconds)}" if seconds >= 1 else "at once"
        lines.append(LogLine(event, _log_text(event), after))
    return lines


def _log_text(event: Event) -> str:
    data = event.data
    if event.kind == JobStatus.RUNNING and data.get("attempt", 1) > 1:
        return f"Started again (attempt {data['attempt']})"
    if event.kind == JobStatus.QUEUED and data.get("was") == JobStatus.RUNNING:
        return "The worker stopped; waiting for another one"
    if event.kind == "resumed":
        return f"Resumed at step {data.get('step', 0):,}"
    if event.kind == JobStatus.FAILED:
        return f"Failed: {data.get('error', 'no reason was recorded')}"
    for key in ("text", "sentence", "detail"):
        if key in data:
            return str(data[key])
    return EVENT_WORDS.get(event.kind, event.kind.replace("_", " ").capitalize())


EVENT_WORDS = {
    "queued": "Queued",
    "running": "Started",
    "succeeded": "Finished",
    "canceled": "Canceled",
    "cancel_requested": "Cancel requested",
    "stop_requested": "Stop and keep requested",
    "sample_requested": "Samples requested",
    "save_requested": "Checkpoint requested",
}
