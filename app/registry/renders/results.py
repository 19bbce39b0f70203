"""Results of renders: progress and images from the render worker, and cached images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.blobs import findings, thumbnails
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.storage.store import BlobStore, StorageUnavailable
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.renders import Render, RenderImage


@dataclass(frozen=True)
class NewRenderImage:
    """An image whose blob is stored, with its thumbnails unless they were stored before."""

    seed: int
    sha256: str
    thumbnail: Thumbnail | None = None


@dataclass(frozen=True)
class CachedImages:
    """The images of an earlier, equal request, its note for the user, and if it is starred."""

    images: Sequence[NewRenderImage]
    note: str | None
    starred: bool


def write_step(session: Session, claim: Claim, done: int, *, preview: bytes | None = None) -> bool:
    """Store the progress of a render; False when it was canceled.

    `preview`: a newer one, a small WebP; None leaves the one that is stored.
    """
    shown = {} if preview is None else {"preview": preview}
    jobs.update_owned(session, Render, claim, progress=done, **shown)
    return not jobs.is_canceled(session, Render, claim)


def find_cached_images(session: Session, render: Render, store: BlobStore) -> CachedImages | None:
    """The images of the newest equal request; None if there is none or one is lost or damaged.

    They must be of the same precision: images of unknown precision are not reused. A store that
    cannot be asked has none.
    """
    if render.precision is None:
        return None
    same = (
        select(Render)
        .where(
            Render.cache_key == render.cache_key,
            Render.owner_id == render.owner_id,
            Render.precision == render.precision,
            Render.status == JobStatus.SUCCEEDED,
        )
        .order_by(col(Render.id).desc())
        .limit(1)
    )
    earlier = session.exec(same).first()
    if earlier is None:
        return None
    query = select(RenderImage).where(RenderImage.render_id == earlier.key)
    images = session.exec(query.order_by(col(RenderImage.index))).all()
    if findings.problems(session, [image.sha256 for image in images]):
        return None
    try:
        if not images or not all(store.exists(image.sha256) for image in images):
            return None
    except StorageUnavailable:
        return None
    found = [NewRenderImage(one.seed, one.sha256) for one in images]
    return CachedImages(found, earlier.note, earlier.starred)


def store_cached_render(session: Session, render: Render, cached: CachedImages) -> None:
    """Store a new render as finished, with the images of an equal one."""
    render.seconds, render.from_cache, render.note = 0.0, True, cached.note or render.note
    render.starred = cached.starred
    render.progress = render.all_steps
    jobs.store_finished(session, render)
    _add_images(session, render.key, cached.images)


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
    if not from_cache:
        findings.forget_problems(session, *(image.sha256 for image in images))
    _add_images(session, claim.job_id, images)


def _add_images(session: Session, render_id: int, images: Sequence[NewRenderImage]) -> None:
    for index, image in enumerate(images):
        session.add(
            RenderImage(render_id=render_id, index=index, seed=image.seed, sha256=image.sha256)
        )
    thumbnails.save(session, [image.thumbnail for image in images if image.thumbnail])
