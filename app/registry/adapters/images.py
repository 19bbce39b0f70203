"""The images of an adapter: samples of its training, and renders of the playground."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.models import AdapterVersion
from app.registry.adapters.service import AdapterSummary
from app.registry.errors import InvalidInput
from app.registry.renders import service as playground
from app.registry.runs.models import Sample

IMAGES_A_PAGE = 12


@dataclass(frozen=True)
class AdapterImage:
    """An image generated with the adapter."""

    sha256: str
    title: str
    href: str
    is_cover: bool


@dataclass(frozen=True)
class AdapterImages:
    """A page of images of an adapter; `older` is the cursor of the next page."""

    shown: list[AdapterImage]
    older: int | None


def list_adapter_images(
    session: Session,
    summary: AdapterSummary,
    version: AdapterVersion,
    *,
    before: int | None = None,
) -> AdapterImages:
    """The samples of the last step, then images from the playground, without duplicates.

    With `before`, the id of a render, only images from earlier renders.
    """
    found = []
    if before is None:
        found = [
            (sample.sha256, sample.prompt, f"/media/{sample.sha256}")
            for sample in service.version_samples(session, version)
        ]
    renders = playground.adapter_renders(
        session, summary.adapter.key, limit=IMAGES_A_PAGE + 1, before=before
    )
    has_older, renders = len(renders) > IMAGES_A_PAGE, renders[:IMAGES_A_PAGE]
    images = playground.first_images(session, renders)
    found += [
        (images[render.key].sha256, render.prompt, f"/renders/{render.key}")
        for render in renders
        if render.key in images
    ]
    cover = summary.covers[:1]
    unique = {sha256: (sha256, title, href) for sha256, title, href in reversed(found)}
    return AdapterImages(
        shown=[
            AdapterImage(sha256, title, href, is_cover=[sha256] == cover)
            for sha256, title, href in reversed(unique.values())
        ],
        older=renders[-1].key if has_older else None,
    )


def require_adapter_image(session: Session, adapter_id: int, sha256: str) -> None:
    """Raise InvalidInput unless the image is a sample of the adapter or a render with it."""
    sampled = (
        select(Sample.id)
        .join(AdapterVersion, col(AdapterVersion.run_id) == col(Sample.run_id))
        .where(AdapterVersion.adapter_id == adapter_id, Sample.sha256 == sha256)
    )
    if session.exec(sampled.limit(1)).first() is not None:
        return
    if not playground.is_picture_of(session, adapter_id, sha256):
        sentence = "Only an image generated with this adapter can be its cover."
        raise InvalidInput(sentence, fields={"cover_sha256": sentence})
