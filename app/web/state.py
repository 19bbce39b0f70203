"""What endpoints take: the app state that `create_app` makes once, sessions, and row ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import Field

from app.registry.db import MAX_ID, Database, Session
from app.registry.slugs import Reference, id_of
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel, CaptionModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.prompt_sets import PromptSet
from app.registry.tables.renders import Recipe
from app.web.addresses import MAX_ADDRESS

Id = Annotated[int, Path(ge=1, le=MAX_ID)]
"""A row id in a URL; a number out of the range of the column is a 404."""
RunIds = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_ID)]], Query(max_length=200, description="The runs.")
]
"""Chosen runs in the query of a URL."""
Slug = Annotated[str, Path(max_length=200)]
"""The short name of a row in a URL; a longer one than any row has is a 404."""
OptionalId = Annotated[int | None, Query(ge=1, le=MAX_ID)]
"""A row id in the query of a URL; None without it."""
PageNumber = Annotated[int, Query(ge=1, le=100_000)]
"""The number of a page of a list, in the query of a URL."""
Words = Annotated[str, Query(max_length=200)]
"""What is searched for, or a choice, in the query of a URL."""
Back = Annotated[str, Query(max_length=MAX_ADDRESS)]
"""The page that leads on once something is done, in the query of a URL."""


def app_state(request: Request) -> AppState:
    """The state of the app that answers this request."""
    state: AppState = request.app.state.brushwork
    return state


State = Annotated[AppState, Depends(app_state)]
Reading = Annotated[Session, Database.read]
"""A session for reading, open while the endpoint runs."""
Snapshot = Annotated[Session, Database.snapshot]
"""The same; every statement sees the database as of one moment."""
Writing = Annotated[Session, Database.write]
"""A session that commits at the end of the endpoint, before the answer is sent, or rolls back."""


class SessionRoute(APIRoute):
    """A route whose endpoint may have a parameter `session`, a `Reading` or a `Writing`.

    A dependency with `yield` would end it on another thread: while all threads wait for the write
    lock of SQLite, none would be left for the request that holds it (measured with 48 clients: 7
    changes a second in place of 100, and most answers were 503).
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        super().__init__(path, _in_session(endpoint), **settings)


def _in_session(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint with the parameter `request` in place of `session`."""
    asked = signature(endpoint, eval_str=True)
    parameters = {**asked.parameters}
    session = parameters.pop("session", None)
    if session is None:
        return endpoint
    (open_session,) = session.annotation.__metadata__
    takes_request = "request" in parameters
    parameters["request"] = Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)

    @wraps(endpoint)
    def opened(*, request: Request, **values: Any) -> Any:
        if takes_request:
            values["request"] = request
        with open_for(request, open_session) as session:
            return endpoint(**values, session=session)

    keywords = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters.values()]
    opened.__signature__ = asked.replace(parameters=keywords)  # type: ignore[attr-defined]
    return opened


@contextmanager
def open_for(
    request: Request, open_session: Callable[[Database], AbstractContextManager[Session]]
) -> Iterator[Session]:
    """A session, which `session_of` gives until it ends."""
    with open_session(app_state(request).database) as session:
        request.state.session = session
        try:
            yield session
        finally:
            request.state.session = None


def session_of(request: Request) -> AbstractContextManager[Session]:
    """The open session of a request, for what is read besides; without one, one for reading."""
    opened = getattr(request.state, "session", None)
    return nullcontext(opened) if opened else open_for(request, Database.read)


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
