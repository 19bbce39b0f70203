"""A stand-in for the workers: writes rows and pictures as they would, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service
from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.versions.create_version import (
    NewFile,
    NewVersion,
    adapter_of_parent,
    publish,
)
from app.registry.base_models import service as base_models
from app.registry.base_models.precisions import record_choice
from app.registry.base_models.speeds import trained_layers
from app.registry.datasets import service as datasets
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.used_datasets import dataset_details, used_datasets
from app.registry.db import utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.renders.covers import take_cover
from app.registry.runs import progress, requests, stopping
from app.registry.runs.checkpoint_adapters import NewAdapter, add_adapter
from app.registry.runs.progress import MetricPoints, NewSample
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel, BasePrecision, BaseSpeed, ModelStatus
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import WorkerPresence
from app.registry.tables.renders import Render, RenderImage
from app.registry.tables.runs import RUINED, Run
from tests.conftest import embedded_info
from tests.images import make_png
from tests.made_once import made_once
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset, preset_config

LEASE_SECONDS = 600.0
PRECISION = "fp32"
TRAINABLE, BASE_PARAMETERS = 281_000, 19_300_000


def blob(state: AppState, content: bytes) -> str:
    """The hash of a stored blob with this content."""
    return state.store.put_bytes(content).sha256


def ready_base(state: AppState) -> BaseModel:
    """The embedded base as an io worker leaves it."""
    with state.database.write() as session:
        base = base_models.ensure_embedded(session)
        base.status, base.family = ModelStatus.READY, "sd1"
        base.resolution = embedded_info().resolution
        base.parameters, base.size_bytes = {"unet": BASE_PARAMETERS}, 39_000_000
        session.add(base)
        session.flush()
        return base


def embedded_preset(preset: Preset) -> TrainConfig:
    """The config of a preset for the embedded base and 24 images."""
    return preset_config(preset, resolution=embedded_info().resolution, images=24, evaluate=True)


def measured_base(state: AppState) -> BaseModel:
    """The embedded base with the speed a train worker measured."""
    base = ready_base(state)
    with state.database.write() as session:
        session.add(
            BaseSpeed(
                base_model_id=base.key,
                batch_size=8,
                resolution=embedded_info().resolution,
                rank=8,
                layers=trained_layers(embedded_preset(Preset.QUICK)),
                seconds_per_step=0.2,
                trainable_parameters=TRAINABLE,
                adapter_bytes=590_000,
            )
        )
    return base


def dataset(
    state: AppState, name: str = "Chalk", *, pictures: int = 3, trigger_word: str = "chalkboard"
) -> Dataset:
    """A dataset with captioned pictures."""
    with state.database.write() as session:
        row = datasets.create_dataset(session, name, trigger_word=trigger_word)
        images = []
        for number in range(pictures):
            sha256 = blob(state, make_png(number))
            images.append(
                NewImage(
                    filename=f"{number}.png",
                    sha256=sha256,
                    clean_sha256=sha256,
                    thumbnail_sha256=sha256,
                    width=80,
                    height=64,
                    size_bytes=400,
                    caption="a fox",
                )
            )
        datasets.add_images(session, row.key, images)
        return row


def queued_run(state: AppState, of: Dataset, **config: Any) -> Run:
    """A run that waits; keywords are settings that differ from the quick preset."""
    settings = {"steps": 40, "sample_prompts": ["a castle", "a rocket"]} | config
    request = requests.RunRequest(dataset_id=of.key, preset=Preset.QUICK, config=settings)
    with state.database.write() as session:
        return requests.create_run(session, request)


def run_with_checkpoints(state: AppState, of: Dataset) -> FakeTraining:
    """A run with checkpoints at steps 20 and 40, which has not ended."""
    queued_run(state, of)
    training = FakeTraining(state)
    for _ in range(2):
        training.train(20)
        training.checkpoint()
    return training


@dataclass
class FakeTraining:
    """A train worker at work on the run that waits longest."""

    state: AppState
    run_id: int = 0
    claim: Claim = field(default_factory=lambda: Claim(0, ""))
    step: int = 0

    def __post_init__(self) -> None:
        with self.state.database.write() as session:
            claimed = jobs.claim_next(session, Run, lease_seconds=LEASE_SECONDS)
            assert claimed is not None, "no run waits"
            self.run_id, self.claim = claimed[0].key, claimed[1]

    def train(self, steps: int, *, phase: str = "training") -> None:
        """Do some steps; the loss falls, and the learning rate rises for the first eight."""
        first = self.step + 1
        self.step += steps
        losses = [1 / (1 + number) for number in range(first, self.step + 1)]
        rates = [0.002 * min(1.0, number / 8) for number in range(first, self.step + 1)]
        values = {
            "step": self.step,
            "phase": phase,
            "steps_per_second": 4.0,
            "trainable_parameters": TRAINABLE,
            "base_parameters": BASE_PARAMETERS,
        }
        with self.state.database.write() as session:
            points = MetricPoints(first, {"loss": losses, "learning_rate": rates})
            progress.write_progress(session, self.claim, values, points)

    def sample(self, step: int, prompts: Sequence[str] = ("a castle", "a rocket")) -> None:
        """Draw a row of samples."""
        with self.state.database.write() as session:
            for index, prompt in enumerate(prompts):
                sha256 = blob(self.state, make_png(step * 10 + index))
                new = NewSample(step, index, prompt, seed=index, sha256=sha256)
                progress.add_sample(session, self.claim, new)

    def checkpoint(
        self, *, requested: bool = False, keep: int | None = None, best: int | None = None
    ) -> None:
        """Keep the state and the adapter of this step; `keep` limits the adapters."""
        text = f"run {self.run_id}, step {self.step}"
        adapter = self.state.store.put_bytes(f"adapter of {text}".encode())
        folder = self.state.store.put_bytes(f"state of {text}".encode() * 9)
        with self.state.database.write() as session:
            new = NewAdapter(
                self.step, adapter.sha256, adapter.size, adapter.sha256, requested, best
            )
            add_adapter(session, self.claim, new, keep=keep)
            progress.add_checkpoint(
                session,
                self.claim,
                step=self.step,
                sha256=folder.sha256,
                size_bytes=folder.size,
                keep=2,
                is_requested=requested,
                best=best,
            )

    def cancel(self) -> None:
        """End without an adapter."""
        with self.state.database.write() as session:
            jobs.finish(session, Run, self.claim, JobStatus.CANCELED)

    def fail(self, code: str, error: str) -> None:
        """End with an error."""
        with self.state.database.write() as session:
            jobs.finish(
                session,
                Run,
                self.claim,
                JobStatus.FAILED,
                error_code=code,
                error=error,
                error_trace="Traceback: here",
            )

    def finish(self, *, ruined: str | None = None, good_steps: Sequence[int] = ()) -> Adapter:
        """Publish the adapter and end well, or `ruined` for this reason."""
        outcome: dict[str, Any] = {}
        if ruined:
            outcome = {"outcome": RUINED, "outcome_reason": ruined, "good_steps": list(good_steps)}
        with self.state.database.write() as session:
            run = session.get_one(Run, self.run_id)
            return _publish(self.state, session, run, self.claim, **outcome)


def _publish(state: AppState, session: Session, run: Run, claim: Claim, **outcome: Any) -> Adapter:
    words = [run.trigger_word] if run.trigger_word else []
    said = dataset_details(used_datasets(session, run))
    new = NewVersion(
        name=run.name,
        base_family="sd1",
        sha256=blob(state, f"adapter of run {run.key}, step {run.step}".encode()),
        size_bytes=1_124_000,
        rank=8,
        alpha=8.0,
        trigger_words=words,
        base_model_id=run.base_model_id,
        dataset_version_id=run.dataset_version_id,
        run_id=run.key,
        steps=run.step,
        trainable_parameters=TRAINABLE,
        base_parameters=BASE_PARAMETERS,
        peak_memory_bytes=910_000_000,
        training_seconds=41.0,
        config=run.config,
        files=[NewFile("kohya", "fp16", blob(state, b"file"), 590_000, proof={"passed": True})],
        ruined=outcome.get("outcome_reason"),
        becomes_latest=not outcome,
        details={key: value for key, value in said.items() if key == "datasets"},
    )
    choice = stopping.result_choice(session, run) if new.becomes_latest else None
    if choice is not None:
        new = replace(new, becomes_latest=choice.make_latest)
    version = publish(session, new, adapter_id=adapter_of_parent(session, run))
    if choice is not None:
        stopping.record_choice(session, run, choice, version)
    for file in service.version_files(session, version.key):
        file.facts_sha256 = facts_sha256(version_metadata(session, version))
        session.add(file)
    jobs.finish(
        session,
        Run,
        claim,
        JobStatus.SUCCEEDED,
        adapter_version_id=version.key,
        training_seconds=41.0,
        peak_memory_bytes=910_000_000,
        **outcome,
    )
    return session.get_one(Adapter, version.adapter_id)


def adapter(state: AppState, name: str = "Chalk", *, trigger_word: str = "chalkboard") -> Adapter:
    """An adapter trained on a dataset of the same name, with a row of samples.

    On a database without others, it is made once and then copied with all rows and files.
    """

    def train() -> int:
        queued_run(state, dataset(state, name, trigger_word=trigger_word))
        training = FakeTraining(state)
        training.sample(0)
        training.train(40)
        training.sample(40)
        return training.finish().key

    key = made_once(state, (name, trigger_word), train)
    with state.database.read() as session:
        return session.get_one(Adapter, key)


def draw(state: AppState, most: int = 10_000) -> list[Render]:
    """Draw at most so many renders that wait, as a render worker would; gives them in order."""
    drawn: list[Render] = []
    with state.database.write() as session:
        while len(drawn) < most:
            claimed = jobs.claim_next(session, Render, lease_seconds=LEASE_SECONDS)
            if claimed is None:
                break
            render, claim = claimed
            for index in range(render.count):
                sha256 = blob(state, make_png(100 + render.key + 1_000 * index, drawn_size(render)))
                shown = {"index": index, "seed": render.seed + index, "sha256": sha256}
                if render.weights is not None:
                    shown["seed"] = render.seed
                session.add(RenderImage(render_id=render.key, **shown))
            choose_precision(session, render.base_model_id)
            values = {"progress": render.steps, "seconds": 0.8, "precision": PRECISION}
            jobs.finish(session, Render, claim, JobStatus.SUCCEEDED, **values)
            take_cover(session, render)
            drawn.append(render)
    return drawn


def drawn_size(render: Render) -> tuple[int, int]:
    """A small size in the proportions of the render: its page keeps its place for the image."""
    longest = max(render.width, render.height)
    return 80 * render.width // longest, 80 * render.height // longest


def choose_precision(session: Session, base_model_id: int) -> None:
    """Store the precision of a base model, as a render worker does before its first image."""
    base = session.get_one(BaseModel, base_model_id)
    choice = BasePrecision(base_model_id=base.key, machine="cpu", precision=PRECISION)
    choice.fingerprint = base.fingerprint
    record_choice(session, choice)


def worker_seen(state: AppState, queue: str) -> None:
    """The row of a worker that lives."""
    with state.database.write() as session:
        session.add(
            WorkerPresence(
                id=f"{queue}-1",
                queue=queue,
                host="here",
                pid=1,
                device="CPU",
                seen_at=utcnow() + timedelta(seconds=1),
            )
        )


def weighted(
    adapter_id: int,
    weight: float = 1.0,
    text_encoder_weight: float | None = None,
    version: int | str | None = None,
) -> WeightedAdapter:
    """An adapter with its weights, as a request names it."""
    return WeightedAdapter(
        adapter_id=adapter_id,
        weight=weight,
        text_encoder_weight=text_encoder_weight,
        version=version,
    )
