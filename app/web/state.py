"""Dependencies of every request: the app state that `create_app` makes once, and row ids."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.registry.db import MAX_ID
from app.registry.state import AppState

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""A row id in a URL; a number out of the range of the column is a 422."""


def app_state(request: Request) -> AppState:
    """The state of the app that answers this request."""
    state: AppState = request.app.state.brushwork
    return state


State = Annotated[AppState, Depends(app_state)]
