"""The versions of a dataset that runs were trained on, copies, and downloads of both."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.responses import Response, StreamingResponse

from app.registry.comparison.datasets import compare_versions
from app.registry.datasets.edits.copying import duplicate_dataset
from app.registry.datasets.transfer import versions
from app.registry.datasets.transfer.exporting import (
    Contents,
    dataset_contents,
    export_chunks,
    version_contents,
)
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.web.access.needs import Action, Router
from app.web.datasets.page_requests import OfDataset
from app.web.datasets.page_view import redirect_to
from app.web.form_reader import as_id
from app.web.media import content_disposition
from app.web.state import Id, Slug, Snapshot, State
from app.web.templates import render

router = Router(include_in_schema=False)
Side = Annotated[str, Query(max_length=20)]
NOW = "now"


@router.get("/datasets/{slug}/export", Action.DOWNLOAD)
def export_dataset(asked: OfDataset) -> Response:
    """Download a dataset as it is now."""
    with asked.reading() as (session, dataset):
        contents = dataset_contents(session, dataset.key)
    return zip_response(asked.state, contents)


@router.get("/datasets/{slug}/versions/{version_id}/export", Action.DOWNLOAD)
def export_version(state: State, session: Snapshot, slug: Slug, version_id: Id) -> Response:
    """Download a pinned version of a dataset."""
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


@router.get("/datasets/{slug}/versions", Action.LOOK)
def show_versions(asked: OfDataset) -> Response:
    """List the versions of a dataset with the runs and adapters that used them."""
    with asked.reading() as (session, dataset):
        found = versions.list_versions(session, dataset.key)
    return render(
        asked.request,
        "datasets/transfer/versions.html",
        dataset=dataset,
        versions=found,
        can_compare=any(version.is_kept for version in found),
    )


@router.get("/datasets/{slug}/versions/compare", Action.LOOK)
def compare(
    asked: OfDataset,
    a: Side = NOW,
    b: Side = NOW,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """Show which images and captions differ from `a` to `b`: ids of versions, or `now`."""
    with asked.reading() as (session, dataset):
        before, after = (None if side == NOW else as_id(side) or 0 for side in (a, b))
        found = compare_versions(session, dataset.key, before, after, page=page)
    sides = f"a={before if before is not None else NOW}&b={after if after is not None else NOW}"
    url = f"/datasets/{dataset.slug}/versions/compare?{sides}&page="
    return render(
        asked.request, "datasets/transfer/changes.html", dataset=dataset, found=found, pager_url=url
    )


@router.post("/datasets/{slug}/duplicate", Action.CREATE)
def duplicate(asked: OfDataset) -> Response:
    """Copy a dataset with its images and captions, and show the copy."""
    with asked.writing() as (session, dataset):
        return redirect_to(duplicate_dataset(session, dataset.key))
