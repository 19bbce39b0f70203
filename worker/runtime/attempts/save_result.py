"""Saves a finished training as a version of an adapter and completes its run, atomically."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.registry.adapters.downloads import facts_sha256, future_metadata, with_cover
from app.registry.adapters.versions.create_version import (
    NewFile,
    NewVersion,
    adapter_of_parent,
    publish,
)
from app.registry.base_models.speeds import record_speed
from app.registry.datasets.used_datasets import dataset_details
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import progress, stopping
from app.registry.runs.stopping import StopProposal
from app.registry.storage.store import Blob
from app.registry.tables.runs import RUINED, Run
from worker.core.families.family import FALLBACK_FAMILY
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.safetensors_header import tensor_hash
from worker.core.training.config import TrainConfig
from worker.core.training.outcome import TrainedAdapter
from worker.core.words import LORA_FORMATS, FileFormat, WeightDtype
from worker.runtime.attempts.report import Reporter
from worker.runtime.attempts.work import RunInputs, RunWork
from worker.runtime.messages import Export, ExportFile, ExportReport

DOWNLOADS = tuple((form, WeightDtype.FP16) for form in LORA_FORMATS)


class TrainingResult:
    """Stores the result of a training: the adapter, its downloads and the run's final status."""

    def __init__(
        self, work: RunWork, reporter: Reporter, inputs: RunInputs, trained: TrainedAdapter
    ) -> None:
        self._work = work
        self._run = work.run
        self._lease = work.lease
        self._reporter = reporter
        self._inputs = inputs
        self._trained = trained
        self._config = TrainConfig.model_validate(work.run.config)
        assert trained.path is not None
        self._canonical: Path = trained.path
        self._new: NewVersion | None = None
        self._facts_sha256: str | None = None

    def export_order(self) -> Export:
        """Store the canonical file; the order for the trainer to write downloads next to it."""
        self._reporter.persist(lambda session: jobs.require_owner(session, Run, self._lease.claim))
        canonical, tensors = self._put(self._canonical), tensor_hash(self._canonical)
        scratch = self._canonical.parent

        def read_metadata() -> AdapterMetadata:
            with self._work.database.read() as session:
                self._new = self._new_version(session, canonical, tensors)
                parent = adapter_of_parent(session, self._run)
                metadata = future_metadata(session, self._new, adapter_id=parent)
            self._facts_sha256 = facts_sha256(metadata)
            return with_cover(metadata, self._work.store, scratch)

        metadata = self._reporter.wait_out(read_metadata, is_cancelable=True)
        files = [
            ExportFile(form, dtype, scratch / f"{form}-{dtype}{form.suffix}")
            for form, dtype in DOWNLOADS
        ]
        return Export(files, metadata, self._inputs.base.location)

    def publish(self, exported: ExportReport) -> None:
        """Store the downloads, then write adapter, version and the run's final status."""
        self._reporter.persist(lambda session: jobs.require_owner(session, Run, self._lease.claim))
        files: list[NewFile] = []
        kohya: list[Path] = []
        for file in exported.files:
            if file.problem:  # keep the adapter; only this file is not offered
                self._reporter.notices.append(
                    f"The {file.format} file in {file.dtype} is not offered: {file.problem}"
                )
                continue
            blob = self._put(file.path)
            kohya += [file.path] if file.format is FileFormat.KOHYA else []
            new = NewFile(file.format, file.dtype, blob.sha256, blob.size, file.proof)
            files.append(replace(new, facts_sha256=self._facts_sha256))
        kohya_tensors = tensor_hash(kohya[0]) if kohya else None

        self._reporter.persist(lambda session: self._write_version(session, files, kohya_tensors))
        self._lease.release()

    def _put(self, path: Path) -> Blob:
        return self._reporter.wait_out(lambda: self._work.store.put_file(path), is_cancelable=True)

    def _write_version(
        self, session: Session, files: list[NewFile], kohya_tensors: str | None
    ) -> None:
        assert self._new is not None
        # also locks the row: no other worker publishes this run
        self._reporter.write_pending(session)
        # it may have been renamed, and a checkpoint may have made an adapter meanwhile
        now = session.get_one(Run, self._run.key)
        new = replace(
            self._new,
            name=now.name,
            training_seconds=self._reporter.training_seconds,
            files=files,
            details=self._new.details
            | {"tensor_sha256": kohya_tensors, "notices": self._reporter.notices},
        )
        choice = self._result_choice(session)
        if choice is not None:
            new = replace(new, becomes_latest=choice.make_latest)
        version = publish(session, new, adapter_id=adapter_of_parent(session, now))
        if choice is not None:
            stopping.record_choice(session, now, choice, version)
        self._record_speed(session, files)
        jobs.finish(
            session,
            Run,
            self._lease.claim,
            JobStatus.SUCCEEDED,
            adapter_version_id=version.key,
            phase=None,
            **self.outcome(),
        )
        if self._work.settings.evaluate_runs:
            progress.order_evaluation(session, now)

    def _result_choice(self, session: Session) -> StopProposal | None:
        """Whether the result becomes the version in use; None: it is ruined, and does not."""
        if self._trained.verdict.reason is not None:
            return None
        run = session.get_one(Run, self._run.key)
        return stopping.result_choice(session, run, steps=self._trained.steps)

    def outcome(self) -> dict[str, Any]:
        """The columns of the run that say whether its result is ruined."""
        verdict = self._trained.verdict
        if verdict.reason is None:
            return {}
        return {
            "outcome": RUINED,
            "outcome_reason": verdict.reason,
            "good_steps": list(verdict.good_steps),
        }

    def _new_version(self, session: Session, canonical: Blob, tensors: str) -> NewVersion:
        """The version to publish, before its downloads are written."""
        run, base, trained = self._run, self._inputs.base, self._trained
        cover, choice = progress.last_sample(session, run.key), self._result_choice(session)
        return NewVersion(
            name=session.get_one(Run, run.key).name,  # it may have been renamed since it started
            base_family=base.family or FALLBACK_FAMILY,
            sha256=canonical.sha256,
            size_bytes=canonical.size,
            tensor_sha256=tensors,
            rank=self._config.rank,
            alpha=self._config.alpha,
            trigger_words=[run.trigger_word] if run.trigger_word else [],
            base_model_id=base.key,
            dataset_version_id=run.dataset_version_id,
            run_id=run.key,
            steps=trained.steps,
            trainable_parameters=trained.trainable_parameters,
            base_parameters=trained.base_parameters,
            peak_memory_bytes=trained.peak_memory_bytes,
            training_seconds=self._reporter.training_seconds,
            cover_sha256=cover.sha256 if cover else None,
            ruined=trained.verdict.reason,
            becomes_latest=choice is not None and choice.make_latest,
            config=dict(run.config),
            details={
                "outcome": trained.outcome,
                **dataset_details(self._inputs.datasets),
                "base": base.name,
            },
        )

    def _record_speed(self, session: Session, files: list[NewFile]) -> None:
        seconds = self._reporter.seconds_per_step
        resolution = self._config.resolution or self._inputs.base.resolution
        if seconds is None or resolution is None or not files:
            return
        record_speed(
            session,
            self._inputs.base.key,
            self._config,
            resolution=resolution,
            seconds_per_step=seconds,
            trainable_parameters=self._trained.trainable_parameters,
            adapter_bytes=files[0].size_bytes,
            steps=self._reporter.measured_steps,
        )
