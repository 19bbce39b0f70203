"""Downloads of datasets and of their pinned versions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from app.registry.datasets import service
from app.registry.datasets.transfer.contents import (
    Contents,
    dataset_contents,
    version_contents,
)
from app.registry.datasets.transfer.exporting import export_chunks
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.web.media import content_disposition
from app.web.state import Id, Slug, State

router = APIRouter(include_in_schema=False)


@router.get("/datasets/{slug}/export")
def export_dataset(state: State, slug: Slug) -> Response:
    """Download a dataset as it is now."""
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        contents = dataset_contents(session, dataset.key)
    return zip_response(state, contents)


@router.get("/datasets/{slug}/versions/{version_id}/export")
def export_version(state: State, slug: Slug, version_id: Id) -> Response:
    """Download a pinned version of a dataset."""
    with state.database.snapshot() as session:
        contents = version_contents(session, version_id)
    if contents.slug != slug:
        raise NotFound("This dataset has no such version.")
    return zip_response(state, contents)


def zip_response(state: AppState, contents: Contents) -> Response:
    """A dataset as a download, made while it is sent."""
    headers = {
        "content-disposition": content_disposition(contents.filename),
        "cache-control": "private, no-store",
    }
    chunks = export_chunks(state.store, contents)
    return StreamingResponse(chunks, media_type="application/zip", headers=headers)
