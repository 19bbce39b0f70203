"""Acts on several chosen renders at once, in one transaction; their images as a ZIP archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from app.registry.errors import Conflict, InvalidInput, NotFound, TooLarge
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import removal
from app.registry.renders.listing import images_of
from app.registry.storage.store import BlobStore, blob_chunks
from app.registry.tables.renders import Render
from app.registry.wording import count_text, size_text
from app.registry.zip_stream import StreamedFile

MAX_CHOSEN = 200
MAX_ZIP_BYTES = 1_000_000_000
NAMED = 5  # ids that an error names


@dataclass(frozen=True)
class NamedImage:
    """An image with its name in the archive."""

    name: str
    sha256: str
    time: datetime


def chosen_renders(session: Session, render_ids: Sequence[int]) -> list[Render]:
    """These renders in this order, each once.

    Raises InvalidInput if there are none or more than `MAX_CHOSEN`, and NotFound, which names the
    ids that do not exist.
    """
    keys = list(dict.fromkeys(render_ids))
    if not keys:
        raise InvalidInput("Choose an image first.")
    if len(keys) > MAX_CHOSEN:
        raise InvalidInput(
            f"Choose at most {MAX_CHOSEN} images at once; these are {count_text(len(keys))}."
        )
    found = {row.key: row for row in session.exec(select(Render).where(col(Render.id).in_(keys)))}
    missing = [key for key in keys if key not in found]
    if missing:
        raise NotFound(
            f"No image has the id {_listed(missing)}; it may have been deleted for good. Nothing "
            "was changed. Load the page again, then choose."
        )
    return [found[key] for key in keys]


def require_finished(renders: Sequence[Render]) -> None:
    """Raise Conflict unless all of them are finished and not deleted."""
    gone = [render.key for render in renders if render.deleted_at is not None]
    if gone:
        raise Conflict(f"Deleted: image {_listed(gone)}. Restore it or leave it out.")
    unfinished = [render.key for render in renders if render.state is not JobStatus.SUCCEEDED]
    if unfinished:
        raise Conflict(f"Not generated: image {_listed(unfinished)}. Leave it out.")


def delete_chosen(session: Session, render_ids: Sequence[int]) -> list[Render]:
    """Delete renders so that `restore_chosen` undoes it. Raises Conflict if one has not ended."""
    renders = chosen_renders(session, render_ids)
    for render in renders:
        removal.delete_render(session, render.key)
    return renders


def deleted_render(session: Session, render_id: int | None) -> int | None:
    """The id if it is that of a render that is deleted and can be restored."""
    render = session.get(Render, render_id or 0)
    return render.id if render is not None and render.deleted_at is not None else None


def restore_chosen(session: Session, render_ids: Sequence[int]) -> list[Render]:
    """Undo `delete_chosen` of the same ids, the last one first, also for covers."""
    renders = chosen_renders(session, render_ids)
    for render in reversed(renders):
        removal.restore_render(session, render.key)
    return renders


def star_chosen(session: Session, render_ids: Sequence[int], *, starred: bool) -> list[Render]:
    """Star renders, or remove their stars; those with the same images get the same."""
    renders = chosen_renders(session, render_ids)
    for render in renders:
        for equal in removal.equal_renders(session, render):
            equal.starred = starred
            session.add(equal)
    session.flush()
    return renders


def named_images(session: Session, render_ids: Sequence[int]) -> list[NamedImage]:
    """The images of these renders as `brushwork-<id>.png`, more of one as `brushwork-<id>-2.png`.

    Raises what `chosen_renders` and `require_finished` do, and NotFound.
    """
    renders = chosen_renders(session, render_ids)
    require_finished(renders)
    images = images_of(session, renders)
    named = []
    for render in renders:
        if not images[render.key]:
            raise NotFound(f"Image {render.key} has no file. Leave it out.")
        made = render.finished_at or render.created_at
        for image in images[render.key]:
            number = f"-{image.index + 1}" if image.index else ""
            named.append(NamedImage(f"brushwork-{render.key}{number}.png", image.sha256, made))
    return named


def zip_files(store: BlobStore, images: Sequence[NamedImage]) -> list[StreamedFile]:
    """The files of the archive; a slow storage is asked outside of a transaction.

    Images are compressed already, so they are only put together. Raises BlobNotFound or BlobDamaged
    for an image whose file is lost or damaged, and TooLarge over `MAX_ZIP_BYTES`.
    """
    files, total = [], 0
    for image in images:
        size = store.checked_stat(image.sha256).size
        total += size
        if total > MAX_ZIP_BYTES:
            raise TooLarge(
                f"These images have more than {size_text(MAX_ZIP_BYTES)}. Choose fewer and "
                "download them in parts."
            )
        chunks = blob_chunks(store, image.sha256)
        files.append(StreamedFile(image.name, image.time, size, chunks))
    return files


def _listed(keys: Sequence[int]) -> str:
    """Some of these ids in words, such as “3, 4 and 12 others”."""
    more = len(keys) - NAMED
    named = ", ".join(map(str, keys[:NAMED]))
    return f"{named} and {count_text(more)} others" if more > 0 else named
