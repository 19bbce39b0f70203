"""The io jobs that caption images: one image after another, each kept as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image as Pictures
from sqlmodel import Session, col, select

from app.registry.blobs.report import report
from app.registry.caption_models import service as caption_models
from app.registry.datasets.auto_caption.proposals import (
    HAS_CAPTION,
    answered,
    apply_proposals,
    store_proposals,
)
from app.registry.datasets.auto_caption.providers import key_for, require_allowed
from app.registry.datasets.several_captions import captions_of_kinds
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CaptionImagesArgs,
    CaptionImagesResult,
    PreviewCaptionArgs,
    PreviewCaptionResult,
)
from app.registry.jobs import service as jobs
from app.registry.runs.service import is_any_active
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.datasets import CaptionProposal, Image, ProposalState
from app.registry.tables.jobs import IoJob
from worker.core.captioning.interface import Captioner, ImageNotCaptioned, ProviderGone
from worker.core.captioning.remote.ollama import OllamaCaptioner
from worker.core.captioning.remote.openai_chat import OpenAiCaptioner
from worker.core.captioning.remote.requests import Server
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.runtime.device import threads
from worker.runtime.job_progress import IoWork, JobProgress, RefusedError, succeed
from worker.runtime.local_captions.captioner import LocalCaptioner, LocalModel

WAIT_SECONDS = 0.5  # between two looks at whether to stop
FAILURES_IN_A_ROW = 5
"""After so many the provider is taken to be broken, and the order ends."""

STOPPED = (
    "{count} images in a row failed, so this was stopped. The last one: {reason} What was done is "
    "kept; continue when it is mended."
)


def caption_images(work: IoWork) -> None:
    """Caption the images of an order that have no answer yet. Raises RefusedError."""
    args = work.job.arguments(CaptionImagesArgs)
    with work.cancelable() as progress:
        with work.database.read() as session:
            done = set(
                session.exec(
                    select(CaptionProposal.image_id).where(CaptionProposal.job_id == work.job.key)
                )
            )
        order = _Order(work, args, progress, done=len(done))
        order.note()
        if left := [key for key in args.image_ids if key not in done]:
            with _open(work, args, order.note) as captioner:
                _caption_all(order, left, captioner)
        _finish(order)


def _caption_all(order: _Order, image_ids: list[int], captioner: Captioner) -> None:
    failures = 0
    for image_id in image_ids:
        order.note()
        found = _caption_one(order, captioner, image_id)
        order.done += 1
        if found is None:
            continue  # deleted meanwhile
        _keep(order.work, found)
        failures = failures + 1 if found.state == ProposalState.FAILED else 0
        if failures == FAILURES_IN_A_ROW:
            raise RefusedError("provider", STOPPED.format(count=failures, reason=found.note))
    order.note()


def _caption_one(order: _Order, captioner: Captioner, image_id: int) -> CaptionProposal | None:
    """The answer of the provider for an image; None if it was deleted. Raises RefusedError."""
    with order.work.database.read() as session:
        image = session.get(Image, image_id)
        if image is None or image.deleted_at is not None:
            return None
        kind = order.args.caption_kind or image.caption_kind
        (now,) = captions_of_kinds(session, [(image, kind)])
    row = CaptionProposal(
        job_id=order.work.job.key,
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
        return answered(row, _ask(order.work, captioner, image.clean_sha256, order.args))
    except ImageNotCaptioned as failed:
        row.state, row.note = ProposalState.FAILED, str(failed)
        return row


def _ask(
    work: IoWork, captioner: Captioner, sha256: str, args: CaptionArgs
) -> PreviewCaptionResult:
    """The answer for an image, the same in a preview and in an order.

    Raises ImageNotCaptioned, and RefusedError where no other image would be captioned either.
    """
    try:
        path = work.store.local_path(sha256, work.scratch)
        with Pictures.open(path) as picture:
            answer = captioner.caption(picture, args.prompt)
    except ProviderGone as gone:
        raise RefusedError("provider", str(gone)) from gone
    except (BlobNotFound, BlobDamaged) as error:
        raise ImageNotCaptioned(report(work.database, error)) from error
    finally:
        (work.scratch / sha256).unlink(missing_ok=True)  # where the storage is a bucket
    return PreviewCaptionResult.of_answer(captioner.title, answer, args.do_not_name)


def _keep(work: IoWork, found: CaptionProposal) -> None:
    """Store an answer, while this worker owns the job and the image is there."""
    with work.database.write() as session:
        jobs.require_owner(session, IoJob, work.lease.claim)
        if session.get(Image, found.image_id, with_for_update=True) is not None:
            store_proposals(session, [found])


def _finish(order: _Order) -> None:
    work, result = order.work, CaptionImagesResult(done=order.total, total=order.total)
    with work.database.write() as session:
        jobs.require_owner(session, IoJob, work.lease.claim)
        if order.args.write:
            waiting = _of_order(session, work.job.key)
            applied = apply_proposals(session, work.subject_id, waiting)
            written = {"written": applied.changed, "edit_id": applied.edit_id}
            result = result.model_copy(update=written)
        succeed(session, work.lease, result)


def preview(work: IoWork) -> None:
    """Caption one image and keep the answer with the job. Raises RefusedError."""
    args = work.job.arguments(PreviewCaptionArgs)
    with work.cancelable() as progress:
        with work.database.read() as session:
            image = session.get(Image, args.image_id)
        if image is None:
            raise RefusedError("gone", "This image was deleted. Choose another one.")
        with _open(work, args, lambda: progress(0, 1)) as captioner:
            try:
                result = _ask(work, captioner, image.clean_sha256, args)
            except ImageNotCaptioned as failed:
                raise RefusedError("caption", str(failed)) from failed
        work.succeed(result)


@contextmanager
def _open(work: IoWork, args: CaptionArgs, check: Callable[[], None]) -> Iterator[Captioner]:
    """The provider of a job. Raises RefusedError, and InvalidInput for what is not allowed or
    not there (any more): an address, or a model."""

    def wait(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            check()
            time.sleep(min(left, WAIT_SECONDS))

    if args.provider is ProviderKind.BUILTIN:
        from worker.core.captioning.builtin import BuiltinCaptioner  # numpy

        yield BuiltinCaptioner()
    elif args.provider is ProviderKind.LOCAL:
        with _open_local(work, args) as captioner:
            yield captioner
    else:
        require_allowed(work.settings, args.provider, args.address)
        key = key_for(work.settings, args.provider, args.address)
        is_ollama = args.provider is ProviderKind.OLLAMA
        server = Server(args.address, key=key, wait=wait)
        yield (OllamaCaptioner if is_ollama else OpenAiCaptioner)(server, args.model)


@contextmanager
def _open_local(work: IoWork, args: CaptionArgs) -> Iterator[Captioner]:
    """A model on this machine, in a process of its own."""

    def needs_gpu() -> bool:
        """True if a training runs or waits, maybe on the GPU of this machine."""
        with work.database.read() as session:
            return is_any_active(session)

    with work.database.read() as session:
        row = caption_models.usable_model(session, args.model_id, args.model)
    settings = work.settings
    model = LocalModel(row.location, row.name, settings.device, threads(settings.threads))
    # not the progress: that would say several times a second that a part of the job is done
    captioner = LocalCaptioner(model, work.scratch, check=work.watch(), needs_gpu=needs_gpu)
    try:
        captioner.open()
    except ProviderGone as gone:
        raise RefusedError("provider", str(gone)) from gone
    try:
        yield captioner
    finally:
        captioner.close()


@dataclass
class _Order:
    """An order at work; `done` counts the images that were looked at."""

    work: IoWork
    args: CaptionImagesArgs
    progress: JobProgress
    done: int

    @property
    def total(self) -> int:
        """The images of the order."""
        return len(self.args.image_ids)

    def note(self) -> None:
        """Store how far it is; raises if it has to stop."""
        self.progress(self.done, self.total)


def _of_order(session: Session, job_id: int) -> list[int]:
    """The waiting proposals of an order."""
    waiting = select(CaptionProposal.id).where(
        CaptionProposal.job_id == job_id, col(CaptionProposal.state) == ProposalState.PROPOSED
    )
    return [key for key in session.exec(waiting) if key is not None]
