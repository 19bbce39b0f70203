"""Files of a request, as the registry takes them."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from app.registry.uploads import UploadedFile

MAX_FILENAME = 1_000  # characters; the end of a name has its suffix


def uploaded(file: UploadFile) -> UploadedFile:
    """The file with its name; read from the request's own temporary file."""
    return UploadedFile((file.filename or "")[-MAX_FILENAME:], file.file)
