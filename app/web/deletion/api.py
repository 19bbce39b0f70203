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

from app.registry.adapters import service as adapters
from app.registry.blobs import deletion as freeing
from app.registry.datasets import service as datasets
from app.registry.deletion import runs, versions
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.renders.grids.service import delete_grid
from app.registry.renders.recipes.service import delete_recipe
from app.registry.renders.removal import delete_render
from app.registry.runs import own_presets
from app.web.answers import Answer
from app.web.deletion import removals
from app.web.deletion.removals import Removal
from app.web.problems import problems
from app.web.rest.lists import Part
from app.web.state import State

router = APIRouter(tags=["deletion"])

API = "/api/v1"
FOREVER = "/storage/forever"
NOT_DELETED = problems({409: "It is not deleted yet, or what needs it has not ended."})
IN_USE = problems({409: "It has not ended, or something that has not ended needs it."})
DELETED_RENDERS = "all deleted renders, grids and recipes"
CHECKPOINTS = "the checkpoints of a run that nobody keeps"
STATES = "the training states of runs that have ended"
NAMES = {"checkpoints": "delete_run_checkpoints"}  # of operations that delete for good


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


class DeletedThingOut(Answer):
    """Something that is deleted and can be restored."""

    name: str = Field(description="Its name, or that of what it belongs to.", examples=["Ink"])
    about: str = Field(description="What else is known of it.", examples=["run 3"])
    deleted_at: datetime | None = Field(description="When it was deleted.")
    deleted: str = Field(description="Address of it.", examples=["/api/v1/runs/3"])
    restore: str = Field(description="POST to this address restores it.")
    forever: str = Field(description="DELETE of this address deletes it for good.")


@dataclass(frozen=True)
class Noun:
    """Something that can be deleted for good; one of `SOFT_DELETES` only once it is deleted.

    `final`: a dependency for its removal, whose keywords are the path parameters of `address`.
    """

    noun: str
    address: str
    words: str
    final: Callable[..., Removal]


@dataclass(frozen=True)
class SoftDelete:
    """The deletion of a noun that can be undone: `delete` has the keywords of its removal.

    `alone`: the dependency for the removal without its query, where it has one.
    """

    delete: Callable[..., object]
    about: str = ""
    alone: Callable[..., Removal] | None = None


NOUNS = (
    Noun("run", "/runs/{run_id}", "a run", removals.of_run),
    Noun("checkpoint", "/runs/{run_id}/checkpoints/{step}", "a checkpoint", removals.of_checkpoint),
    Noun("version", "/adapters/{adapter_id}/versions/{version}", "a version", removals.of_version),
    Noun("adapter", "/adapters/{adapter_id}", "an adapter", removals.of_adapter),
    Noun("dataset", "/datasets/{dataset_id}", "a dataset", removals.of_dataset),
    Noun("image", "/images/{image_id}", "an image", removals.of_image),
    Noun("render", "/renders/{render_id}", "a render", removals.of_deleted_render),
    Noun("grid", "/grids/{grid_id}", "a grid", removals.of_grid),
    Noun("recipe", "/recipes/{recipe_id}", "a recipe", removals.of_recipe),
    Noun("preset", "/presets/{preset_id}", "a preset of your own", removals.of_preset),
    Noun("deleted_runs", "/runs", "all deleted runs", removals.of_deleted_runs),
    Noun("deleted_images", "/images", "all deleted images of datasets", removals.of_all_images),
    Noun("deleted_renders", "/deleted-renders", DELETED_RENDERS, removals.of_deleted_renders),
    Noun("renders", "/renders", "the renders that have ended", removals.of_renders),
    Noun("checkpoints", "/runs/{run_id}/checkpoints", CHECKPOINTS, removals.of_checkpoints),
    Noun("all_checkpoints", "/checkpoints", STATES, removals.of_all_checkpoints),
)
SOFT_DELETES = {
    "run": SoftDelete(runs.discard_run, "Its checkpoints are deleted with it; its versions stay."),
    "checkpoint": SoftDelete(runs.discard_checkpoint, "A version that was made of it stays."),
    "version": SoftDelete(versions.discard_version, "`latest` then means the newest that is left."),
    "adapter": SoftDelete(adapters.delete_adapter, "Its images and the runs that trained it stay."),
    "dataset": SoftDelete(datasets.delete_dataset, "Its runs stay.", removals.of_dataset_alone),
    "image": SoftDelete(datasets.delete_image, "", removals.of_image_alone),
    "render": SoftDelete(
        delete_render,
        "Renders with the same image are deleted with it. An adapter whose cover it is gets its "
        "usual cover, and the chosen one back with the render.",
    ),
    "grid": SoftDelete(delete_grid, "Its unfinished images are canceled."),
    "recipe": SoftDelete(delete_recipe),
    "preset": SoftDelete(own_presets.delete_preset, "Runs keep their settings. Its name is free."),
}
"""The nouns that can be restored, with the sentences that describe their deletion."""


@router.get("/storage")
def get_storage(state: State, part: Part) -> list[UseOut]:
    """Get the number and size of the stored files by kind; each file counts once."""
    return [UseOut.of(use) for use in part.of(storage_use(state), lambda use: use.kind)]


@router.get("/storage/deleted")
def list_deleted(
    state: State, part: Part, kind: Annotated[DeletedKind, Query(description="Which of them.")]
) -> list[DeletedThingOut]:
    """List what is deleted and can be restored, the last one first."""
    with state.database.read() as session:
        found = list_things(session, kind)
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

    forever = f"delete_{noun.noun}{'_forever' if noun.noun in SOFT_DELETES else ''}"
    for method, endpoint, name, description in (
        ("GET", preview, f"preview_{noun.noun}_deletion", f"Get what deleting {noun.words} frees."),
        ("DELETE", delete, NAMES.get(noun.noun, forever), f"Delete {noun.words} for good."),
    ):
        router.add_api_route(
            FOREVER + noun.address,
            endpoint,
            methods=[method],
            name=name,
            description=description,
            responses=NOT_DELETED,
        )


def _add_soft_delete(noun: Noun, soft: SoftDelete) -> None:
    def delete(
        request: Request, state: State, final: Removal = Depends(soft.alone or noun.final)
    ) -> RestorableOut:
        named = {name: final.keywords[name] for name in request.path_params}
        with state.database.write() as session:
            row = soft.delete(session, **named)
        named = {name: getattr(row, name, value) for name, value in named.items()}
        return RestorableOut(freed_bytes=0, **_addresses(noun.address.format_map(named)))

    router.add_api_route(
        noun.address,
        delete,
        methods=["DELETE"],
        name=f"delete_{noun.noun}",
        description=f"Delete {noun.words}; it can be restored.\n\n{soft.about}".strip(),
        responses=IN_USE,
    )


for each in NOUNS:
    _add_final(each)
    if each.noun in SOFT_DELETES:
        _add_soft_delete(each, SOFT_DELETES[each.noun])
