"""Dependencies of every request: the app state that `create_app` makes once, and row ids."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from pydantic import Field

from app.registry.db import MAX_ID
from app.registry.state import AppState

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
