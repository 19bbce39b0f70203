"""Pages to log in, to log out, and to see and end sessions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Path, Query, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.access import service
from app.registry.access.delays import TooManyTries
from app.registry.access.secret_marks import START
from app.registry.actor import current_principal
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.people import accounts
from app.registry.people.invitations import PATH as INVITE_PATH
from app.registry.people.invitations import Gone, find_invitation
from app.registry.people.passwords import MAX_CHARACTERS, MIN_CHARACTERS, Busy
from app.registry.people.service import has_people, names
from app.registry.tables.people import MAX_USER_NAME
from app.web import templates
from app.web.access.gate import ASK_START_TOKEN, LOGIN_PATH, caller_of, login_of
from app.web.access.login import (
    Unauthorized,
    address_of,
    delete_cookie,
    known_by,
    set_cookie,
    set_known,
    token_of,
)
from app.web.access.needs import Action, Router
from app.web.addresses import own_address
from app.web.problems import error_headers
from app.web.state import Id, Reading, State, app_state

router = Router(include_in_schema=False)
MAX_SECRET_CHARACTERS = 1_000
OLD_ADDRESS = "This login address is no longer valid: it changes with each start of Brushwork."
ASK_FIRST = (
    "Nobody has an account yet. On the machine that runs Brushwork, `brushwork users invite NAME "
    "--role admin` prints the link for the first administrator."
)
NO_PAGES_BACK = (LOGIN_PATH, "/logout")
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)

Secret = Annotated[str, Form(max_length=MAX_SECRET_CHARACTERS)]
Token = Annotated[str, Path(max_length=MAX_SECRET_CHARACTERS)]


@router.get(LOGIN_PATH, Action.OPEN)
def show_login(
    request: Request,
    state: State,
    wanted: Annotated[str, Query(alias="next")] = "/",
    token: Annotated[str | None, Query(max_length=MAX_SECRET_CHARACTERS)] = None,
) -> Response:
    """Show the form, or log in with the start token of a login address."""
    if not login_of(request).is_needed:
        return RedirectResponse(address_after(wanted), status_code=303)
    if token is None or not login_of(request).has_start_token:
        return _login_page(request, wanted)
    if not login_of(request).is_start_token(token.encode()):
        return _login_page(request, wanted, OLD_ADDRESS, status=403)
    return _open_session(request, state, START, wanted=wanted)


@router.post(LOGIN_PATH, Action.OPEN)
def log_in(
    request: Request,
    state: State,
    name: Secret = "",
    password: Secret = "",
    wanted: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    """Check the password; open a session, and lead on to the page that was asked for."""
    if not login_of(request).is_needed:
        return RedirectResponse(address_after(wanted), status_code=303)
    if login_of(request).accounts:
        return _log_in_person(request, state, name, password, wanted=wanted)
    try:
        secret = login_of(request).check_secret(
            password.encode(), address=address_of(request), way="login page"
        )
    except Unauthorized as error:
        return _login_page(request, wanted, error.detail, status=403)
    except TooManyTries as error:
        response = _login_page(request, wanted, error.detail, status=error.status)
        response.headers["retry-after"] = str(error.retry_after)
        return response
    return _open_session(request, state, secret, wanted=wanted)


def _log_in_person(
    request: Request, state: State, name: str, password: str, *, wanted: str
) -> Response:
    try:
        found = accounts.log_in(state.database, name, password, sender_of(request))
    except AppError as error:
        if error.status not in (403, 429):
            raise
        response = _login_page(request, wanted, error.detail, status=error.status, name=name)
        response.headers.update(error_headers(error))
        return response
    return _enter(request, state, found, wanted=wanted)


def sender_of(request: Request) -> accounts.Sender:
    """Where a password comes from."""
    browser = browser_name(request.headers.get("user-agent", ""))
    return accounts.Sender(address_of(request), browser, known_by(request))


def _enter(request: Request, state: State, found: accounts.LoggedIn, *, wanted: str) -> Response:
    """Hand a person's new session to the browser, whose present one ends."""
    _end_session_of(request, state)
    response = RedirectResponse(address_after(wanted), status_code=303)
    response.headers["cache-control"] = "no-store"
    set_cookie(response, request, found.token)
    set_known(response, request, found.user_id, found.known)
    return response


@router.get(INVITE_PATH + "{token}", Action.OPEN)
def show_invitation(request: Request, state: State, token: Token) -> Response:
    """Show the form of a link with which a person chooses a password; it uses nothing up."""
    return _invitation_page(request, state, token)


@router.post(INVITE_PATH + "{token}", Action.OPEN)
def use_invitation(request: Request, state: State, token: Token, password: Secret = "") -> Response:
    """Set the password of the person whom a link is for, and log them in."""
    _require_accounts(request)
    try:
        found = accounts.use_invitation(state.database, token, password, sender_of(request))
    except (NotFound, Gone, InvalidInput, Busy) as error:
        return _invitation_page(request, state, token, error)
    return _enter(request, state, found, wanted="/")


def _invitation_page(
    request: Request, state: State, token: str, error: AppError | None = None
) -> Response:
    _require_accounts(request)
    name = ""
    try:
        with state.database.read() as session:
            name = find_invitation(session, token)[1].name
    except (NotFound, Gone) as invalid:
        error = invalid
    response = templates.render_outside(
        request,
        "access/invite.html",
        name=name,
        error=error.detail if error else None,
        fewest=MIN_CHARACTERS,
        most=MAX_CHARACTERS,
        status=error.status if error else 200,
    )
    # not `no-referrer`: browsers would send the form with the origin `null`, as if from elsewhere
    response.headers["referrer-policy"] = "strict-origin"
    response.headers.update(error_headers(error) if error else {})
    return response


def _require_accounts(request: Request) -> None:
    if not login_of(request).accounts:
        raise NotFound("There are no accounts here: BRUSHWORK_ACCOUNTS is off.")


def _open_session(request: Request, state: State, secret: str, *, wanted: str) -> Response:
    _end_session_of(request, state)
    token = login_of(request).open_session(
        state.database,
        secret,
        address=address_of(request),
        browser=browser_name(request.headers.get("user-agent", "")),
    )
    response = RedirectResponse(address_after(wanted), status_code=303)
    response.headers["cache-control"] = "no-store"
    set_cookie(response, request, token)
    return response


def address_after(wanted: str) -> str:
    """Where to go after logging in: a page of this server that is not the login itself."""
    address = own_address(wanted)
    return "/" if address.partition("?")[0] in NO_PAGES_BACK else address


def _login_page(
    request: Request,
    wanted: str,
    error: str | None = None,
    *,
    status: int = 200,
    name: str = "",
) -> Response:
    login = login_of(request)
    hint = ASK_START_TOKEN if login.has_start_token else None
    if login.accounts:
        with app_state(request).database.read() as session:
            hint = None if has_people(session) else ASK_FIRST
    return templates.render_outside(
        request,
        "access/login.html",
        next=address_after(wanted),
        error=error,
        hint=hint,
        asks_password=login.has_password or (login.accounts and hint is None),
        asks_name=login.accounts,
        name=name[:MAX_USER_NAME],
        status=status,
    )


@router.post("/logout", Action.ACCOUNT)
def log_out(request: Request, state: State) -> Response:
    """End this browser's session."""
    _end_session_of(request, state)
    response = RedirectResponse(LOGIN_PATH, status_code=303)
    delete_cookie(response, request)
    if login_of(request).accounts:  # images of a person stay in the browser's cache otherwise
        response.headers["clear-site-data"] = '"cache"'
    return response


def _end_session_of(request: Request, state: State) -> None:
    token = token_of(request)
    if token is None:
        return
    with state.database.write() as session:
        service.end_token(session, service.token_hash(token))
    login_of(request).forget()


@router.get("/sessions", Action.ACCOUNT)
def show_sessions(request: Request, session: Reading) -> Response:
    """List the browsers that are logged in; people who are no administrators see their account."""
    person = current_principal()
    if person and person.is_limited:
        return RedirectResponse("/account", status_code=303)
    sessions = service.list_sessions(session)
    of_people = names(session) if person else {}
    return templates.render(
        request,
        "access/sessions.html",
        sessions=sessions,
        names=of_people,
        own=own_session(request),
        is_needed=login_of(request).is_needed,
        idle_days=service.IDLE_END.days,
        most_days=service.ABSOLUTE_END.days,
    )


def own_session(request: Request) -> int | None:
    """The id of the session of this browser, if it has logged in."""
    caller = caller_of(request)
    return caller.session.key if caller and caller.session else None


@router.post("/sessions/end-others", Action.ADMIN)
def end_other_sessions(request: Request, state: State) -> Response:
    """End every session but this browser's."""
    with state.database.write() as session:
        service.end_other_sessions(session, own_session(request))
    login_of(request).forget()
    return RedirectResponse("/sessions", status_code=303)


@router.post("/sessions/{session_id}/end", Action.ADMIN)
def end_session(session_id: Id, request: Request, state: State) -> Response:
    """End one session; that of this browser logs it out."""
    with state.database.write() as session:
        service.end_session(session, session_id)
    login_of(request).forget()
    return RedirectResponse("/sessions", status_code=303)


def browser_name(user_agent: str) -> str:
    """A short name to tell sessions apart: “Firefox on Linux”; empty when nothing is known."""
    browser = next((name for sign, name in BROWSERS if sign in user_agent), "")
    system = next((name for sign, name in SYSTEMS if sign in user_agent), "")
    return f"{browser or 'A browser'} on {system}" if system else browser
