"""What every request needs, made once by `create_app` and handed out as dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from app.registry.db import MAX_ID
from app.registry.state import AppState

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""A row's id in an address; what no database could hold is a 422, not an error."""


def app_state(request: Request) -> AppState:
    """The state of the app that answers this request."""
    state: AppState = request.app.state.brushwork
    return state


State = Annotated[AppState, Depends(app_state)]
