"""REST: the unchanged file that a version was imported from."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.registry.errors import NotFound
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.web.adapters.downloads.api import Version, find_version
from app.web.media import blob_response
from app.web.openapi import FILE_ANSWERS
from app.web.state import AdapterId, State
from worker.core.lora_files.file_names import original_name

router = APIRouter(tags=["files"])


@router.get("/adapters/{adapter_id}/original", response_class=Response, responses=FILE_ANSWERS)
def download_original(
    adapter_id: AdapterId, request: Request, state: State, version: Version = None
) -> Response:
    """Download the file that a version was imported from, byte for byte.

    A version that was not imported has none: 404.
    """
    adapter, row = find_version(state, adapter_id, version)
    return blob_response(
        state,
        request,
        _source_sha256(state, adapter, row),
        media_type="application/octet-stream",
        filename=original_name(adapter.slug, row.version),
    )


def _source_sha256(state: AppState, adapter: Adapter, version: AdapterVersion) -> str:
    sha256 = version.details.get("source_sha256")
    if not isinstance(sha256, str):
        raise NotFound(
            f"Version {version.version} of “{adapter.name}” has no original file: it was made "
            "here, or imported before originals were kept. Use its download."
        )
    if not state.store.exists(sha256):
        raise NotFound(
            f"The original file of version {version.version} of “{adapter.name}” is no longer in "
            "the store. Use its download."
        )
    return sha256
