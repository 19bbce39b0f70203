"""REST: datasets as ZIP archives, and the pinned versions of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from app.registry.comparison.datasets import ChangeKind, ItemChange, compare_versions
from app.registry.datasets import service
from app.registry.datasets.edits import copying
from app.registry.datasets.transfer import versions
from app.registry.datasets.transfer.exporting import dataset_contents, version_contents
from app.registry.datasets.transfer.versions import VersionSummary
from app.registry.db import MAX_ID
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.datasets.api import DatasetOut, dataset_out
from app.web.datasets.transfer.pages import zip_response
from app.web.openapi import file_docs
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import DatasetId, Id, Reading, Snapshot, State, Writing
from worker.core.documented import DocumentedModel

router = Router(tags=["datasets"])

VersionSide = Annotated[
    int | None,
    Query(ge=1, le=MAX_ID, description="Id of a version; absent: the dataset as it is now."),
]
ZIP_DOCS = file_docs("application/zip")


class VersionChangesOut(Answer):
    """The differences between two states of a dataset."""

    added: int = Field(description="Number of images that only the later one has.")
    removed: int = Field(description="Number of images that only the earlier one has.")
    changed: int = Field(description="Number of images whose captions or settings differ.")
    same: int = Field(description="Number of images that are the same.")
    changes: list[ItemChange] = Field(description="Added, then removed, then changed images.")


class DuplicateIn(DocumentedModel):
    """A copy of a dataset."""

    model_config = example(name="Ink 2")
    name: Name | None = None
    """Name of the copy; absent: that of the dataset with “(copy)”."""


@router.post("/datasets/{dataset_id}/duplicate", Action.CREATE, status_code=201)
def duplicate_dataset(dataset_id: DatasetId, body: DuplicateIn, session: Writing) -> DatasetOut:
    """Copy a dataset with its images, captions and settings.

    The files are shared, not copied. Deleted images and the histories of captions are left out.
    """
    dataset = copying.duplicate_dataset(session, dataset_id, name=body.name)
    return dataset_out(session, dataset)


@router.get(
    "/datasets/{dataset_id}/export", Action.DOWNLOAD, response_class=Response, responses=ZIP_DOCS
)
def export_dataset(dataset_id: DatasetId, state: State, session: Snapshot) -> Response:
    """Download a dataset as it is now as a ZIP archive.

    It has every image as it is stored, a `.txt` with its first caption, and `metadata.jsonl` with
    all captions and their shares, repeats, `never_flip`, `set_aside`, the focus point and hashes.
    Uploading the archive restores all of it. Changes during the download are not in it.
    """
    contents = dataset_contents(session, dataset_id)
    return zip_response(state, contents)


@router.get("/datasets/{dataset_id}/versions", Action.LOOK)
def list_dataset_versions(
    dataset_id: DatasetId, session: Reading, part: Part
) -> Sequence[VersionSummary]:
    """List the versions of a dataset that runs were trained on, newest first."""
    service.get_dataset(session, dataset_id)
    found = versions.list_versions(session, dataset_id)
    return part.of(found, lambda row: row.id)


@router.get(
    "/datasets/{dataset_id}/versions/compare",
    Action.LOOK,
    responses=problems({409: "The images of a version were deleted for good."}),
)
def compare_dataset_versions(
    dataset_id: DatasetId, session: Snapshot, a: VersionSide = None, b: VersionSide = None
) -> VersionChangesOut:
    """List what differs from one version of a dataset to another, or to what it is now."""
    found = compare_versions(session, dataset_id, a, b)
    counts = {kind.value: found.count(kind) for kind in ChangeKind}
    return VersionChangesOut.of(found, **counts)


@router.get(
    "/dataset-versions/{version_id}/export",
    Action.DOWNLOAD,
    response_class=Response,
    responses={**ZIP_DOCS, **problems({409: "Its images were deleted for good."})},
)
def export_dataset_version(version_id: Id, state: State, session: Snapshot) -> Response:
    """Download a pinned version of a dataset as a ZIP archive, like the dataset itself.

    `dataset_version_id` of a version of an adapter names the one that it was trained on.
    """
    contents = version_contents(session, version_id)
    return zip_response(state, contents)
