"""REST: what deleting for good would remove and free, and deleting it.

`NOUNS` is the table of what can be deleted; a loop makes the two routes of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import Field

from app.registry.blobs import deletion as freeing
from app.registry.deletion import datasets
from app.registry.deletion.usage import FileKind, storage_use
from app.web.answers import Answer
from app.web.deletion import removals
from app.web.deletion.removals import Removal
from app.web.problems import problems
from app.web.rest.lists import Part
from app.web.state import State

router = APIRouter(tags=["deletion"])

NOT_ENDED = "It has not ended: cancel it first."
NOT_DELETED = "It is not deleted yet, or what needs it has not ended."
IN_USE = "It is the only version, or an alias or a job needs it."
PUBLISHED = "An image of them is being published."
FOREVER = "/forever"


class FreedOut(Answer):
    """The parts and files that a final deletion removes or has removed."""

    title: str = Field(description="What is deleted, in words.", examples=["run 3, “Ink”"])
    goes: list[str] = Field(description="Its parts, in words.", examples=[["2 checkpoints"]])
    stays: list[str] = Field(description="What stays and why, as sentences.")
    files: int = Field(description="Number of stored files.")
    size_bytes: int = Field(description="Their size: the space that is freed.")


class UseOut(Answer):
    """The stored files of a kind."""

    kind: FileKind = Field(description="What they are for.")
    files: int = Field(description="Their number.")
    size_bytes: int = Field(description="Their total size.")


class DeletedDatasetOut(Answer):
    """A deleted dataset that can be restored."""

    id: int = Field(description="Id of the dataset.")
    name: str = Field(description="Its name.")
    images: int = Field(description="Number of its images.")
    runs: int = Field(description="Number of runs that were trained on it.")
    deleted_at: datetime | None = Field(description="When it was deleted.")


@dataclass(frozen=True)
class Noun:
    """Something that can be deleted for good, with the texts of its operations.

    `removal`: a dependency; its path parameters are those of `address`. `conflict`: the reasons
    for a 409. `way`: what the address of the deletion has at its end, if deleting for good is the
    second step. `name`: of the deletion, where it is not the noun's.
    """

    noun: str
    address: str
    removal: Callable[..., Removal]
    preview: str
    deletion: str
    conflict: str = NOT_ENDED
    deletion_conflict: str = ""
    way: str = ""
    name: str = ""


NOUNS = (
    Noun(
        "run",
        "/runs/{run_id}",
        removals.of_run,
        "Get what deleting a run would remove and free.",
        "Delete a run for good, with its samples, checkpoints and metrics.\n\n"
        "The versions that came from it stay, with their samples.",
    ),
    Noun(
        "checkpoints",
        "/runs/{run_id}/checkpoints",
        removals.of_checkpoints,
        "Get what deleting the checkpoints of a run would free.",
        "Delete the checkpoints of a run for good; it can then not be continued.",
        name="delete_run_checkpoints",
    ),
    Noun(
        "checkpoint",
        "/runs/{run_id}/checkpoints/{step}",
        removals.of_checkpoint,
        "Get what deleting a checkpoint would free.",
        "Delete one checkpoint of a run for good.",
    ),
    Noun(
        "all_checkpoints",
        "/checkpoints",
        removals.of_all_checkpoints,
        "Get what deleting the checkpoints of all runs that have ended would free.",
        "Delete the checkpoints of all runs that have ended for good.",
        conflict="",
    ),
    Noun(
        "renders",
        "/renders",
        removals.of_renders,
        "Get what deleting the renders that have ended would remove and free.",
        "Delete the renders that have ended for good.",
        deletion_conflict=PUBLISHED,
    ),
    Noun(
        "render",
        "/renders/{render_id}",
        removals.of_render,
        "Get what deleting a render would remove and free.",
        "Delete a render for good, with its images and the same seed without adapters.",
    ),
    Noun(
        "adapter",
        "/adapters/{adapter_id}",
        removals.of_adapter,
        "Get what deleting a deleted adapter for good would remove and free.",
        "",  # `adapters_api` deletes it
        conflict=NOT_DELETED,
    ),
    Noun(
        "version",
        "/adapters/{adapter_id}/versions/{version}",
        removals.of_version,
        "Get what deleting a version of an adapter would remove and free.",
        "Delete a version of an adapter for good, with its files.\n\n"
        "If `latest` points to it, that moves to the newest version that is left.",
        conflict=IN_USE,
    ),
    Noun(
        "dataset",
        "/datasets/{dataset_id}",
        removals.of_dataset,
        "Get what deleting a deleted dataset for good would remove and free.",
        "Delete a deleted dataset for good, with its images and captions.\n\n"
        "What runs were trained on stays, unless the runs are deleted too.",
        conflict=NOT_DELETED,
        way=FOREVER,
    ),
    Noun(
        "image",
        "/images/{image_id}",
        removals.of_image,
        "Get what deleting a deleted image for good would remove and free.",
        "Delete a deleted image for good, with all its captions.\n\n"
        "If runs were trained on it, it stays, unless the runs are deleted too.",
        conflict=NOT_DELETED,
        way=FOREVER,
    ),
)


@router.get("/storage")
def get_storage(state: State, part: Part) -> list[UseOut]:
    """Get the number and size of the stored files by kind; each file counts once."""
    return [UseOut.of(use) for use in part.of(storage_use(state), lambda use: use.kind)]


def _add_routes(noun: Noun) -> None:
    def preview(state: State, removal: Removal = Depends(noun.removal)) -> FreedOut:
        return FreedOut.of(freeing.preview(state, removal))

    def delete(state: State, removal: Removal = Depends(noun.removal)) -> FreedOut:
        return FreedOut.of(freeing.delete(state, removal))

    router.add_api_route(
        f"{noun.address}/deletion",
        preview,
        name=f"preview_{noun.noun}_deletion",
        description=noun.preview,
        responses=problems({409: noun.conflict} if noun.conflict else {}),
    )
    if noun.deletion:
        conflict = noun.deletion_conflict or noun.conflict
        router.add_api_route(
            noun.address + noun.way,
            delete,
            methods=["DELETE"],
            name=noun.name or f"delete_{noun.noun}{noun.way.replace('/', '_')}",
            description=noun.deletion,
            responses=problems({409: conflict} if conflict else {}),
        )


for each in NOUNS:
    _add_routes(each)


@router.get("/datasets/deleted")
def list_deleted_datasets(state: State, part: Part) -> list[DeletedDatasetOut]:
    """List deleted datasets, the last one first."""
    with state.database.read() as session:
        found = datasets.list_deleted(session)
    return [
        DeletedDatasetOut.of(row.dataset, images=row.image_count, runs=row.run_count)
        for row in part.of(found.items, lambda row: (str(row.dataset.deleted_at), row.dataset.key))
    ]
