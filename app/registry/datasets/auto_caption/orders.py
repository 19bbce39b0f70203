"""Orders of captions: which images, what became of them, and the end of an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.config import Settings
from app.registry.datasets.auto_caption.proposals import (
    answered,
    apply_proposals,
    store_proposals,
)
from app.registry.datasets.auto_caption.providers import check_request
from app.registry.datasets.edits.selection import live_images
from app.registry.datasets.several_captions import captions_of_kinds
from app.registry.db import in_chunks
from app.registry.errors import Conflict, InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CaptionImagesArgs,
    CaptionImagesResult,
    PreviewCaptionArgs,
    PreviewCaptionResult,
)
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs import service as jobs
from app.registry.tables.datasets import (
    CaptionProposal,
    Dataset,
    Image,
    ImageCaption,
    ProposalState,
    is_live,
)
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything
from app.registry.wording import plural
from worker.core.captioning.file_names import TITLE, captions_of_files
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind

MAX_IMAGES = 20_000
MAX_ATTEMPTS = 20  # an order goes on where it was, so a worker that stops costs one image
ALL_CAPTIONED = (
    "All {count} of these images have captions. Choose to append or to replace, which shows every "
    "change before it is made."
)
NO_IMAGES = "There are no images to caption. Add some, or choose others."
NOTHING_LEFT = "Nothing is left to caption: the other images were deleted or have captions by now."
AT_WORK = "Captions of this dataset are being written. Wait until that ends, or cancel it."


@dataclass(frozen=True)
class OrderProgress:
    """The progress of an order; the counts are those of its images, by outcome."""

    job: IoJob
    args: CaptionImagesArgs
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """The images that were ordered."""
        return len(self.args.image_ids)

    @property
    def done(self) -> int:
        """The images that were looked at."""
        return sum(self.counts.values())

    @property
    def captioned(self) -> int:
        """The images that got a caption, whatever became of it."""
        kept = (ProposalState.PROPOSED, ProposalState.APPLIED, ProposalState.DISCARDED)
        return sum(self.counts.get(state, 0) for state in kept)

    @property
    def is_active(self) -> bool:
        """True while it waits or runs."""
        return self.job.state.is_active

    @property
    def is_complete(self) -> bool:
        """True if all its images were looked at, and none failed."""
        return self.done >= self.total and not self.count(ProposalState.FAILED)

    @property
    def written(self) -> int | None:
        """The captions that were written at its end; None if they were not to be."""
        return self.job.outcome(CaptionImagesResult).written

    def count(self, state: str) -> int:
        """The images in this state."""
        return self.counts.get(state, 0)


def order_captions(
    session: Session,
    dataset: Dataset,
    request: CaptionArgs,
    settings: Settings,
    *,
    image_ids: Sequence[int] | None = None,
    mode: CaptionMode = CaptionMode.FILL,
    kind: CaptionKind | None = None,
    write: bool = False,
) -> IoJob:
    """Queue captions for these images of a dataset, or for all.

    `kind`: which of their captions, which is added where it is missing; None: the first one.
    Filling leaves out images that have it. `write`: captions are written once all are made, which
    only filling allows. An order of file names is done when this returns, without a worker.
    Raises InvalidInput and Conflict.
    """
    asked = check_request(session, settings, request)
    if write and mode is not CaptionMode.FILL:
        sentence = "Captions that change others are shown first. Order them without writing."
        raise InvalidInput(sentence, fields={"write": sentence})
    if active_order(session, dataset.key) is not None:
        raise Conflict(AT_WORK)
    chosen = _choose_images(session, dataset.key, image_ids, mode, kind)
    args = CaptionImagesArgs(
        **asked.model_dump(), image_ids=chosen, mode=mode, caption_kind=kind, write=write
    )
    if asked.provider is ProviderKind.FILENAME:
        return _carry_out_order(session, dataset.key, args)
    return jobs.enqueue_io(session, args, subject_id=dataset.key, max_attempts=MAX_ATTEMPTS)


def _carry_out_order(session: Session, dataset_id: int, args: CaptionImagesArgs) -> IoJob:
    """Propose the captions that file names give, and write them if the order says so.

    No model is asked, so the order ends at once.
    """
    job = IoJob(kind=args.kind, subject_id=dataset_id, args=args.stored())
    jobs.store_finished(session, job)
    images = live_images(session, dataset_id, args.image_ids)
    answers = captions_of_files([image.filename for image in images])
    wanted = [(image, args.caption_kind or image.caption_kind) for image in images]
    rows = []
    for (image, kind), now, answer in zip(
        wanted, captions_of_kinds(session, wanted), answers, strict=True
    ):
        row = CaptionProposal(
            job_id=job.key,
            image_id=image.key,
            kind=kind,
            mode=args.mode,
            source_name=TITLE,
            seen_version=now.version,
        )
        rows.append(answered(row, PreviewCaptionResult.of_answer(TITLE, answer, args.do_not_name)))
    store_proposals(session, rows)
    result = CaptionImagesResult(done=len(rows), total=len(rows))
    if args.write:
        applied = apply_proposals(session, dataset_id, [row.key for row in rows])
        written = {"written": applied.changed, "edit_id": applied.edit_id}
        result = result.model_copy(update=written)
    job.result = result.stored()
    session.add(job)
    session.flush()
    return job


def _choose_images(
    session: Session,
    dataset_id: int,
    image_ids: Sequence[int] | None,
    mode: CaptionMode,
    kind: CaptionKind | None,
) -> tuple[int, ...]:
    here = select(Image.id, is_empty(kind)).where(is_live(dataset_id))
    rows = session.exec(here.order_by(col(Image.id))).all()
    if image_ids is not None:
        wanted = set(image_ids)
        rows = [row for row in rows if row[0] in wanted]
    chosen = tuple(key for key, empty in rows if key and (mode != CaptionMode.FILL or empty))
    if not rows:
        raise InvalidInput(NO_IMAGES, fields={"images": NO_IMAGES})
    if not chosen:
        raise invalid_field("mode", ALL_CAPTIONED.format(count=len(rows)))
    if len(chosen) > MAX_IMAGES:
        sentence = f"Caption at most {MAX_IMAGES:,} images at once; these are {len(chosen):,}."
        raise InvalidInput(sentence, fields={"images": sentence})
    return chosen


def is_empty(kind: CaptionKind | None) -> sa.ColumnElement[bool]:
    """Condition: an image has no caption of this kind; None: its first one is empty."""
    is_without = col(Image.caption) == ""
    if kind is None:
        return is_without
    written = select(ImageCaption.image_id).where(
        ImageCaption.kind == kind, ImageCaption.caption != ""
    )
    is_first = col(Image.caption_kind) == kind
    return sa.case((is_first, is_without), else_=col(Image.id).not_in(written))


@dataclass(frozen=True)
class ChosenImages:
    """The images that an order would be for: how many, how many of them without a caption, and
    the first ones, those without a caption first."""

    total: int
    empty: int
    first: list[Image]


def chosen_images(
    session: Session,
    dataset_id: int,
    image_ids: Sequence[int] | None,
    *,
    first: int,
    kind: CaptionKind | None = None,
) -> ChosenImages:
    """The images of a dataset with these ids, or all; `first` of them as rows.

    `kind`: which of their captions may be missing; None: the first one.
    """
    without_caption = is_empty(kind)
    total = empty = 0
    rows: list[tuple[Image, bool]] = []
    for chunk in [None] if image_ids is None else in_chunks(image_ids):
        here = [is_live(dataset_id)]
        if chunk is not None:
            here.append(col(Image.id).in_(chunk))
        counted = select(func.count(), func.count(sa.case((without_caption, 1)))).select_from(Image)
        found, without = session.exec(counted.where(*here)).one()
        total, empty = total + found, empty + without
        ordered = select(Image, without_caption).where(*here)
        ordered = ordered.order_by(without_caption.desc(), col(Image.id))
        rows += session.exec(ordered.limit(first))
    rows.sort(key=lambda row: not row[1])
    return ChosenImages(total, empty, [image for image, _ in rows[:first]])


def order_preview(
    session: Session, dataset: Dataset, image_id: int, request: CaptionArgs, settings: Settings
) -> IoJob:
    """Queue the caption of one image, to be looked at; it asks exactly what an order would."""
    image = session.get(Image, image_id)
    if image is None or image.deleted_at is not None or image.dataset_id != dataset.key:
        raise NotFound("There is no such image in this dataset; it may have been deleted.")
    asked = check_request(session, settings, request)
    args = PreviewCaptionArgs(**asked.model_dump(), image_id=image_id)
    if asked.provider is ProviderKind.FILENAME:
        return _carry_out_preview(session, dataset.key, args)
    return jobs.enqueue_io(session, args, subject_id=dataset.key)


def _carry_out_preview(session: Session, dataset_id: int, args: PreviewCaptionArgs) -> IoJob:
    """Keep the caption that the file name of an image gives, among all names of the dataset."""
    here = select(Image.id, Image.filename).where(is_live(dataset_id))
    names = dict(session.exec(here).all())
    answers = dict(zip(names, captions_of_files(list(names.values())), strict=True))
    result = PreviewCaptionResult.of_answer(TITLE, answers[args.image_id], args.do_not_name)
    job = IoJob(kind=args.kind, subject_id=dataset_id, args=args.stored(), result=result.stored())
    return jobs.store_finished(session, job)


@dataclass(frozen=True)
class Preview:
    """The caption of one image, or that it is being written."""

    job: IoJob
    image: Image
    result: PreviewCaptionResult

    @property
    def is_active(self) -> bool:
        """True while it waits or runs."""
        return self.job.state.is_active


def get_preview(session: Session, dataset_id: int, job_id: int) -> Preview:
    """A preview and what came of it so far. Raises NotFound, also if its image is gone."""
    job = session.get(IoJob, job_id)
    if job is None or job.kind != JobKind.PREVIEW_CAPTION or job.subject_id != dataset_id:
        raise NotFound("There is no such preview.")
    image = session.get(Image, job.arguments(PreviewCaptionArgs).image_id)
    if image is None:
        raise NotFound("The image of this preview was deleted.")
    return Preview(job, image, job.outcome(PreviewCaptionResult))


def active_order(session: Session, dataset_id: int) -> IoJob | None:
    """The order of a dataset that waits or runs, if any."""
    query = _orders(dataset_id).where(col(IoJob.status).in_(NOT_FINAL))
    with everything(session):
        return session.exec(query).first()


def newest_order(session: Session, dataset_id: int) -> OrderProgress | None:
    """The newest order of a dataset, if any."""
    job = session.exec(_orders(dataset_id)).first()
    return progress_of(session, job) if job is not None else None


def get_order(session: Session, dataset_id: int, job_id: int) -> OrderProgress:
    """An order of a dataset. Raises NotFound."""
    job = session.exec(_orders(dataset_id).where(IoJob.id == job_id)).first()
    if job is None:
        raise NotFound("There is no such request for captions.")
    return progress_of(session, job)


def progress_of(session: Session, job: IoJob) -> OrderProgress:
    """The progress of an order."""
    counted = session.exec(
        select(CaptionProposal.state, func.count())
        .where(CaptionProposal.job_id == job.key)
        .group_by(col(CaptionProposal.state))
    )
    return OrderProgress(job, job.arguments(CaptionImagesArgs), dict(counted.all()))


def cancel_order(session: Session, dataset_id: int, job_id: int) -> OrderProgress:
    """Cancel an order; what it has made stays proposed. Raises NotFound and Conflict."""
    found = get_order(session, dataset_id, job_id)
    jobs.request_cancel(session, IoJob, found.job)
    return progress_of(session, found.job)


def continue_order(session: Session, dataset: Dataset, job_id: int, settings: Settings) -> IoJob:
    """Queue the images of an ended order that have no caption yet, with the same settings.

    Those that failed are tried again. Raises NotFound, Conflict and InvalidInput.
    """
    found = get_order(session, dataset.key, job_id)
    if found.is_active:
        raise Conflict(AT_WORK)
    args = found.args
    left = images_left(session, found)
    if not left:
        complete = f"This request is complete: {plural(found.total, 'image')}."
        raise Conflict(complete if found.is_complete else NOTHING_LEFT)
    return order_captions(
        session,
        dataset,
        args,
        settings,
        image_ids=left,
        mode=args.mode,
        kind=args.caption_kind,
        write=args.write,
    )


def images_left(session: Session, order: OrderProgress) -> list[int]:
    """The images that an ended order would go on with, by id; deleted ones are left out.

    So are those that got a caption by other means, where only empty ones are filled.
    """
    if order.is_complete:
        return []
    done = select(CaptionProposal.image_id).where(
        CaptionProposal.job_id == order.job.key, CaptionProposal.state != ProposalState.FAILED
    )
    here = select(Image.id).where(
        Image.dataset_id == order.job.subject_id,
        col(Image.deleted_at).is_(None),
        col(Image.id).not_in(done),
    )
    if order.args.mode == CaptionMode.FILL:
        here = here.where(is_empty(order.args.caption_kind))
    ordered = set(order.args.image_ids)
    return [key for key in session.exec(here.order_by(col(Image.id))) if key in ordered]


def _orders(dataset_id: int) -> SelectOfScalar[IoJob]:
    """The orders of a dataset, the newest first."""
    query = select(IoJob).where(
        IoJob.kind == JobKind.CAPTION_IMAGES, IoJob.subject_id == dataset_id
    )
    return query.order_by(col(IoJob.id).desc())
