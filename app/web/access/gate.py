"""The gate: decides once, before routes and bodies, whether a request may be answered.

It looks up the action of the route (`needs.py`) and who calls: a session's cookie, HTTP Basic or a
Bearer token; where no secret is set, everybody who reaches it. What nothing opens is closed.
The address and the scheme that a reverse proxy tells are believed if it is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.registry.access import service as sessions
from app.registry.access.delays import site_of
from app.registry.actor import Principal, Visibility, acting_as
from app.registry.config import Network
from app.registry.db import utcnow
from app.registry.errors import Forbidden
from app.registry.people import service as people
from app.registry.people import tokens
from app.registry.tables.people import LoginSession
from app.registry.wording import aware
from app.web.access.login import (
    Login,
    Unauthorized,
    address_of,
    read_credentials,
    token_of,
)
from app.web.access.needs import EVERYTHING, Action, Rule, rule_of
from app.web.access.rights import Scope as TokenScope
from app.web.access.rights import grants, words_of
from app.web.access.things import CHANGES, require_right
from app.web.error_answers import answer
from app.web.owners import naming_owners
from app.web.problems import problem_response
from app.web.state import app_state
from app.web.templates import CAN_LOG_OUT, error_page, wants_fragment

CALLER = "brushwork_caller"  # key in the scope
PEER = "brushwork_peer"  # key in the scope: the address of the connection itself
LOGIN_PATH = "/login"
MAX_NEXT_CHARACTERS = 8_000
ASK_PROGRAM = "Brushwork asks for its password; the user name can be anything."
ASK_TOKEN = "Brushwork asks for an access token, which a person makes on the page of their account."
ASK_PERSON = (
    "You are not logged in, or your session has ended; nothing was changed. Log in in another tab, "
    "then come back to this one and send it again."
)
ASK_START_TOKEN = (
    "Brushwork is open only to the user who started it. The login address is printed where it was "
    "started; programs send the token in the file start-token of the data folder as a Bearer token."
)

log = structlog.get_logger()


@dataclass(frozen=True)
class Caller:
    """The sender of a request, and what they may do; `principal`: their account, if any."""

    actor: str
    grants: frozenset[Action] = EVERYTHING
    session: LoginSession | None = None
    principal: Principal | None = None

    def require(self, action: Action) -> None:
        """Raise Forbidden, with who may, if neither role nor scope permit this."""
        if action in self.grants:
            return
        in_browser = self.principal if self.actor.startswith("user:") else None
        words = words_of(action, in_browser.role if in_browser else None)
        raise Forbidden(words if in_browser else f"This login may not do that. {words}")


def caller_of(request: Request) -> Caller | None:
    """The sender of this request; None on routes that are open to everybody."""
    found: Caller | None = request.scope.get(CALLER)
    return found


def login_of(request: Request) -> Login:
    """The secrets and sessions of the app that answers this request."""
    login: Login = request.app.state.login
    return login


class Gate:
    """ASGI middleware that answers what a caller may not ask for."""

    def __init__(self, app: ASGIApp, *, rules: Sequence[Rule]) -> None:
        self.app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})
        elif (rule := rule_of(self._rules, scope)) is not None and rule.action is Action.OPEN:
            await self.app(scope, receive, send)
        else:
            await self._answer(rule, scope, receive, send)

    async def _answer(self, rule: Rule | None, scope: Scope, receive: Receive, send: Send) -> None:
        request, action = Request(scope), rule.action if rule else Action.LOOK
        try:
            caller = await identify(request)
        except Unauthorized as error:
            return await ask(request, error)(scope, receive, send)
        scope[CALLER] = caller
        scope[CAN_LOG_OUT] = caller.session is not None
        person, state = caller.principal, app_state(request)
        with acting_as(caller.actor, person):
            try:
                caller.require(action)
                if rule and person and action in CHANGES and person.is_limited:
                    path = str(scope["path"])
                    await run_in_threadpool(require_right, state, person, rule, path)
            except Forbidden as error:  # answered here, where the page can name the person
                return await answer(request, error)(scope, receive, send)
            if person is None:
                return await self.app(scope, receive, send)
            with naming_owners(state.database):
                return await self.app(scope, receive, send)


async def identify(request: Request) -> Caller:
    """The caller. Raises Unauthorized, TooManyTries, or the error of a database that is away."""
    login = login_of(request)
    if not login.is_needed:
        return Caller("loopback")
    if login.accounts:
        return await run_in_threadpool(identify_person, request)
    # first, because browsers go on sending a password that was changed
    if session := await _session_of(request):
        return Caller(f"session:{session.key}", session=session)
    credentials = read_credentials(request.headers)
    if credentials is None:
        raise Unauthorized(ASK_PROGRAM if login.has_password else ASK_START_TOKEN)
    way, given = credentials
    login.check_secret(given, address=address_of(request), way=way)
    return Caller(way)


def identify_person(request: Request) -> Caller:
    """The caller with accounts: by a session's cookie or an access token; nothing is cached."""
    state = app_state(request)
    makes = Visibility(state.settings.new_things)
    address = site_of(address_of(request))
    name = name_by_proxy(request)
    if name:
        with state.database.read(once=True) as session:
            known = people.find_user(session, name)
        if known is None or known.disabled_at:
            raise Forbidden(f"The proxy says that you are “{name[:60]}”, who has no account here.")
        if known.seen_at is None or utcnow() - aware(known.seen_at) > sessions.NOTE_EVERY:
            login_of(request).note_use(state.database, known.key, by=people.seen)
        principal = people.principal_of(known, makes=makes, address=address)
        return Caller(f"user:{known.key}", grants(principal.role, None), principal=principal)
    token = token_of(request)
    if token is not None:
        with state.database.read(once=True) as session:
            person = sessions.find_person(session, sessions.token_hash(token))
        if person is not None:
            row, user = person
            if sessions.should_note_use(row):
                login_of(request).note_use(state.database, row.key, user.key)
            principal = people.principal_of(user, makes=makes, address=address)
            granted = grants(principal.role, None)
            return Caller(f"user:{user.key}", granted, session=row, principal=principal)
    credentials = read_credentials(request.headers)
    if credentials is None:
        raise Unauthorized(ASK_TOKEN)
    given = credentials[1].decode("latin-1")
    with state.database.read(once=True) as session:
        found = tokens.find_token(session, given)
    if found is None:
        raise Unauthorized("The access token is wrong, or it has expired.")
    token_row, user = found
    if tokens.should_note_use(token_row):
        login_of(request).note_use(state.database, token_row.key, user.key, by=tokens.note_use)
    principal = people.principal_of(user, makes=makes, address=address)
    granted = grants(principal.role, TokenScope(token_row.scope))
    return Caller(f"token:{token_row.key}", granted, principal=principal)


def name_by_proxy(request: Request) -> str:
    """The name that a proxy says the sender has; empty if none that is believed says one.

    The address of the connection counts, not one that was forwarded. Raises Forbidden.
    """
    settings = app_state(request).settings
    given = request.headers.getlist(settings.identity_header) if settings.identity_header else []
    if not given:
        return ""
    peer = request.scope.get(PEER, "")
    if not _is_within(peer, settings.identity_proxy_networks):
        if not login_of(request).named_stranger:
            login_of(request).named_stranger = True
            log.warning("identity header ignored", address=peer, header=settings.identity_header)
        return ""
    if len(given) > 1:
        raise Forbidden(f"The request has the header {settings.identity_header} more than once.")
    return given[0].encode("latin-1").decode("utf-8", "replace").strip()


def _is_within(address: str, networks: list[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:  # of a socket in a folder, or a test
        return False
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(plain in network for network in networks)


async def _session_of(request: Request) -> LoginSession | None:
    token, login = token_of(request), login_of(request)
    if token is None:
        return None
    cached = login.cached_session(token)
    if cached is not None:
        return cached.session
    return await run_in_threadpool(login.look_up, app_state(request).database, token)


def ask(request: Request, error: Unauthorized) -> Response:
    """Pages lead to the login page; programs are asked for the password."""
    headers = request.headers
    if wants_fragment(request):
        response = error_page(request, Unauthorized(ASK_PERSON))
        if request.method == "GET":
            response.headers["hx-redirect"] = login_address(current_page(headers))
        return response
    if "text/html" in headers.get("accept", ""):
        if request.method == "GET":
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(login_address(request.url.path + query), status_code=303)
        return error_page(request, Unauthorized(ASK_PERSON))
    response = problem_response(error)
    if not is_browser(headers):  # there it would open a window that knows no sessions
        response.headers["www-authenticate"] = 'Basic realm="Brushwork", charset="UTF-8"'
    return response


def login_address(wanted: str) -> str:
    """The address of the login page that leads on to this path."""
    if wanted == "/" or len(wanted) > MAX_NEXT_CHARACTERS:
        return LOGIN_PATH
    return f"{LOGIN_PATH}?next={quote(wanted, safe='/')}"


def current_page(headers: Headers) -> str:
    """The path of the page that a fragment is for."""
    try:
        parts = urlsplit(headers.get("hx-current-url", ""))
    except ValueError:  # such as half an IPv6 address
        return "/"
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def is_browser(headers: Headers) -> bool:
    """True if a person's browser sent this, maybe by a script of a page."""
    return "sec-fetch-mode" in headers or headers.get("user-agent", "").startswith("Mozilla/")


class TrustedProxies:
    """Takes client and scheme from X-Forwarded-For and X-Forwarded-Proto of trusted proxies.

    A proxy that is not trusted is named once in the log: all who come through it have its address,
    so one who guesses passwords slows down all of them.
    """

    def __init__(self, app: ASGIApp, *, trusted: list[str]) -> None:
        self._believing = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]
        self._named = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("client"):
            scope[PEER] = scope["client"][0]  # which the next line may replace
        if not self._named and scope["type"] == "http":
            self._name_untrusted(scope)
        await self._believing(scope, receive, send)  # type: ignore[arg-type]

    def _name_untrusted(self, scope: Scope) -> None:
        client = scope.get("client")
        if client is None or client[0] in self._believing.trusted_hosts:
            return
        if "x-forwarded-for" in Headers(scope=scope):
            self._named = True
            log.warning(
                "proxy not trusted",
                address=client[0],
                remedy="If this is your proxy, add it to BRUSHWORK_TRUSTED_PROXIES.",
            )
