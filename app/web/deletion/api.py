"""REST: delete so that it can be restored, and delete for good.

All that is final is below `FOREVER`, where GET says what DELETE would remove and free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, get_type_hints

from fastapi import Query
from pydantic import Field

from app.registry.blobs import deletion as freeing
from app.registry.blobs.deletion import FreedSpace
from app.registry.db import MAX_ID
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.deletion.usage import StorageUse, storage_use
from app.registry.paging import foreign_cursor
from app.web.access.needs import Action, Router
from app.web.adapters.api import get_adapter
from app.web.adapters.versions.api import get_version
from app.web.answers import Answer
from app.web.blind_tests.api import get_blind_test
from app.web.datasets.api import get_dataset, get_image
from app.web.deletion.nouns import FOREVER, NOUNS, Act, Noun, Removal, SoftDelete, named
from app.web.playground.api import get_render
from app.web.playground.grids.api import get_grid
from app.web.playground.recipes.api import get_recipe
from app.web.problems import problems
from app.web.rest.lists import ListPart, Part
from app.web.runs.api import get_run
from app.web.runs.presets_api import get_preset
from app.web.runs.prompt_sets_api import get_prompt_set
from app.web.runs.sweeps_api import get_sweep
from app.web.state import Reading, State, Writing

router = Router(tags=["deletion"])

API = "/api/v1"
NOT_DELETED = problems({409: "It is not deleted yet, or what needs it has not ended."})
IN_USE = problems({409: "It has not ended, or something that has not ended needs it."})
ABOUT = {
    "run": "Its checkpoints are deleted with it; its versions stay.",
    "checkpoint": "A version that was made of it stays.",
    "version": "`latest` then means the newest that is left.",
    "adapter": "Its images and the runs that trained it stay.",
    "dataset": "Its runs stay.",
    "render": "Renders with the same image are deleted with it. An adapter whose cover it is gets "
    "its usual cover, and the chosen one back with the render.",
    "grid": "Its unfinished images are canceled.",
    "blind_test": "Images that are still to come are canceled.",
    "preset": "Runs keep their settings. Its name is free.",
    "prompt_set": "What was drawn with it stays.",
    "sweep": "Its runs are deleted with it; versions made from them stay.",
}
"""What the descriptions of deletions that can be undone add."""
READ: dict[str, Callable[..., Any]] = {
    "run": get_run,
    "version": get_version,
    "adapter": get_adapter,
    "dataset": get_dataset,
    "image": get_image,
    "render": get_render,
    "grid": get_grid,
    "blind_test": get_blind_test,
    "recipe": get_recipe,
    "preset": get_preset,
    "prompt_set": get_prompt_set,
    "sweep": get_sweep,
}
NAMES = {"checkpoints": "delete_run_checkpoints"}  # of operations that delete for good


class RestorableOut(Answer):
    """Something that was deleted: it can be restored until it is deleted for good."""

    deleted: str = Field(description="Address of it.", examples=["/api/v1/renders/2"])
    restore: str = Field(examples=["/api/v1/renders/2/restore"])
    """POST to this address restores it."""
    freed_bytes: int = Field(description="Space that is free now: 0, as all of it is kept.")
    forever: str = Field(examples=["/api/v1/storage/forever/renders/2"])
    """DELETE of this address deletes it for good; GET says what that would free."""


class DeletedThingOut(Answer):
    """Something that is deleted and can be restored."""

    name: str = Field(description="Its name, or that of what it belongs to.", examples=["Ink"])
    about: str = Field(description="What else is known of it.", examples=["run 3"])
    deleted_at: datetime | None = Field(description="When it was deleted.")
    deleted: str = Field(description="Address of it.", examples=["/api/v1/runs/3"])
    restore: str = Field(description="POST to this address restores it.")
    forever: str = Field(description="DELETE of this address deletes it for good.")


@router.get("/storage", Action.LOOK)
def get_storage(state: State, part: Part) -> Sequence[StorageUse]:
    """Get the number and size of the stored files by kind; each file counts once."""
    return part.of(storage_use(state), lambda use: use.kind)


@router.get("/storage/deleted", Action.LOOK)
def list_deleted(
    session: Reading, part: Part, kind: Annotated[DeletedKind, Query(description="Which of them.")]
) -> list[DeletedThingOut]:
    """List what is deleted and can be restored, the last one first."""
    found = list_things(session, kind, size=part.size, after=_place_before(part))
    return [
        DeletedThingOut.of(row, **_addresses(row.place))
        for row in part.cut(
            found.items, lambda row: (row.deleted_at.isoformat(), row.id), total=found.total
        )
    ]


def _place_before(part: ListPart) -> tuple[datetime, int] | None:
    """When the last of the part before was deleted, and its id."""
    if part.position is None:
        return None
    try:
        moment, key = part.position
        place = datetime.fromisoformat(moment).astimezone(UTC), int(key)
    except (TypeError, ValueError, OverflowError):
        raise foreign_cursor() from None
    if not 0 < place[1] <= MAX_ID:
        raise foreign_cursor()
    return place


def _addresses(place: str) -> dict[str, str]:
    """Where something is, where to restore it, and where to delete it for good."""
    here, forever = API + place, API + FOREVER + place
    return {"deleted": here, "restore": f"{here}/restore", "forever": forever}


def _add_final(noun: Noun) -> None:
    removal = noun.acting(noun.remove)
    address = FOREVER + noun.address
    forever = f"delete_{noun.noun}{'_forever' if noun.soft else ''}"
    name, more = NAMES.get(noun.noun, forever), {"responses": NOT_DELETED}
    asked, deleted = f"Get what deleting {noun.words} frees.", f"Delete {noun.words} for good."

    @router.get(
        address, noun.action, name=f"preview_{noun.noun}_deletion", description=asked, **more
    )
    def preview(state: State, act: Removal = removal) -> FreedSpace:
        return freeing.preview(state, act)

    @router.delete(address, noun.action, name=name, description=deleted, **more)
    def delete(state: State, act: Removal = removal) -> FreedSpace:
        return freeing.delete(state, act)


def _add_soft_delete(noun: Noun, soft: SoftDelete) -> None:
    deletion = noun.acting(soft.delete)
    name, more = f"delete_{noun.noun}", {"responses": IN_USE}
    about = f"Delete {noun.words}; it can be restored.\n\n{ABOUT.get(noun.noun, '')}".strip()

    @router.delete(noun.address, noun.action, name=name, description=about, **more)
    def delete(session: Writing, act: Act = deletion) -> RestorableOut:
        row = act(session)
        return RestorableOut(freed_bytes=0, **_addresses(noun.place(row, act)))


def _add_restoration(noun: Noun, soft: SoftDelete, read: Callable[..., Any]) -> None:
    """The answer is that of `read`, the endpoint that gets the noun."""
    restoration = noun.acting(soft.restore)

    @router.post(
        f"{noun.address}/restore",
        noun.action,
        name=f"restore_{noun.noun}",
        description=f"Restore {noun.words} that was deleted.",
        response_model=get_type_hints(read)["return"],
    )
    def restore(session: Writing, act: Act = restoration) -> Any:
        row = act(session)
        return read(**named(row, act), session=session)


for each in NOUNS:
    _add_final(each)
    if each.soft:
        _add_soft_delete(each, each.soft)
        if each.noun in READ:
            _add_restoration(each, each.soft, READ[each.noun])
