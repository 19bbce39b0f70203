"""Contents of the run page, computed for each request."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from app.registry import evaluations
from app.registry.actor import actor_text
from app.registry.adapters import service as adapters
from app.registry.adapters.versions.aliases import alias_numbers
from app.registry.base_models import service as base_models
from app.registry.blobs.report import bad_files_of
from app.registry.blobs.subjects import Subject
from app.registry.datasets.used_datasets import UsedDataset, image_total, used_datasets
from app.registry.db import Session
from app.registry.evaluations import EvaluationView
from app.registry.job_kinds.kinds import EvaluationResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.quotas import waits_until
from app.registry.runs import changing, checkpoints, service, stopping
from app.registry.runs.checkpoints import RunCheckpoint, SamplePage
from app.registry.runs.epochs import Epochs, run_epochs
from app.registry.runs.presets import preset_title
from app.registry.runs.progress import run_metrics
from app.registry.runs.service import runs_ahead
from app.registry.runs.settings import Setting, run_settings
from app.registry.tables.adapters import LATEST, Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import Event
from app.registry.tables.runs import RUINED, WARNING, Run, Sample
from app.registry.wording import about, ago, duration, plural
from app.web.clock import clock
from app.web.runs.chart_view import CHART_METRICS, MARKS, Chart, chart_of, marks_of, thin_out
from app.web.used_version import use_address

FULL_TUNING_BYTES_PER_PARAMETER = 16
ANNOUNCE_EVERY = 10  # percent between two announcements for screen readers

PHASES = {
    "preparing": "Getting ready",
    "encoding": "Preparing images",
    "sampling": "Generating samples",
    "saving": "Saving",
    "waiting": "Waiting for space",
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
OTHER_GROUP = "Of another version of Brushwork"
DEFAULT_ADVICE = "Train again. If it fails the same way, report the trace below."


@dataclass(frozen=True)
class SampleRow:
    """The samples of one step, one cell per prompt, and its checkpoint, if there is one."""

    step: int
    cells: list[Sample | None]
    checkpoint: RunCheckpoint | None = None

    @property
    def label(self) -> str:
        """Heading of the row: the step, or “base”."""
        return f"{self.step:,}" if self.step else "base"

    @property
    def prompt(self) -> str:
        """The first prompt, to try the checkpoint with."""
        return next((cell.prompt for cell in self.cells if cell), "")


@dataclass(frozen=True)
class LogLine:
    """An event of the run, as text."""

    event: Event
    text: str
    actor: str


@dataclass(frozen=True)
class RunView:
    """A run with everything its page shows."""

    run: Run
    base: BaseModel
    adapter: Adapter | None
    version: AdapterVersion | None
    used_number: int | None
    image_count: int
    datasets: list[UsedDataset]
    epochs: Epochs
    prompts: list[str]
    rows: list[SampleRow]
    older_samples: int | None
    samples_before: int | None
    checkpoint_count: int
    log: list[LogLine]
    chart: Chart
    runs_ahead: int
    worker_present: bool
    elapsed: float | None
    adapter_bytes: int | None
    bad_files: list[str]
    good_checkpoint: RunCheckpoint | None = None
    recommendation: EvaluationResult | None = None
    evaluation: EvaluationView | None = None
    device_time_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """True while the page should keep polling."""
        return self.run.state.is_active

    @property
    def percent(self) -> int:
        """Percentage of the planned steps that were done, also of a run that was stopped."""
        return min(100, 100 * self.run.step // max(1, self.run.total_steps))

    @property
    def headline(self) -> str:
        """State of the run, in a few words."""
        run = self.run
        steps = f"{run.step:,} of {run.total_steps:,}"
        if run.state is JobStatus.QUEUED and self.device_time_at:
            return "Waiting for device time"
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
        if self.run.waits_for:
            return "goes on by itself"
        if self.device_time_at:
            return f"until {clock(self.device_time_at)}"
        if self.runs_ahead:
            return f"{plural(self.runs_ahead, 'run')} ahead of it"
        if not self.worker_present:
            return "no training worker is running"
        return "starts in a moment"

    @property
    def announcement(self) -> str:
        """Text for screen readers, changed at most every ten percent."""
        if not self.is_active:
            return f"{self.headline}, ruined" if self.run.outcome == RUINED else self.headline
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
    def loss_rise(self) -> str:
        """The ratio to the base model's loss on the fixed images, as text."""
        rise = self.run.loss_rise or 1.0
        return f"{rise:.1f}" if rise < 10 else f"{rise:,.0f}"

    @property
    def saved(self) -> list[RunCheckpoint]:
        """The checkpoints of the shown rows."""
        return [row.checkpoint for row in self.rows if row.checkpoint]

    @property
    def _checkpoint_token(self) -> str:
        """Changes when something is saved, kept, used or deleted."""
        found = [
            f"{row.step}{'s' * bool(row.state)}{'a' * bool(row.version)}{'k' * row.kept}"
            f"{'u' * bool(row.used_as)}{'i' * row.is_in_use}"
            for row in self.saved
        ]
        return f"{zlib.crc32('.'.join(found).encode()):x}"

    @property
    def _outcome_token(self) -> str:
        """Changes with the outcome, the rise of the loss, and what is done about them."""
        run, good = self.run, self.good_checkpoint
        rise = self.loss_rise if run.loss_rise and run.state is JobStatus.RUNNING else ""
        offer = f"{good.step}{good.is_in_use:d}" if good else ""
        asked = run.stop_requested or run.cancel_requested
        return f"{run.outcome or ''}.{rise}.{asked:d}.{offer}.{self.used_number}"

    @property
    def use_other(self) -> tuple[str, str, str] | None:
        """(text, address, label): which version is in use, and the form that uses the other one.

        None if the result had no other to replace, or the other one is in use meanwhile.
        """
        events = [line.event.data for line in self.log if stopping.UNDO in line.event.data]
        if not events or self.version is None or self.adapter is None or self.adapter.deleted_at:
            return None
        number = events[0][stopping.UNDO]
        if number == self.used_number:
            return None
        is_new = number == self.version.version
        label = "Use this version" if is_new else f"Use version {number} again"
        address = use_address(self.adapter.slug, number, f"/runs/{self.run.key}")
        return events[0]["text"], address, label

    @property
    def can_compare(self) -> bool:
        """True if two steps have samples, apart from the base model."""
        return sum(any(row.cells) and row.step > 0 for row in self.rows) > 1

    @property
    def scrub_link(self) -> str:
        """The playground with an image for each checkpoint; empty for fewer than two."""
        saved = [row for row in self.rows if row.checkpoint and row.checkpoint.reference]
        if len(saved) < 2 or saved[0].checkpoint is None:
            return ""
        prompt = next((row.prompt for row in saved if row.prompt), "")
        query = {"adapter": saved[0].checkpoint.reference, "prompt": prompt, "scrub": "1"}
        return f"/play?{urlencode(query)}"

    @property
    def ending(self) -> str:
        """The remains of a run that ended without an adapter, as text; empty for others."""
        if self.run.state not in (JobStatus.CANCELED, JobStatus.FAILED):
            return ""
        if not self.checkpoint_count:
            return ""
        which = "Its checkpoint" if self.checkpoint_count == 1 else "Its checkpoints"
        return f"{which} can still be tried, downloaded and used."

    def parts(self) -> dict[str, str]:
        """A token for each part of the page; a part is resent when its token changes."""
        run = self.run
        requests = (run.cancel_requested, run.stop_requested, run.sample_requested)
        shown = sum(1 for row in self.rows for cell in row.cells if cell)
        changes = f"{len(run.changes)}{run.change_requested is None:d}{run.state.is_final:d}"
        newest = max((cell.id or 0 for row in self.rows for cell in row.cells if cell), default=0)
        return {
            "head": "".join(
                [
                    run.status,
                    *("1" if requested else "0" for requested in (*requests, run.save_requested)),
                ]
            ),
            "times": f"{len(run.times)}.{ago(run.times[-1][1])}".replace(" ", ""),
            "samples": f"{shown}.{newest}.{run.state.is_active:d}.{self._checkpoint_token}",
            "side": f"{run.status}.{run.trainable_parameters}.{run.peak_memory_bytes}",
            "log": f"{self.log[0].event.id if self.log else 0}.{changes}",
            "settings": changes,
            "loss": f"{run.status}.{self.chart.last_step}.{len(self.chart.held_out)}",
            "marks": self.chart.marks_token,
            "warnings": f"{len(self.warnings)}.{self._outcome_token}",
            "announce": self.announcement.replace(" ", ""),
        }


def run_view(session: Session, run_id: int, *, samples_before: int | None = None) -> RunView:
    """Contents of the page of a run, with the newest samples before this step.

    Raises NotFound.
    """
    run = service.get_run(session, run_id)
    trained = adapters.trained_version(session, run)
    page = checkpoints.list_sample_page(session, run_id, before=samples_before)
    metrics = run_metrics(session, run_id, keys=CHART_METRICS, most=None)
    marked = thin_out(checkpoints.list_marked_steps(session, run_id), most=MARKS)
    used = used_datasets(session, run)
    is_queued = run.state is JobStatus.QUEUED
    prompts = [str(prompt) for prompt in run.config.get("sample_prompts", [])]
    steps = {*page.steps, *(step for step, _ in marked)}
    saved = checkpoints.list_checkpoints(session, run_id, steps=steps)
    return RunView(
        run=run,
        base=base_models.base_of(session, run.base_model_id),
        adapter=trained[0] if trained else None,
        version=trained[1] if trained else None,
        used_number=alias_numbers(session, trained[0].key).get(LATEST) if trained else None,
        image_count=image_total(used),
        datasets=used,
        epochs=run_epochs(session, run),
        prompts=prompts,
        rows=_sample_rows(page, saved, len(prompts)),
        older_samples=page.older,
        samples_before=samples_before,
        checkpoint_count=checkpoints.count_checkpoints(session, run_id),
        log=[
            LogLine(event, _log_text(run, event), actor_text(event.actor))
            for event in service.run_events(session, run_id)
        ],
        chart=chart_of(metrics, marks_of(marked, saved, on_page=page.steps)),
        runs_ahead=runs_ahead(session, run),
        worker_present=service.has_train_worker(session),
        elapsed=service.seconds_so_far(session, run),
        adapter_bytes=adapters.download_bytes(session, trained[1]) if trained else None,
        bad_files=bad_files_of(session, Subject.RUN, run_id),
        good_checkpoint=checkpoints.good_checkpoint(session, run),
        recommendation=evaluations.recommendation(session, run_id),
        evaluation=evaluations.evaluation_to_tell(session, run_id),
        device_time_at=waits_until(session, run.owner_id) if is_queued else None,
    )


def _sample_rows(
    page: SamplePage, saved: Sequence[RunCheckpoint], prompt_count: int
) -> list[SampleRow]:
    """Rows of samples and checkpoints, the newest step first, the base model last."""
    width = max([prompt_count, *(sample.prompt_index + 1 for sample in page.samples)])
    cells: dict[int, list[Sample | None]] = {step: [None] * width for step in page.steps}
    for sample in page.samples:
        cells.setdefault(sample.step, [None] * width)[sample.prompt_index] = sample
    found = {row.step: row for row in saved}
    return [SampleRow(step, cells[step], found.get(step)) for step in sorted(cells, reverse=True)]


def _log_text(run: Run, event: Event) -> str:
    data = event.data
    if event.kind == changing.CHANGED:
        return changing.change_text(run, data)
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
    "running": "Started",
    "succeeded": "Finished",
    "stop_requested": "Stop and keep requested",
    "sample_requested": "Samples requested",
    "save_requested": "Checkpoint requested",
}


@dataclass(frozen=True)
class SettingsPanel:
    """All settings of a run in the groups of the form; `preset`: what they are compared with."""

    preset: str
    changed: list[Setting]
    groups: dict[str, list[Setting]]
    count: int
    json: str


def settings_panel(session: Session, run: Run) -> SettingsPanel:
    """The settings of a run, as its page shows them."""
    found = run_settings(session, run)
    groups: dict[str, list[Setting]] = {}
    for setting in found:
        title = setting.group.label if setting.group else OTHER_GROUP
        groups.setdefault(title, []).append(setting)
    return SettingsPanel(
        preset=preset_title(run),
        changed=[setting for setting in found if setting.changed],
        groups=groups,
        count=len(found),
        json=json.dumps(run.config, indent=2, ensure_ascii=False),
    )
