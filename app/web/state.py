"""Dependencies of every request: the app state that `create_app` makes once, and row ids."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from pydantic import Field

from app.registry.db import MAX_ID
from app.registry.slugs import Reference, id_of
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.base_models import BaseModel
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.prompt_sets import PromptSet
from app.registry.tables.recipes import Recipe

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""A row id in a URL; a number out of the range of the column is a 404."""
RunIds = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_ID)]], Query(max_length=200, description="The runs.")
]
"""Chosen runs in the query of a URL."""
Slug = Annotated[str, Path(max_length=200)]
"""The short name of a row in a URL; a longer one than any row has is a 404."""


def app_state(request: Request) -> AppState:
    """The state of the app that answers this request."""
    state: AppState = request.app.state.brushwork
    return state


State = Annotated[AppState, Depends(app_state)]


def find_id(state: AppState, table: type[Any], reference: int | str | None) -> int | None:
    """The id that a request names by an id or a slug, None for none.

    Without a row of the slug it is 0, which no row has.
    """
    if reference is None:
        return None
    with state.database.read() as session:
        return id_of(session, table, reference)


def named(name: str, table: type[Any]) -> Any:
    """A dependency: the id of the row that a path parameter names; 0 if none has the slug."""

    def find(state: State, reference: Reference = Path(alias=name)) -> int:
        return find_id(state, table, reference) or 0

    return Depends(find)


AdapterId = Annotated[int, named("adapter_id", Adapter)]
DatasetId = Annotated[int, named("dataset_id", Dataset)]
BaseModelId = Annotated[int, named("base_id", BaseModel)]
CaptionModelId = Annotated[int, named("model_id", CaptionModel)]
PromptSetId = Annotated[int, named("set_id", PromptSet)]
RecipeId = Annotated[int, named("recipe_id", Recipe)]
"""The id of a row that a URL names by its id or slug; 0 if no row has the slug: that is a 404."""
