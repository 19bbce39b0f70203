"""REST: the sessions of the browsers that are logged in."""

from __future__ import annotations

from datetime import datetime

from fastapi import Request
from pydantic import Field

from app.registry.access import service
from app.registry.wording import aware
from app.web.access.gate import login_of
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.rest.lists import Part
from app.web.state import Id, Reading, State

router = Router(tags=["sessions"])


class SessionOut(Answer):
    """A browser that has logged in."""

    id: int = Field(description="Id of the session.")
    address: str = Field(description="Address that it was opened from; IPv6 as a network.")
    browser: str = Field(description="Name of the browser and its system, if known.")
    created_at: datetime = Field(description="When somebody logged in.")
    last_used_at: datetime = Field(description="When it was last used, to about five minutes.")
    expires_at: datetime = Field(description="When it ends at the latest.")


@router.get("/sessions", Action.ADMIN)
def list_sessions(session: Reading, part: Part) -> list[SessionOut]:
    """List the sessions of browsers that have not ended, last used first.

    Programs that send the password with each request have none.
    """
    rows = service.list_sessions(session)
    times = ("created_at", "last_used_at", "expires_at")
    return [
        SessionOut.of(row, **{name: aware(getattr(row, name)) for name in times})
        for row in part.of(rows, lambda row: row.key)
    ]


@router.delete("/sessions/{session_id}", Action.ADMIN, status_code=204)
def end_session(session_id: Id, request: Request, state: State) -> None:
    """End a session: its browser has to log in again."""
    with state.database.write() as session:
        service.end_session(session, session_id)
    login_of(request).forget()
