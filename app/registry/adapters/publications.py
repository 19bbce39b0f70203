"""Images and prompts in jobs of published adapters, removed once they are deleted for good."""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, col, select

from app.registry.errors import Conflict
from app.registry.job_kinds.kinds import JobKind, PublishAdapterArgs
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything


def forget_images(session: Session, hashes: Collection[str]) -> None:
    """Delete these images and their prompts from the arguments of ended publications.

    Raises Conflict if one of them is being published.
    """
    publications = select(IoJob).where(IoJob.kind == JobKind.PUBLISH_ADAPTER)
    with everything(session):
        for job in session.exec(publications.order_by(col(IoJob.id))):
            args = job.readable_arguments()
            if not isinstance(args, PublishAdapterArgs):
                continue
            kept = tuple(image for image in args.pictures if image.sha256 not in hashes)
            if len(kept) == len(args.pictures):
                continue
            if not job.state.is_final:
                raise Conflict(
                    "An image of these is being published on the Hub. Wait until that has ended or "
                    "cancel it, then delete it."
                )
            job.args = args.model_copy(update={"pictures": kept}).stored()
            session.add(job)
        session.flush()
