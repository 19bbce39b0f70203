"""The nouns that can be deleted: loops over `NOUNS` make the routes of the API and the pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

from fastapi import Depends, Path, Query

from app.registry.adapters.service import delete_adapter
from app.registry.blind_tests.service import delete_blind_test
from app.registry.blobs.deletion import Deletion
from app.registry.datasets.service import delete_dataset, delete_image
from app.registry.db import MAX_ID, utcnow
from app.registry.deletion import adapters, datasets, renders, runs, sweeps
from app.registry.deletion.lists import restore
from app.registry.prompt_sets import delete_set
from app.registry.renders.grids.service import delete_grid
from app.registry.renders.recipes.service import delete_recipe
from app.registry.renders.removal import delete_render, restore_render
from app.registry.runs.own_presets import delete_preset, restore_preset
from app.registry.tables.adapters import Adapter
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.prompt_sets import PromptSet
from app.registry.tables.renders import Grid, Recipe
from app.web.access.needs import Action
from app.web.state import AdapterId, DatasetId, Id, PromptSetId, RecipeId

MAX_DAYS = 36_500
FOREVER, DELETED = "/storage/forever", "/storage/deleted?kind="
Act = partial[Any]
"""A function that only lacks the session."""
Removal = partial[Deletion]


def time_before(
    older_than_days: Annotated[
        int,
        Query(
            ge=0,
            le=MAX_DAYS,
            description="Only what ended this many days ago or earlier; 0: all.",
        ),
    ],
) -> datetime | None:
    """The moment so many days ago; None: no limit."""
    return utcnow() - timedelta(days=older_than_days) if older_than_days else None


PARAMETERS = {
    **dict.fromkeys(("run_id", "image_id", "render_id", "grid_id", "preset_id"), Id),
    **dict.fromkeys(("sweep_id", "test_id"), Id),
    "step": Annotated[int, Path(ge=0, le=MAX_ID)],
    "adapter_id": AdapterId,
    "version": Annotated[str, Path(max_length=60)],
    "dataset_id": DatasetId,
    "recipe_id": RecipeId,
    "set_id": PromptSetId,
}
"""What the parts of addresses are, by their names."""
QUERY = {
    "before": (Annotated[datetime | None, Depends(time_before)], Parameter.empty),
    "keep_covers": (
        Annotated[bool, Query(description="Keep renders with the cover of an adapter.")],
        True,
    ),
    "with_runs": (
        Annotated[
            bool,
            Query(
                description="Also delete the runs that were trained on it, which keep its images."
            ),
        ],
        False,
    ),
    "kept": (
        Annotated[
            int | None,
            Query(
                ge=0, le=MAX_ID, description="Place of the configuration to keep; absent: winner."
            ),
        ],
        None,
    ),
}
"""What the query of an address may have, where the function has a parameter of this name: with its
default."""


class Acting:
    """A dependency: a function of a session with the parameters of a request as its keywords."""

    def __init__(self, address: str, function: Callable[..., Any]) -> None:
        self._function = function
        known: dict[str, tuple[Any, Any]] = {
            name: (one, Parameter.empty)
            for name, one in PARAMETERS.items()
            if f"{{{name}}}" in address
        }
        own = signature(function).parameters
        if not any(one.kind is Parameter.VAR_KEYWORD for one in own.values()):
            known = {name: one for name, one in (known | QUERY).items() if name in own}
        self.__signature__ = Signature(
            [
                Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                for name, (annotation, default) in known.items()
            ]
        )

    def __call__(self, **values: Any) -> Act:
        """The function with these values."""
        return partial(self._function, **values)


@dataclass(frozen=True)
class SoftDelete:
    """The deletion of a noun that can be undone.

    `page`: where the restored row, `{0}`, is shown: an address, or a place on the page that one
    came from; empty for nouns whose pages have routes of their own.
    """

    delete: Callable[..., Any]
    restore: Callable[..., Any]
    page: str = ""


@dataclass(frozen=True)
class Noun:
    """Something that can be deleted for good by `remove`; with `soft` only once it is deleted.

    `action`: what deleting it for good needs; with `soft`, deleting and restoring it too. The
    functions have the parts of the address as keywords.
    """

    noun: str
    address: str
    words: str
    remove: Callable[..., Deletion]
    soft: SoftDelete | None = None
    action: Action = Action.OWN

    def acting(self, function: Callable[..., Any]) -> Any:
        """The dependency for one of its functions."""
        return Depends(Acting(self.address, function))

    def place(self, row: Any, act: Act) -> str:
        """The address of a row that was found by these parameters."""
        return self.address.format_map(named(row, act))


def named(row: Any, act: Act) -> dict[str, Any]:
    """The parts of the address of a row that was found by these parameters, maybe by an alias."""
    return {name: getattr(row, name, value) for name, value in act.keywords.items()}


def _restoring(table: type[Any]) -> Callable[..., Any]:
    """Restores the row whose id is the part of the address."""
    return lambda session, **key: restore(session, table, *key.values())


RUN = SoftDelete(runs.discard_run, runs.restore_run, "#run-{0.id}")
CHECKPOINT = SoftDelete(runs.discard_checkpoint, runs.restore_checkpoint, "#step-{0.step}")
VERSION = SoftDelete(adapters.discard_version, adapters.restore_version, "#versions")
ADAPTER = SoftDelete(delete_adapter, _restoring(Adapter), "/adapters/{0.slug}")
DATASET = SoftDelete(delete_dataset, _restoring(Dataset), "/datasets/{0.slug}")
IMAGE = SoftDelete(delete_image, _restoring(Image))
RENDER = SoftDelete(delete_render, restore_render)
GRID = SoftDelete(delete_grid, _restoring(Grid), "/grids/{0.id}")
BLIND_TEST = SoftDelete(delete_blind_test, _restoring(BlindTest), "/blind-tests/{0.id}")
RECIPE = SoftDelete(delete_recipe, _restoring(Recipe), "#recipe-{0.id}")
PRESET = SoftDelete(delete_preset, restore_preset, "#preset-{0.id}")
PROMPT_SET = SoftDelete(delete_set, _restoring(PromptSet), "#set-{0.id}")
SWEEP = SoftDelete(sweeps.discard_sweep, sweeps.restore_sweep, "/sweeps/{0.id}")
STEP, NUMBER = "/runs/{run_id}/checkpoints/{step}", "/adapters/{adapter_id}/versions/{version}"
SET, TEST = "/prompt-sets/{set_id}", "/blind-tests/{test_id}"
OTHERS = "/sweeps/{sweep_id}/others"
IMAGES, RENDERS = "all deleted images of datasets", "all deleted renders, grids and recipes"
CHECKPOINTS = "the checkpoints of a run that nobody keeps"
STATES = "the training states of runs that have ended"
ENDED = "the renders that have ended"
delete_deleted_render = partial(renders.delete_render, only_deleted=True)
_everyones = partial(Noun, action=Action.ADMIN)
NOUNS = (
    Noun("run", "/runs/{run_id}", "a run", runs.delete_deleted_run, RUN),
    Noun("checkpoint", STEP, "a checkpoint", runs.delete_deleted_checkpoint, CHECKPOINT),
    Noun("version", NUMBER, "a version", adapters.delete_version, VERSION),
    Noun("adapter", "/adapters/{adapter_id}", "an adapter", adapters.delete_forever, ADAPTER),
    Noun("dataset", "/datasets/{dataset_id}", "a dataset", datasets.delete_dataset, DATASET),
    Noun("image", "/images/{image_id}", "an image", datasets.delete_image, IMAGE),
    Noun("render", "/renders/{render_id}", "a render", delete_deleted_render, RENDER),
    Noun("grid", "/grids/{grid_id}", "a grid", renders.delete_grid, GRID),
    Noun("blind_test", TEST, "a blind test", renders.delete_blind_test, BLIND_TEST),
    Noun("recipe", "/recipes/{recipe_id}", "a recipe", renders.delete_recipe, RECIPE),
    Noun("preset", "/presets/{preset_id}", "a preset of your own", runs.delete_preset, PRESET),
    Noun("prompt_set", SET, "a prompt set", runs.delete_prompt_set, PROMPT_SET),
    Noun("sweep", "/sweeps/{sweep_id}", "a sweep", sweeps.delete_sweep, SWEEP),
    Noun(
        "sweep_others", OTHERS, "all runs of a sweep but the winner's", sweeps.delete_sweep_others
    ),
    Noun("checkpoints", "/runs/{run_id}/checkpoints", CHECKPOINTS, runs.delete_checkpoints),
    _everyones("deleted_runs", "/runs", "all deleted runs", runs.delete_deleted_runs),
    _everyones("deleted_images", "/images", IMAGES, datasets.delete_all_deleted_images),
    _everyones("deleted_renders", "/deleted-renders", RENDERS, renders.delete_deleted_renders),
    _everyones("renders", "/renders", ENDED, renders.delete_ended_renders),
    _everyones("all_checkpoints", "/checkpoints", STATES, runs.delete_all_checkpoints),
)
