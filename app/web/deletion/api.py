"""REST: what deleting for good would remove and free, and deleting it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from app.registry.blobs import deletion as freeing
from app.registry.blobs.deletion import Removal
from app.registry.deletion import datasets
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.state import AppState
from app.web.deletion.removals import (
    OfAdapter,
    OfAllCheckpoints,
    OfCheckpoint,
    OfCheckpoints,
    OfDataset,
    OfImage,
    OfRender,
    OfRenders,
    OfRun,
    OfVersion,
)
from app.web.openapi import header_docs
from app.web.problems import problems
from app.web.state import State

router = APIRouter(tags=["deletion"])

NOT_ENDED = problems({409: "It has not ended: cancel it first."})
NOT_DELETED = problems({409: "It is not deleted yet, or what needs it has not ended."})
IN_USE = problems({409: "It is the only version, or an alias or a job needs it."})


class FreedOut(BaseModel):
    """What deleting for good removes or has removed."""

    title: str = Field(description="What is deleted, in words.", examples=["run 3, “Ink”"])
    goes: list[str] = Field(description="Its parts, in words.", examples=[["2 checkpoints"]])
    stays: list[str] = Field(description="What stays and why, as sentences.")
    files: int = Field(description="Number of stored files.")
    size_bytes: int = Field(description="Their size: the space that is freed.")


class UseOut(BaseModel):
    """The stored files of a kind."""

    kind: FileKind = Field(description="What they are for.")
    files: int = Field(description="Their number.")
    size_bytes: int = Field(description="Their total size.")


class DeletedDatasetOut(BaseModel):
    """A deleted dataset that can be restored."""

    id: int = Field(description="Id of the dataset.")
    name: str = Field(description="Its name.")
    images: int = Field(description="Number of its images.")
    runs: int = Field(description="Number of runs that were trained on it.")
    deleted_at: datetime | None = Field(description="When it was deleted.")


def _preview(state: AppState, removal: Removal) -> FreedOut:
    return FreedOut.model_validate(freeing.preview(state, removal), from_attributes=True)


def _delete(state: AppState, removal: Removal) -> FreedOut:
    return FreedOut.model_validate(freeing.delete(state, removal), from_attributes=True)


@router.get("/storage")
def get_storage(state: State) -> list[UseOut]:
    """Get the number and size of the stored files by kind; each file counts once."""
    return [UseOut.model_validate(use, from_attributes=True) for use in storage_use(state)]


@router.get("/runs/{run_id}/deletion", responses=NOT_ENDED)
def preview_run_deletion(removal: OfRun, state: State) -> FreedOut:
    """Get what deleting a run would remove and free."""
    return _preview(state, removal)


@router.delete("/runs/{run_id}", responses=NOT_ENDED)
def delete_run(removal: OfRun, state: State) -> FreedOut:
    """Delete a run for good, with its samples, checkpoints and metrics.

    The adapter it made stays.
    """
    return _delete(state, removal)


@router.get("/runs/{run_id}/checkpoints/deletion", responses=NOT_ENDED)
def preview_checkpoints_deletion(removal: OfCheckpoints, state: State) -> FreedOut:
    """Get what deleting the checkpoints of a run would free."""
    return _preview(state, removal)


@router.delete("/runs/{run_id}/checkpoints", responses=NOT_ENDED)
def delete_run_checkpoints(removal: OfCheckpoints, state: State) -> FreedOut:
    """Delete the checkpoints of a run for good; it can then not be continued."""
    return _delete(state, removal)


@router.get("/runs/{run_id}/checkpoints/{step}/deletion", responses=NOT_ENDED)
def preview_checkpoint_deletion(removal: OfCheckpoint, state: State) -> FreedOut:
    """Get what deleting a checkpoint would free."""
    return _preview(state, removal)


@router.delete("/runs/{run_id}/checkpoints/{step}", responses=NOT_ENDED)
def delete_checkpoint(removal: OfCheckpoint, state: State) -> FreedOut:
    """Delete one checkpoint of a run for good."""
    return _delete(state, removal)


@router.get("/checkpoints/deletion")
def preview_all_checkpoints_deletion(removal: OfAllCheckpoints, state: State) -> FreedOut:
    """Get what deleting the checkpoints of all runs that have ended would free."""
    return _preview(state, removal)


@router.delete("/checkpoints")
def delete_all_checkpoints(removal: OfAllCheckpoints, state: State) -> FreedOut:
    """Delete the checkpoints of all runs that have ended for good."""
    return _delete(state, removal)


@router.get("/renders/deletion", responses=NOT_ENDED)
def preview_renders_deletion(removal: OfRenders, state: State) -> FreedOut:
    """Get what deleting the renders that have ended would remove and free."""
    return _preview(state, removal)


@router.delete("/renders", responses=problems({409: "An image of them is being published."}))
def delete_renders(removal: OfRenders, state: State) -> FreedOut:
    """Delete the renders that have ended for good."""
    return _delete(state, removal)


@router.get("/renders/{render_id}/deletion", responses=NOT_ENDED)
def preview_render_deletion(removal: OfRender, state: State) -> FreedOut:
    """Get what deleting a render would remove and free."""
    return _preview(state, removal)


@router.delete("/renders/{render_id}", responses=NOT_ENDED)
def delete_render(removal: OfRender, state: State) -> FreedOut:
    """Delete a render for good, with its images and the same seed without adapters."""
    return _delete(state, removal)


@router.get("/adapters/{adapter_id}/deletion", responses=NOT_DELETED)
def preview_adapter_deletion(removal: OfAdapter, state: State) -> FreedOut:
    """Get what deleting a deleted adapter for good would remove and free."""
    return _preview(state, removal)


@router.get("/adapters/{adapter_id}/versions/{version}/deletion", responses=IN_USE)
def preview_version_deletion(removal: OfVersion, state: State) -> FreedOut:
    """Get what deleting a version of an adapter would remove and free."""
    return _preview(state, removal)


@router.delete("/adapters/{adapter_id}/versions/{version}", responses=IN_USE)
def delete_version(removal: OfVersion, state: State) -> FreedOut:
    """Delete a version of an adapter for good, with its files.

    If `latest` points to it, that moves to the newest version that is left.
    """
    return _delete(state, removal)


@router.get("/datasets/deleted", responses=header_docs("x-total-count"))
def list_deleted_datasets(
    state: State,
    response: Response,
    page: Annotated[int, Query(ge=1, le=100_000, description="Number of the page.")] = 1,
) -> list[DeletedDatasetOut]:
    """List deleted datasets, the last one first, 24 a page."""
    with state.database.read() as session:
        found = datasets.list_deleted(session, page=page)
    response.headers["x-total-count"] = str(found.total)
    return [
        DeletedDatasetOut(
            id=row.dataset.key,
            name=row.dataset.name,
            images=row.image_count,
            runs=row.run_count,
            deleted_at=row.dataset.deleted_at,
        )
        for row in found.items
    ]


@router.get("/datasets/{dataset_id}/deletion", responses=NOT_DELETED)
def preview_dataset_deletion(removal: OfDataset, state: State) -> FreedOut:
    """Get what deleting a deleted dataset for good would remove and free."""
    return _preview(state, removal)


@router.delete("/datasets/{dataset_id}/forever", responses=NOT_DELETED)
def delete_dataset_forever(removal: OfDataset, state: State) -> FreedOut:
    """Delete a deleted dataset for good, with its images and captions.

    What runs were trained on stays, unless the runs are deleted too.
    """
    return _delete(state, removal)


@router.get("/images/{image_id}/deletion", responses=NOT_DELETED)
def preview_image_deletion(removal: OfImage, state: State) -> FreedOut:
    """Get what deleting a deleted image for good would remove and free."""
    return _preview(state, removal)


@router.delete("/images/{image_id}/forever", responses=NOT_DELETED)
def delete_image_forever(removal: OfImage, state: State) -> FreedOut:
    """Delete a deleted image for good, with all its captions.

    If runs were trained on it, it stays, unless the runs are deleted too.
    """
    return _delete(state, removal)
