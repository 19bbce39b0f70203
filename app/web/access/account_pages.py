"""The page of one's own account: password, sessions, access tokens, visibility of new things."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.registry.access import service as sessions
from app.registry.errors import Conflict, InvalidInput
from app.registry.jobs.quotas import waits_until
from app.registry.people import accounts, overview, service, tokens
from app.web.access.login import set_known
from app.web.access.needs import Action, Router
from app.web.access.pages import own_session, sender_of
from app.web.access.person import Person, require_person
from app.web.access.rights import Scope
from app.web.state import Id, State, Writing, session_of
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False, dependencies=[Depends(require_person)])
Secret = Annotated[str, Form(max_length=1_000)]
SCOPES = {
    Scope.READ: "read: looks",
    Scope.USE: "use: also draws and downloads",
    Scope.WRITE: "write: also trains, makes and changes",
    Scope.ADMIN: "admin: also manages the server",
}


@router.get("/account", Action.ACCOUNT)
def show_account(request: Request, person: Person) -> Response:
    """Show one's own account."""
    return _page(request, person)


@router.post("/account/password", Action.ACCOUNT)
def change_password(
    request: Request, state: State, person: Person, old_password: Secret = "", password: Secret = ""
) -> Response:
    """Change the password; the other sessions end."""
    try:
        known = accounts.change_password(
            state.database,
            person.user_id,
            old_password,
            password,
            sender_of(request),
            kept=own_session(request),
        )
    except (InvalidInput, Conflict) as error:
        errors = error.fields or {"password": error.detail}
        return _page(request, person, errors=errors)
    response = redirect_with_notice(
        "/account", "The password is changed. Your other sessions have ended."
    )
    set_known(response, request, person.user_id, known)
    return response


@router.post("/account/tokens", Action.ACCOUNT)
def make_token(
    request: Request,
    state: State,
    person: Person,
    name: Annotated[str, Form(max_length=1_000)] = "",
    scope: Annotated[Scope, Form()] = Scope.READ,
    days: Annotated[int, Form(ge=1, le=365)] = tokens.USUAL_DAYS,
) -> Response:
    """Make an access token, and show it once."""
    try:
        with state.database.write() as session:
            user = service.get_user(session, person.user_id)
            label = service.read_name(name)
            token, _ = tokens.make_token(session, user, label, scope, days=days)
    except InvalidInput as error:
        return _page(request, person, errors=error.fields)
    return _page(request, person, token=token)


@router.post("/account/tokens/{token_id}/delete", Action.ACCOUNT)
def delete_token(token_id: Id, session: Writing, person: Person) -> Response:
    """End an access token."""
    tokens.delete_token(session, service.get_user(session, person.user_id), token_id)
    return redirect_with_notice("/account", "The token is deleted.")


@router.post("/account/makes", Action.ACCOUNT)
def change_makes(
    session: Writing, person: Person, makes: Annotated[Literal["studio", "private"], Form()]
) -> Response:
    """Choose the visibility of what one makes from now on."""
    service.get_user(session, person.user_id).makes = makes
    return redirect_with_notice("/account", f"What you make from now on is {makes}.")


@router.post("/account/sessions/end-others", Action.ACCOUNT)
def end_other_sessions(request: Request, session: Writing, person: Person) -> Response:
    """End one's sessions but this browser's."""
    sessions.end_other_sessions(session, own_session(request), user_id=person.user_id)
    return RedirectResponse("/account", status_code=303)


@router.post("/account/sessions/{session_id}/end", Action.ACCOUNT)
def end_session(session_id: Id, session: Writing, person: Person) -> Response:
    """End one of one's sessions."""
    sessions.end_session(session, session_id, user_id=person.user_id)
    return RedirectResponse("/account", status_code=303)


def _page(
    request: Request,
    person: Person,
    *,
    token: str = "",
    errors: dict[str, str] | None = None,
) -> Response:
    with session_of(request) as session:
        own = sessions.list_sessions(session, user_id=person.user_id)
        mine = tokens.list_tokens(session, person.user_id)
        use = overview.usage_of(session, service.get_user(session, person.user_id))
        device_time_at = waits_until(session, person.user_id)
    return render(
        request,
        "people/account.html",
        status=422 if errors else 200,
        sessions=own,
        own=own_session(request),
        tokens=mine,
        token=token,
        use=[one for one in use if one.limit is not None],
        device_time_at=device_time_at,
        errors=errors or {},
        scopes=[(scope.value, words) for scope, words in SCOPES.items()],
        usual_days=tokens.USUAL_DAYS,
    )
