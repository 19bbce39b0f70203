"""Orders and previews that file names answer: no model is asked, so they end at once."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.datasets.auto_caption.proposals import (
    answered,
    apply_proposals,
    store_proposals,
)
from app.registry.datasets.edits.selection import live_images
from app.registry.datasets.several_captions import captions_of_kinds
from app.registry.job_kinds.caption_kinds import (
    CaptionImagesArgs,
    CaptionImagesResult,
    PreviewCaptionArgs,
    PreviewCaptionResult,
)
from app.registry.jobs import service as jobs
from app.registry.tables.auto_caption import CaptionProposal
from app.registry.tables.datasets import Image
from app.registry.tables.jobs import IoJob
from worker.core.captioning.file_names import TITLE, captions_of_files


def carry_out_order(session: Session, dataset_id: int, args: CaptionImagesArgs) -> IoJob:
    """Propose the captions that file names give, and write them if the order says so."""
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


def carry_out_preview(session: Session, dataset_id: int, args: PreviewCaptionArgs) -> IoJob:
    """Keep the caption that the file name of an image gives, among all names of the dataset."""
    here = select(Image.id, Image.filename).where(
        Image.dataset_id == dataset_id, col(Image.deleted_at).is_(None)
    )
    names = dict(session.exec(here).all())
    answers = dict(zip(names, captions_of_files(list(names.values())), strict=True))
    result = PreviewCaptionResult.of_answer(TITLE, answers[args.image_id], args.do_not_name)
    job = IoJob(kind=args.kind, subject_id=dataset_id, args=args.stored(), result=result.stored())
    return jobs.store_finished(session, job)
