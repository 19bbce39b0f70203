"""Stores the files of a training, samples and checkpoints, while it goes on."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from app.registry.blobs.make_thumbnails import make_thumbnails
from app.registry.errors import AppError
from app.registry.runs import progress
from app.registry.runs.checkpoint_adapters import NewAdapter, add_adapter
from app.registry.runs.progress import NewSample
from app.registry.storage.store import Blob
from worker.core.safetensors_header import HeaderError, tensor_hash
from worker.core.training.config import TrainConfig
from worker.core.training.events import CheckpointSaved, SampleSaved
from worker.runtime.attempts.work import RunWork
from worker.runtime.outages.uploads import Upload, Uploads
from worker.runtime.scratch import HELD, hold_adapter, hold_checkpoint, pack_checkpoint

T = TypeVar("T")
log = logging.getLogger(__name__)


class TrainingFiles:
    """Adds the samples and checkpoints of a training to its uploads.

    A checkpoint waits in a folder of its own, as the trainer deletes its older ones. `flush` writes
    the progress, which has to be stored before a checkpoint is.
    """

    def __init__(self, work: RunWork, uploads: Uploads, *, flush: Callable[[], None]) -> None:
        self._database = work.database
        self._store = work.store
        self._run = work.run
        self._lease = work.lease
        self._uploads = uploads
        self._flush = flush
        self._config = TrainConfig.model_validate(work.run.config)
        self._held = 0  # checkpoints kept aside so far

    def store_sample(self, event: SampleSaved) -> None:
        """Store a sample with its thumbnails."""

        def write(sample: NewSample) -> None:
            with self._database.write() as session:
                progress.add_sample(session, self._lease.claim, sample)

        # its file is missing where the trainer rolled back, or the disk is full
        self._upload(partial(self._put_sample, event), write, f"the sample {event.path}")

    def _upload(
        self, put: Callable[[], T], write: Callable[[T], None], what: str, **options: Any
    ) -> None:
        """Store a file by `put`, then its row; one that is missing or damaged is left out."""
        stored: list[T] = []

        def store() -> None:
            with self._database.read() as session:  # raises LostLease
                progress.read_run_flags(session, self._lease.claim)
            try:
                stored.append(put())
            except (FileNotFoundError, HeaderError) as error:
                log.warning("Without its file, %s is not stored: %s", what, error)

        def write_row() -> None:
            if stored:
                write(stored[0])

        self._uploads.add(Upload((store, write_row), **options))

    def _put_sample(self, event: SampleSaved) -> NewSample:
        blob = self._store.put_file(event.path)
        return NewSample(
            step=event.step,
            prompt_index=event.prompt_index,
            prompt=event.prompt,
            seed=event.seed,
            sha256=blob.sha256,
            thumbnail=make_thumbnails(self._store, blob, event.path),
        )

    def store_checkpoint(self, event: CheckpointSaved) -> None:
        """Store the adapter of a checkpoint, then its state."""
        self._held += 1
        held = event.path.parents[2] / HELD / str(self._held)  # beside the trainer's own folder
        folder = hold_checkpoint(event.path, held)
        self._store_adapter(event, held.with_suffix(".safetensors"))
        # its file is missing where the trainer already deleted it, as it keeps only the newest
        self._upload(
            partial(pack_checkpoint, self._store, folder, run_id=self._run.key),
            partial(self._write_checkpoint, event),
            f"the checkpoint {event.path}",
            is_checkpoint=not event.is_requested,
            discard=partial(shutil.rmtree, held, ignore_errors=True),
        )

    def _store_adapter(self, event: CheckpointSaved, held: Path) -> None:
        """Store the adapter of a checkpoint; it waits longer than the state, which is larger."""
        path = hold_adapter(event.path, held)

        def put() -> NewAdapter:
            tensors = tensor_hash(path)
            blob = self._store.put_file(path)
            return NewAdapter(
                event.step, blob.sha256, blob.size, tensors, event.is_requested, event.best
            )

        def write(adapter: NewAdapter) -> None:
            self._flush()
            with self._database.write() as session:
                keep = self._config.keep_adapters
                add_adapter(session, self._lease.claim, adapter, keep=keep)

        discard = partial(held.unlink, missing_ok=True)
        self._upload(put, write, f"the adapter of step {event.step}", discard=discard)

    def _write_checkpoint(self, event: CheckpointSaved, blob: Blob) -> None:
        self._flush()  # a resumed run must find the metrics up to here
        with self._database.write() as session:
            unused = progress.add_checkpoint(
                session,
                self._lease.claim,
                step=event.step,
                sha256=blob.sha256,
                size_bytes=blob.size,
                keep=self._config.keep_checkpoints,
                is_requested=event.is_requested,
                best=event.best,
            )
        for sha256 in unused:
            with contextlib.suppress(OSError, AppError):  # the sweep finds it
                self._store.delete(sha256)
