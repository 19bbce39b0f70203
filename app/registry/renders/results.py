"""Results written by the render worker: progress, images, and cached images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim, LostLease
from app.registry.jobs.states import JobStatus
from app.registry.renders.models import Render, RenderImage
from app.registry.thumbnails import service as thumbnails
from app.registry.thumbnails.models import Thumbnail


@dataclass(frozen=True)
class NewRenderImage:
    """An image whose blob is stored, with its thumbnails unless they were stored before."""

    seed: int
    sha256: str
    thumbnail: Thumbnail | None = None


def write_step(session: Session, claim: Claim, done: int) -> bool:
    """Store the progress of a render; False when it was canceled."""
    jobs.update_owned(session, Render, claim, progress=done)
    query = select(Render.cancel_requested).where(Render.id == claim.job_id)
    return not session.exec(query).one()


def is_wanted(session: Session, claim: Claim) -> bool:
    """False when the render was canceled. Raises LostLease when another worker owns it."""
    query = select(Render.cancel_requested).where(
        Render.id == claim.job_id, Render.owner_token == claim.token
    )
    canceled = session.exec(query).first()
    if canceled is None:
        raise LostLease(f"render {claim.job_id} belongs to another worker now.")
    return not canceled


def find_cached_images(session: Session, render: Render) -> list[NewRenderImage]:
    """The images of an earlier, identical request; empty when there is none."""
    same = (
        select(Render.id)
        .where(Render.cache_key == render.cache_key, Render.status == JobStatus.SUCCEEDED)
        .order_by(col(Render.id).desc())
        .limit(1)
    )
    earlier_id = session.exec(same).first()
    if earlier_id is None:
        return []
    images = select(RenderImage).where(RenderImage.render_id == earlier_id)
    return [
        NewRenderImage(image.seed, image.sha256)
        for image in session.exec(images.order_by(col(RenderImage.index)))
    ]


def finish_render(
    session: Session,
    claim: Claim,
    images: Sequence[NewRenderImage],
    *,
    seconds: float,
    from_cache: bool = False,
    note: str | None = None,
    **values: Any,
) -> None:
    """Store the images and finish the render, in one transaction."""
    jobs.finish(
        session,
        Render,
        claim,
        JobStatus.SUCCEEDED,
        seconds=seconds,
        from_cache=from_cache,
        note=note,
        **values,
    )
    for index, image in enumerate(images):
        session.add(
            RenderImage(render_id=claim.job_id, index=index, seed=image.seed, sha256=image.sha256)
        )
    thumbnails.save(session, [image.thumbnail for image in images if image.thumbnail])
