"""The io jobs that caption images: one image after another, each kept as soon as it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pictures
from sqlmodel import Session, col, select

from app.registry.blobs.report import report
from app.registry.caption_models import service as caption_models
from app.registry.config import Settings
from app.registry.datasets.auto_caption.proposals import (
    HAS_CAPTION,
    answered,
    apply_proposals,
    store_proposals,
)
from app.registry.datasets.auto_caption.providers import key_for, require_allowed
from app.registry.datasets.several_captions import captions_of_kinds
from app.registry.db import Database
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CaptionImagesArgs,
    CaptionImagesResult,
    PreviewCaptionArgs,
    PreviewCaptionResult,
)
from app.registry.jobs import service as jobs
from app.registry.runs.active import is_any_active
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.auto_caption import CaptionProposal, ProposalState
from app.registry.tables.datasets import Image
from app.registry.tables.jobs import IoJob
from worker.core.captioning.interface import Captioner, ImageNotCaptioned, ProviderGone
from worker.core.captioning.local.opening import open_builtin, open_server
from worker.core.captioning.remote.requests import Server
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.runtime.device import threads
from worker.runtime.job_progress import JobProgress, JobWatch, RefusedError, cancelable, succeed
from worker.runtime.lease import Lease
from worker.runtime.local_captions.captioner import LocalCaptioner, LocalModel

WAIT_SECONDS = 0.5  # between two looks at whether to stop
FAILURES_IN_A_ROW = 5
"""After so many the provider is taken to be broken, and the order ends."""

STOPPED = (
    "{count} images in a row failed, so this was stopped. The last one: {reason} What was done is "
    "kept; continue when it is mended."
)


class CaptionJobs:
    """Carries out orders of captions and previews of one."""

    def __init__(self, settings: Settings, database: Database, store: BlobStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store

    def caption_images(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Caption the images of an order that have no answer yet. Raises RefusedError."""
        args = job.arguments(CaptionImagesArgs)
        with cancelable(self._database, lease, stopping) as progress:
            with self._database.read() as session:
                done = set(
                    session.exec(
                        select(CaptionProposal.image_id).where(CaptionProposal.job_id == job.key)
                    )
                )
            left = [key for key in args.image_ids if key not in done]
            order = _Order(job.key, args, total=len(args.image_ids), done=len(done))
            attempt = _Attempt(lease, scratch, stopping, progress)
            attempt.note(order)
            if left:
                with self._open(args, attempt, lambda: attempt.note(order)) as captioner:
                    self._caption_all(order, left, captioner, attempt)
            assert job.subject_id is not None
            self._finish(order, job.subject_id, lease)

    def _caption_all(
        self, order: _Order, image_ids: list[int], captioner: Captioner, attempt: _Attempt
    ) -> None:
        failures = 0
        for image_id in image_ids:
            attempt.note(order)
            found = self._caption_one(order, captioner, image_id, attempt.scratch)
            order.done += 1
            if found is None:
                continue  # deleted meanwhile
            self._keep(found, attempt.lease)
            failures = failures + 1 if found.state == ProposalState.FAILED else 0
            if failures == FAILURES_IN_A_ROW:
                sentence = STOPPED.format(count=failures, reason=found.note)
                raise RefusedError("provider", sentence)
        attempt.note(order)

    def _caption_one(
        self, order: _Order, captioner: Captioner, image_id: int, scratch: Path
    ) -> CaptionProposal | None:
        """The answer of the provider for an image; None if it was deleted. Raises RefusedError."""
        with self._database.read() as session:
            image = session.get(Image, image_id)
            if image is None or image.deleted_at is not None:
                return None
            kind = order.args.caption_kind or image.caption_kind
            (now,) = captions_of_kinds(session, [(image, kind)])
        row = CaptionProposal(
            job_id=order.job_id,
            image_id=image_id,
            kind=kind,
            mode=order.args.mode,
            source_name=captioner.title,
            seen_version=now.version,
        )
        if order.args.mode == CaptionMode.FILL and now.caption:
            row.state, row.note = ProposalState.SKIPPED, HAS_CAPTION
            return row
        try:
            return answered(row, self._ask(captioner, image.clean_sha256, order.args, scratch))
        except ImageNotCaptioned as failed:
            row.state, row.note = ProposalState.FAILED, str(failed)
            return row

    def _ask(
        self, captioner: Captioner, sha256: str, args: CaptionArgs, scratch: Path
    ) -> PreviewCaptionResult:
        """The answer for an image, the same in a preview and in an order.

        Raises ImageNotCaptioned, and RefusedError where no other image would be captioned either.
        """
        try:
            path = self._store.local_path(sha256, scratch)
            with Pictures.open(path) as picture:
                answer = captioner.caption(picture, args.prompt)
        except ProviderGone as gone:
            raise RefusedError("provider", str(gone)) from gone
        except (BlobNotFound, BlobDamaged) as error:
            raise ImageNotCaptioned(report(self._database, error)) from error
        finally:
            (scratch / sha256).unlink(missing_ok=True)  # where the storage is a bucket
        return PreviewCaptionResult.of_answer(captioner.title, answer, args.do_not_name)

    def _keep(self, found: CaptionProposal, lease: Lease) -> None:
        """Store an answer, while this worker owns the job and the image is there."""
        with self._database.write() as session:
            jobs.require_owner(session, IoJob, lease.claim)
            if session.get(Image, found.image_id, with_for_update=True) is not None:
                store_proposals(session, [found])

    def _finish(self, order: _Order, dataset_id: int, lease: Lease) -> None:
        result = CaptionImagesResult(done=order.total, total=order.total)
        with self._database.write() as session:
            jobs.require_owner(session, IoJob, lease.claim)
            if order.args.write:
                applied = apply_proposals(session, dataset_id, _of_order(session, order.job_id))
                written = {"written": applied.changed, "edit_id": applied.edit_id}
                result = result.model_copy(update=written)
            succeed(session, lease, result)

    def preview(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Caption one image and keep the answer with the job. Raises RefusedError."""
        args = job.arguments(PreviewCaptionArgs)
        with cancelable(self._database, lease, stopping) as progress:
            with self._database.read() as session:
                image = session.get(Image, args.image_id)
            if image is None:
                raise RefusedError("gone", "This image was deleted. Choose another one.")
            attempt = _Attempt(lease, scratch, stopping, progress)
            with self._open(args, attempt, lambda: progress(0, 1)) as captioner:
                try:
                    result = self._ask(captioner, image.clean_sha256, args, scratch)
                except ImageNotCaptioned as failed:
                    raise RefusedError("caption", str(failed)) from failed
            with self._database.write() as session:
                succeed(session, lease, result)

    @contextmanager
    def _open(
        self, args: CaptionArgs, attempt: _Attempt, check: Callable[[], None]
    ) -> Iterator[Captioner]:
        """The provider of a job. Raises RefusedError, and InvalidInput for what is not allowed or
        not there (any more): an address, or a model."""

        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                check()
                time.sleep(min(left, WAIT_SECONDS))

        if args.provider is ProviderKind.BUILTIN:
            yield open_builtin()
        elif args.provider is ProviderKind.LOCAL:
            with self._open_local(args, attempt) as captioner:
                yield captioner
        else:
            require_allowed(self._settings, args.provider, args.address)
            key = key_for(self._settings, args.provider, args.address)
            yield open_server(args.provider, Server(args.address, key=key, wait=wait), args.model)

    @contextmanager
    def _open_local(self, args: CaptionArgs, attempt: _Attempt) -> Iterator[Captioner]:
        """A model on this machine, in a process of its own."""
        with self._database.read() as session:
            row = caption_models.usable_model(session, args.model_id, args.model)
        settings = self._settings
        model = LocalModel(row.location, row.name, settings.device, threads(settings.threads))
        # not the progress: that would say several times a second that a part of the job is done
        watch = JobWatch(self._database, attempt.lease, attempt.stopping)
        captioner = LocalCaptioner(model, attempt.scratch, check=watch, needs_gpu=self._needs_gpu)
        try:
            captioner.open()
        except ProviderGone as gone:
            raise RefusedError("provider", str(gone)) from gone
        try:
            yield captioner
        finally:
            captioner.close()

    def _needs_gpu(self) -> bool:
        """True if a training runs or waits, maybe on the GPU of this machine."""
        with self._database.read() as session:
            return is_any_active(session)


@dataclass(frozen=True)
class _Attempt:
    """The inputs of an attempt at a job."""

    lease: Lease
    scratch: Path
    stopping: threading.Event
    progress: JobProgress

    def note(self, order: _Order) -> None:
        """Store how far an order is; raises if it has to stop."""
        self.progress(order.done, order.total)


class _Order:
    """An order at work."""

    def __init__(self, job_id: int, args: CaptionImagesArgs, *, total: int, done: int) -> None:
        self.job_id = job_id
        self.args = args
        self.total = total
        self.done = done


def _of_order(session: Session, job_id: int) -> list[int]:
    """The waiting proposals of an order."""
    waiting = select(CaptionProposal.id).where(
        CaptionProposal.job_id == job_id, col(CaptionProposal.state) == ProposalState.PROPOSED
    )
    return [key for key in session.exec(waiting) if key is not None]
