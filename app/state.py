"""What every request needs, made once by `create_app` and handed out as dependencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Path, Request

from app.config import Settings
from app.db import Database
from app.queue import Hints
from app.storage import BlobStore

if TYPE_CHECKING:
    from app.datasets.images import ImageDecoder

MAX_ID = 2**31 - 1

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""A row's id in an address; what no database could hold is a 422, not an error."""


@dataclass(frozen=True)
class AppState:
    """Settings and the services behind the pages and the API."""

    settings: Settings
    database: Database
    store: BlobStore
    decoder: ImageDecoder
    hints: Hints


def app_state(request: Request) -> AppState:
    """The state of the app that answers this request."""
    state: AppState = request.app.state.brushwork
    return state


State = Annotated[AppState, Depends(app_state)]
