"""REST: delete so that it can be restored, and delete for good.

`NOUNS` is the table of what can be deleted; a loop makes the routes of each. All that is final is
below `FOREVER`, where GET says what DELETE would remove and free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from app.registry.blobs import deletion as freeing
from app.registry.deletion import datasets, lists
from app.registry.deletion.lists import DeletedKind
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.errors import AppError
from app.registry.outages import OUTAGES
from app.registry.state import AppState
from app.web.answers import Answer
from app.web.deletion import removals
from app.web.deletion.removals import Discard, Removal
from app.web.problems import problems
from app.web.rest.lists import Part
from app.web.state import State

router = APIRouter(tags=["deletion"])

API = "/api/v1"
FOREVER = "/storage/forever"
NOT_ENDED = "It has not ended: cancel it first."
NOT_DELETED = "It is not deleted yet, or what needs it has not ended."
UNKNOWN: tuple[type[Exception], ...] = (AppError, *OUTAGES)
PUBLISHED = "An image of them is being published."


class RestorableOut(Answer):
    """Something that was deleted: it can be restored until it is deleted for good."""

    deleted: str = Field(description="Address of it.", examples=["/api/v1/renders/2"])
    restore: str = Field(
        description="POST to this address restores it.", examples=["/api/v1/renders/2/restore"]
    )
    freed_bytes: int = Field(description="Space that is free now: 0, as all of it is kept.")
    forever: str = Field(
        description="DELETE of this address deletes it for good; GET says what that would free.",
        examples=["/api/v1/storage/forever/renders/2"],
    )
    forever_bytes: int | None = Field(
        description="Space that deleting it for good would free now; null if that is not known, as "
        "while a job needs it."
    )


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


class DeletedThingOut(Answer):
    """Something that is deleted and can be restored."""

    title: str = Field(description="What it is, in words.", examples=["run 3, “Ink”"])
    deleted_at: datetime = Field(description="When it was deleted.")
    deleted: str = Field(description="Address of it.", examples=["/api/v1/runs/3"])
    restore: str = Field(description="POST to this address restores it.")
    forever: str = Field(description="DELETE of this address deletes it for good.")


@dataclass(frozen=True)
class Noun:
    """Something that can be deleted, with the texts of its operations.

    `final`: a dependency for its removal; its path parameters are those of `address`. `goes`: what
    that adds to “Delete … for good”. `conflict`: the reasons for a 409. `discard`: a dependency for
    the deletion that can be undone, if there is one; `about` describes it. `name`: of the operation
    that deletes for good, where it is not the noun's.
    """

    noun: str
    address: str
    words: str
    final: Callable[..., Removal]
    goes: str = ""
    conflict: str = NOT_DELETED
    discard: Callable[..., Discard] | None = None
    about: str = ""
    refused: str = ""
    name: str = ""


NOUNS = (
    Noun(
        "run",
        "/runs/{run_id}",
        "a run",
        removals.of_run,
        ", with its samples, checkpoints and metrics.\n\n"
        "The versions that came from it stay, with their samples",
        discard=removals.discard_run,
        about="Its checkpoints are deleted with it. The versions that came from it stay.",
        refused=NOT_ENDED,
    ),
    Noun(
        "deleted_runs",
        "/runs",
        "all deleted runs",
        removals.of_deleted_runs,
        conflict=NOT_ENDED,
        name="delete_deleted_runs",
    ),
    Noun(
        "checkpoints",
        "/runs/{run_id}/checkpoints",
        "the checkpoints of a run",
        removals.of_checkpoints,
        ", with their adapters.\n\nThose that somebody keeps stay",
        NOT_ENDED,
        name="delete_run_checkpoints",
    ),
    Noun(
        "checkpoint",
        "/runs/{run_id}/checkpoints/{step}",
        "a checkpoint of a run",
        removals.of_checkpoint,
        discard=removals.discard_checkpoint,
        about="Its training state is deleted with it. A version that was made of it stays.",
        refused="The run has not ended, or a job needs the checkpoint.",
    ),
    Noun(
        "all_checkpoints",
        "/checkpoints",
        "training states of runs that have ended",
        removals.of_all_checkpoints,
        conflict="",
        name="delete_all_checkpoints",
    ),
    Noun(
        "renders",
        "/renders",
        "the renders that have ended",
        removals.of_renders,
        conflict=PUBLISHED,
        name="delete_renders",
    ),
    Noun(
        "deleted_renders",
        "/deleted-renders",
        "all deleted renders, grids and recipes",
        removals.of_deleted_renders,
        conflict=PUBLISHED,
        name="delete_deleted_renders",
    ),
    Noun(
        "render",
        "/renders/{render_id}",
        "a render",
        removals.of_deleted_render,
        ", with its images and the same seed without adapters",
        discard=removals.discard_render,
        about="Renders with the same image are deleted with it. An adapter whose cover it is gets "
        "its usual cover, and the chosen one back with the render.",
        refused="It has not ended yet.",
    ),
    Noun(
        "adapter",
        "/adapters/{adapter_id}",
        "an adapter",
        removals.of_adapter,
        ", with its versions and files.\n\n"
        "Images generated with it, runs that trained it and adapters derived from it stay",
        discard=removals.discard_adapter,
        refused="It holds the checkpoints of a run.",
    ),
    Noun(
        "version",
        "/adapters/{adapter_id}/versions/{version}",
        "a version of an adapter",
        removals.of_version,
        ", with its files",
        discard=removals.discard_version,
        about="If `latest` points to it, that means the newest version that is left until then.",
        refused="It is the only version, or an alias or a job needs it.",
    ),
    Noun(
        "dataset",
        "/datasets/{dataset_id}",
        "a dataset",
        removals.of_dataset,
        ", with its images and captions.\n\n"
        "What runs were trained on stays, unless the runs are deleted too",
        discard=removals.discard_dataset,
        about="The runs and adapters made from it stay.",
        refused="A run is queued or running on it.",
    ),
    Noun(
        "image",
        "/images/{image_id}",
        "an image of a dataset",
        removals.of_image,
        ", with all its captions.\n\n"
        "If runs were trained on it, it stays, unless the runs are deleted too",
        discard=removals.discard_image,
    ),
    Noun(
        "deleted_images",
        "/images",
        "the deleted images of all datasets",
        removals.of_all_images,
        conflict="",
        name="delete_deleted_images",
    ),
    Noun(
        "grid",
        "/grids/{grid_id}",
        "a grid",
        removals.of_grid,
        ", with the images that no other grid has",
        discard=removals.discard_grid,
        about="Its unfinished images are canceled.",
    ),
    Noun(
        "recipe",
        "/recipes/{recipe_id}",
        "a recipe",
        removals.of_recipe,
        discard=removals.discard_recipe,
    ),
    Noun(
        "preset",
        "/presets/{preset_id}",
        "a preset of your own",
        removals.of_preset,
        discard=removals.discard_preset,
        about="Runs keep their settings. Its name is free until then.",
    ),
)


@router.get("/storage")
def get_storage(state: State, part: Part) -> list[UseOut]:
    """Get the number and size of the stored files by kind; each file counts once."""
    return [UseOut.of(use) for use in part.of(storage_use(state), lambda use: use.kind)]


@router.get("/storage/deleted")
def list_deleted(
    state: State, part: Part, kind: Annotated[DeletedKind, Query(description="Which of them.")]
) -> list[DeletedThingOut]:
    """List deleted runs, versions, checkpoints or presets, the last one first."""
    with state.database.read() as session:
        found = lists.list_things(session, kind)
    return [
        DeletedThingOut.of(row, **_addresses(row.place))
        for row in part.of(found.items, lambda row: (str(row.deleted_at), row.place))
    ]


def _addresses(place: str) -> dict[str, str]:
    """Where something is, where to restore it, and where to delete it for good."""
    here, forever = API + place, API + FOREVER + place
    return {"deleted": here, "restore": f"{here}/restore", "forever": forever}


def _add_final(noun: Noun) -> None:
    def preview(state: State, removal: Removal = Depends(noun.final)) -> FreedOut:
        return FreedOut.of(freeing.preview(state, removal))

    def delete(state: State, removal: Removal = Depends(noun.final)) -> FreedOut:
        return FreedOut.of(freeing.delete(state, removal))

    router.add_api_route(
        FOREVER + noun.address,
        preview,
        name=f"preview_{noun.noun}_deletion",
        description=f"Get what deleting {noun.words} for good would free.",
        responses=problems({409: noun.conflict} if noun.conflict else {}),
    )
    router.add_api_route(
        FOREVER + noun.address,
        delete,
        methods=["DELETE"],
        name=noun.name or f"delete_{noun.noun}_forever",
        description=f"Delete {noun.words} for good{noun.goes}.",
        responses=problems({409: noun.conflict} if noun.conflict else {}),
    )


def _add_restorable(noun: Noun) -> None:
    def delete(
        request: Request, state: State, discard: Discard = Depends(noun.discard)
    ) -> RestorableOut:
        with state.database.write() as session:
            discard.mark(session)
        place = noun.address.format_map(request.path_params | discard.place)
        return RestorableOut(
            freed_bytes=0,
            forever_bytes=_freed_bytes(state, discard.final),
            **_addresses(place),
        )

    router.add_api_route(
        noun.address,
        delete,
        methods=["DELETE"],
        name=f"delete_{noun.noun}",
        description=f"Delete {noun.words}; it can be restored.\n\n{noun.about}".strip(),
        responses=problems({409: noun.refused} if noun.refused else {}),
    )


def _freed_bytes(state: AppState, final: Removal) -> int | None:
    """The space that a removal would free; None if it is impossible now or not known."""
    try:
        return freeing.preview(state, final).size_bytes
    except UNKNOWN:
        return None


for each in NOUNS:
    _add_final(each)
    if each.discard is not None:
        _add_restorable(each)


@router.get("/datasets/deleted")
def list_deleted_datasets(state: State, part: Part) -> list[DeletedDatasetOut]:
    """List deleted datasets, the last one first."""
    with state.database.read() as session:
        found = datasets.list_deleted(session)
    return [
        DeletedDatasetOut.of(row.dataset, images=row.image_count, runs=row.run_count)
        for row in part.of(found.items, lambda row: (str(row.dataset.deleted_at), row.dataset.key))
    ]
