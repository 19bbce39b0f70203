"""An uploaded LoRA file on its way into the registry: stored, then checked by an io worker."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from app.adapters import service
from app.errors import InvalidInput, TooLarge
from app.jobs.models import IoJob
from app.state import AppState

MAX_ADAPTER_BYTES = 2 * 2**30
CHUNK = 2**20
PICKLES = (b"PK", b"\x80")


def receive(state: AppState, upload: UploadFile) -> IoJob:
    """Store an uploaded file and order its check; refuses what is plainly no safetensors file."""
    filename = (upload.filename or "unnamed")[:200]
    head = upload.file.read(9)
    upload.file.seek(0)
    if not head:
        raise _refused(f"“{filename}” is empty.")
    if head[8:9] != b"{":  # after the length of the header, whose first byte can be anything
        if head.startswith(PICKLES):
            raise _refused(
                f"“{filename}” is a pickle: opening one can run code. "
                "Save it as .safetensors first."
            )
        raise _refused(f"“{filename}” is no .safetensors file.")
    if (upload.size or 0) > MAX_ADAPTER_BYTES:
        raise TooLarge(f"“{filename}” is larger than 2 GB, which no adapter is.")
    with state.store.writer(limit=MAX_ADAPTER_BYTES) as writer:
        while chunk := upload.file.read(CHUNK):
            writer.write(chunk)
        blob = writer.commit()
    with state.database.write() as session:
        return service.order_import(session, sha256=blob.sha256, filename=filename)


def _refused(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"file": sentence})
