"""Makes the thumbnails of a stored image with Pillow; used by the workers.

The images were all written by Brushwork, so they are decoded without the resource limits of
uploads (`registry.images.decoding`).
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from app.registry.images.decoding import FORMATS, MAX_PIXELS, on_white, shrink_to_webp
from app.registry.storage.store import Blob, BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.blobs import Thumbnail, ThumbnailSize

log = logging.getLogger(__name__)


class UnreadableImage(Exception):
    """The image cannot be decoded."""


def make_thumbnails(
    store: BlobStore, blob: Blob, image: Image.Image | Path | BinaryIO
) -> Thumbnail:
    """Store the thumbnails of a stored image, which is also given decoded or as a file.

    A damaged image gets a row without thumbnails, so that nobody tries again.
    """
    try:
        pixels, file_format = _decode(image)
    except UnreadableImage as error:
        log.warning("The image %s gets no thumbnails: %s", blob.sha256, error)
        return Thumbnail(sha256=blob.sha256)
    fits_small = max(pixels.size) <= ThumbnailSize.SMALL.side
    large = _encode_thumbnail(pixels, file_format, ThumbnailSize.LARGE)
    small = large if fits_small else _encode_thumbnail(pixels, file_format, ThumbnailSize.SMALL)
    return Thumbnail(
        sha256=blob.sha256,
        small_sha256=_store_smaller(store, small, blob),
        large_sha256=_store_smaller(store, large, blob),
    )


def remake_thumbnails(store: BlobStore, sha256: str) -> Thumbnail:
    """Store the thumbnails of an image of which only the hash is known."""
    try:
        with store.open(sha256) as file:
            return make_thumbnails(store, Blob(sha256, store.stat(sha256).size), file)
    except (BlobNotFound, BlobDamaged):
        log.warning("The image %s gets no thumbnails: its file is missing or damaged.", sha256)
        return Thumbnail(sha256=sha256)


def _decode(image: Image.Image | Path | BinaryIO) -> tuple[Image.Image, str | None]:
    """The pixels on white, which may be changed, and the file's format. Raises UnreadableImage."""
    if isinstance(image, Image.Image):
        return on_white(image.copy()), None
    try:
        with Image.open(image, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UnreadableImage(f"it has {opened.width} × {opened.height} pixels.")
            mode = "RGBA" if opened.has_transparency_data else "RGB"
            return on_white(opened.convert(mode)), opened.format
    except (UnreadableImage, FileNotFoundError):
        raise
    except Exception as error:  # decoders raise SyntaxError, struct.error, OSError and others
        raise UnreadableImage(f"it cannot be decoded ({error}).") from error


def _encode_thumbnail(
    pixels: Image.Image, file_format: str | None, size: ThumbnailSize
) -> bytes | None:
    """The pixels, shrunk in place, as a WebP of this size; None for a WebP that already fits."""
    if file_format == "WEBP" and max(pixels.size) <= size.side:
        return None
    content = io.BytesIO()
    shrink_to_webp(pixels, content, size.side)
    return content.getvalue()


def _store_smaller(store: BlobStore, encoded: bytes | None, original: Blob) -> str | None:
    """The hash of the stored thumbnail; None if it is not smaller than the image itself."""
    if encoded is None or len(encoded) >= original.size:
        return None
    return store.put_bytes(encoded).sha256
