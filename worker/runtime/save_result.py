"""Saves a finished training as a version of an adapter and completes its run, atomically."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.registry.adapters.downloads.file_facts import USUAL_RESOLUTION, FileFacts, file_slug
from app.registry.adapters.models import Adapter
from app.registry.adapters.service import list_versions
from app.registry.adapters.versions.create_version import (
    NewFile,
    NewVersion,
    adapter_of_parent,
    future_slug,
    publish,
)
from app.registry.base_models import service as base_models
from app.registry.base_models.speeds import record_speed, step_speed
from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.states import JobStatus
from app.registry.runs import progress
from app.registry.runs.models import Run
from app.registry.storage.store import BlobStore
from worker.core.bases.family import FALLBACK_FAMILY
from worker.core.lora_files.header import read_header
from worker.core.training.config import TrainConfig
from worker.runtime.lease import Lease
from worker.runtime.messages import Export, ExportFile, ExportReport, Facts, TrainReport
from worker.runtime.report import Reporter
from worker.runtime.run_inputs import RunInputs

DOWNLOADS = (("kohya", "fp16"), ("peft", "fp16"))


class TrainingResult:
    """Stores the result of a training: the adapter, its downloads and the run's final status."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        run: Run,
        lease: Lease,
        reporter: Reporter,
        inputs: RunInputs,
        trained: TrainReport,
    ) -> None:
        self._database = database
        self._store = store
        self._run = run
        self._lease = lease
        self._reporter = reporter
        self._inputs = inputs
        self._trained = trained
        self._config = TrainConfig.model_validate(run.config)
        assert trained.path is not None
        self._canonical: Path = trained.path
        self._tensors: str | None = None
        self._said: FileFacts | None = None

    def export_order(self) -> Export:
        """The order for the trainer to write downloads next to the canonical file."""
        run, base = self._run, self._inputs.base
        with self._database.read() as session:
            said = self._said = self._file_facts(session)
        scratch = self._canonical.parent
        cover = said.cover_sha256
        shown = cover is not None and self._store.exists(cover)
        facts = Facts(
            title=said.title,
            slug=said.slug,
            family=base.family or FALLBACK_FAMILY,
            base_name=said.base_name,
            resolution=said.resolution,
            created=datetime.now(UTC).isoformat(),
            prediction_type=said.prediction_type,
            trigger_words=list(said.trigger_words),
            training_seconds=self._reporter.training_seconds,
            licence=said.licence,
            images=self._inputs.version.image_count,
            cover=self._store.local_path(cover, scratch) if cover and shown else None,
            config=run.config,
        )
        files = [
            ExportFile(form, dtype, scratch / f"{form}-{dtype}.safetensors")
            for form, dtype in DOWNLOADS
        ]
        return Export(files, facts, base_models.location(base))

    def _file_facts(self, session: Session) -> FileFacts:
        """What `file_facts` will say of the version that is published in a moment."""
        run, base = self._run, self._inputs.base
        parent = adapter_of_parent(session, run)
        adapter = session.get_one(Adapter, parent) if parent is not None else None
        sample = progress.last_sample(session, run.key)
        slug = future_slug(session, run.name, parent)
        number = 1 + len(list_versions(session, parent)) if parent is not None else 1
        cover = sample.sha256 if sample else adapter.cover_sha256 if adapter else None
        predicted = self._config.prediction_type or base.prediction_type
        return FileFacts(
            title=adapter.name if adapter else run.name,
            slug=file_slug(slug, number),
            base_name=base.name,
            resolution=self._config.resolution or base.resolution or USUAL_RESOLUTION,
            prediction_type=str(predicted or "epsilon"),
            trigger_words=tuple(adapter.trigger_words if adapter else self._trigger_words),
            licence=adapter.licence if adapter else "",
            cover_sha256=cover,
        )

    def publish(self, exported: ExportReport) -> None:
        """Store the files, then write adapter, version, downloads and the run's final status."""
        store = self._store
        self._reporter.persist(lambda session: jobs.require_owner(session, Run, self._lease.claim))
        canonical = store.put_file(self._canonical)
        self._tensors = tensor_hash(self._canonical)
        files: list[NewFile] = []
        kohya: list[Path] = []
        said = self._said.sha256 if self._said else None
        for file in exported.files:
            if file.problem:  # keep the adapter; only this file is not offered
                self._reporter.notices.append(
                    f"The {file.format} file in {file.dtype} is not offered: {file.problem}"
                )
                continue
            blob = store.put_file(file.path)
            kohya += [file.path] if file.format == "kohya" else []
            new = NewFile(file.format, file.dtype, blob.sha256, blob.size, file.proof)
            files.append(replace(new, facts_sha256=said))
        details = {
            "outcome": self._trained.outcome,
            "images": self._inputs.version.image_count,
            "dataset": self._inputs.dataset.name,
            "base": self._inputs.base.name,
            "tensor_sha256": tensor_hash(kohya[0]) if kohya else None,
            "notices": self._reporter.notices,
        }
        self._reporter.persist(
            lambda session: self._write_version(
                session, canonical.sha256, canonical.size, files, details
            )
        )
        self._lease.release()

    def _write_version(
        self,
        session: Session,
        sha256: str,
        size_bytes: int,
        files: list[NewFile],
        details: dict[str, Any],
    ) -> None:
        run, base, trained = self._run, self._inputs.base, self._trained
        self._reporter.write_pending(session)  # also locks the row of the run
        cover = progress.last_sample(session, run.key)
        new = NewVersion(
            name=run.name,
            base_family=base.family or FALLBACK_FAMILY,
            sha256=sha256,
            size_bytes=size_bytes,
            rank=self._config.rank,
            alpha=self._config.alpha,
            trigger_words=self._trigger_words,
            base_model_id=base.key,
            dataset_version_id=run.dataset_version_id,
            run_id=run.key,
            steps=trained.steps,
            trainable_parameters=trained.trainable_parameters,
            base_parameters=trained.base_parameters,
            peak_memory_bytes=trained.peak_memory_bytes,
            training_seconds=self._reporter.training_seconds,
            cover_sha256=cover.sha256 if cover else None,
            config=dict(run.config),
            details=details,
            files=files,
            tensor_sha256=self._tensors,
        )
        version = publish(session, new, adapter_id=adapter_of_parent(session, run))
        self._record_speed(session, files)
        jobs.finish(
            session,
            Run,
            self._lease.claim,
            JobStatus.SUCCEEDED,
            adapter_version_id=version.key,
            phase=None,
        )

    def _record_speed(self, session: Session, files: list[NewFile]) -> None:
        seconds = self._reporter.seconds_per_step
        resolution = self._config.resolution or self._inputs.base.resolution
        if seconds is None or resolution is None or not files:
            return
        record_speed(
            session,
            step_speed(
                self._inputs.base.key,
                self._config,
                resolution=resolution,
                seconds_per_step=seconds,
                trainable_parameters=self._trained.trainable_parameters,
                adapter_bytes=files[0].size_bytes,
            ),
        )

    @property
    def _trigger_words(self) -> list[str]:
        return [self._run.trigger_word] if self._run.trigger_word else []


def tensor_hash(path: Path) -> str:
    """SHA-256 of the bytes after the header, which other programs use to identify a LoRA."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(read_header(path).data_offset)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
