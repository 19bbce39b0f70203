"""Blobs over HTTP: images by hash, files by name; nothing that a browser would execute."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Path, Request
from starlette.responses import Response, StreamingResponse

from app.registry.actor import current_principal
from app.registry.blobs import thumbnails
from app.registry.blobs.visible import may_see_image
from app.registry.db import Session
from app.registry.errors import NotFound
from app.registry.images.image_types import HEAD_BYTES, image_type
from app.registry.state import AppState
from app.registry.storage.store import BlobDamaged, BlobNotFound, blob_chunks
from app.registry.tables.blobs import ThumbnailSize
from app.web.access.needs import Action, Router
from app.web.state import State

router = Router(include_in_schema=False)

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
CONTENT_POLICY = "sandbox; default-src 'none'"
# a browser shows a bare image on a page of its own, with inline styles
IMAGE_CONTENT_POLICY = f"{CONTENT_POLICY}; style-src 'unsafe-inline'"
FOREVER = "private, max-age=31536000, immutable"
CACHE_WITHOUT_THUMBNAIL = "private, max-age=60"  # seconds: the image itself is shown
CACHE_OF_PEOPLE = "private, no-cache"  # with accounts: whoever may not see it any more is asked
NO_IMAGE = "There is no such image."


@router.get("/media/{sha256}", Action.LOOK)
def media(sha256: Sha256, request: Request, state: State) -> Response:
    """An image; other blobs are not served here."""
    with state.database.read() as session:
        _require_visible(session, sha256)
    return _image_response(state, request, sha256)


@router.get("/media/{sha256}/{size}", Action.LOOK)
def thumbnail(sha256: Sha256, size: ThumbnailSize, request: Request, state: State) -> Response:
    """The thumbnail of an image, or the image itself where it has none."""
    with state.database.read() as session:
        _require_visible(session, sha256)
        found = thumbnails.find(session, sha256)
    if found is None:
        return _image_response(state, request, sha256, cache=CACHE_WITHOUT_THUMBNAIL)
    try:
        return _image_response(state, request, found.shown(size))
    except (NotFound, BlobDamaged):  # the thumbnail was lost, but maybe not the image
        return _image_response(state, request, sha256, cache=CACHE_WITHOUT_THUMBNAIL)


def _require_visible(session: Session, sha256: str) -> None:
    """Raise NotFound, as for an image that is not there, unless the person may see it."""
    if not may_see_image(session, sha256):
        raise NotFound(NO_IMAGE)


def _image_response(
    state: AppState, request: Request, sha256: str, *, cache: str = FOREVER
) -> Response:
    """A response with an image. Raises NotFound if it is missing or no image, or BlobDamaged."""
    etag = f'"{sha256}"'
    cache = cache if current_principal() is None else CACHE_OF_PEOPLE
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag, "cache-control": cache})
    try:
        with state.store.open(sha256) as blob:
            media_type = image_type(blob.read(HEAD_BYTES))
    except BlobNotFound:
        media_type = None
    if media_type is None:
        raise NotFound(NO_IMAGE)
    return blob_response(state, request, sha256, media_type=media_type, cache=cache)


def blob_response(
    state: AppState,
    request: Request,
    sha256: str,
    *,
    media_type: str,
    filename: str | None = None,
    cache: str = FOREVER,
) -> Response:
    """A response with a blob: sandboxed and cached; a download, not cached, with a file name.

    The blob is checked before anything is sent. Raises BlobNotFound or BlobDamaged.
    """
    headers = {
        "etag": f'"{sha256}"',
        "cache-control": cache,
        "content-security-policy": CONTENT_POLICY if filename else IMAGE_CONTENT_POLICY,
    }
    if filename is not None:
        headers["content-disposition"] = content_disposition(filename)
        headers["cache-control"] = "private, no-cache"
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    headers["content-length"] = str(state.store.checked_stat(sha256).size)
    content = blob_chunks(state.store, sha256)  # opened once it is read
    return StreamingResponse(content, media_type=media_type, headers=headers)


def content_disposition(filename: str) -> str:
    """The header that names a download (RFC 6266)."""
    plain = "".join(char if char.isascii() and char.isprintable() else "_" for char in filename)
    plain = plain.replace('"', "_").replace("\\", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename)}"
