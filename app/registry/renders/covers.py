"""The cover of an adapter: chosen from its samples and renders, or the one it was imported with."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.library.cards import belongs_to_version
from app.registry.jobs.rights import may_add
from app.registry.renders.adapter_images import find_sample, require_adapter_image
from app.registry.renders.listing import find_render_of, first_images
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.renders import Render
from app.registry.tables.runs import Sample

# Slots of drafts that a person does not order; those of the API have no colon.
COVER_SLOT = "cover:{adapter}"
TOOL_SLOT = "tool:{job}:{place}"  # of the images of a tool's result, which stay with it
RESULT = "result"  # place of the image of what the tool made


def choose_cover(session: Session, adapter_id: int, sha256: str | None) -> Adapter:
    """Make an image of an adapter its cover; None: the usual one.

    The one that an imported file came with is remembered, so that it can be chosen again. Raises
    InvalidInput if the image was not generated with the adapter.
    """
    adapter = service.require_listed(service.get_adapter(session, adapter_id))
    if sha256 is not None:
        require_adapter_image(session, adapter, sha256)
    known = adapter.cover_sha256
    if known and not (
        find_sample(session, adapter_id, known) or find_render_of(session, adapter_id, known)
    ):
        adapter.imported_cover_sha256 = known
    put_cover(session, adapter, usual_cover(session, adapter) if sha256 is None else sha256)
    return adapter


def usual_cover(session: Session, adapter: Adapter) -> str | None:
    """The first sample of the version in use, else of the newest one that has some.

    An imported adapter without samples has the cover that came with its file.
    """
    sampled = (
        select(AdapterVersion)
        .join(Sample, belongs_to_version())
        .where(AdapterVersion.adapter_id == adapter.key, Sample.step > 0)
        .order_by(col(AdapterVersion.version).desc())
    )
    used = service.get_version(session, adapter)
    for version in (used, session.exec(sampled.limit(1)).first()):
        samples = service.version_samples(session, version) if version else []
        if samples:
            return samples[0].sha256
    return adapter.imported_cover_sha256


def put_cover(session: Session, adapter: Adapter, sha256: str | None) -> None:
    """Store the cover; the default download, which contains it, is written again."""
    with service.renewed_download(session, adapter):
        adapter.cover_sha256 = sha256


def take_cover(session: Session, render: Render) -> None:
    """Make the image of an adapter the cover that it was drawn as, unless there is one.

    Skipped where the owner of the render may not change the adapter.
    """
    slot = render.draft_slot or ""
    is_cover = slot.startswith(COVER_SLOT.format(adapter="")) or slot.endswith(f":{RESULT}")
    image = first_images(session, [render]).get(render.key) if is_cover else None
    if image is None or not render.stack:
        return
    adapter = session.get(Adapter, render.stack[0].adapter_id, with_for_update=True)
    if adapter is None or not may_add(session, render, adapter):
        return
    if adapter.cover_sha256 is None:
        put_cover(session, adapter, image.sha256)
