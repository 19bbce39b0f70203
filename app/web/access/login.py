"""The secrets that let a caller in, and the sessions and cookies made from them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.registry.access import service
from app.registry.access.delays import site_of
from app.registry.access.secret_marks import PERSON, START, SecretMarks
from app.registry.db import Database, Session
from app.registry.errors import AppError
from app.registry.outages import OUTAGES
from app.registry.people import service as people
from app.registry.tables.people import LoginSession
from app.web.access.throttle import Throttle

CACHE_SECONDS = 5.0
MOST_CACHED = 2_000
PAUSE_SECONDS = 60.0  # after the use of a session could not be written down
COOKIE = "brushwork-session"
KNOWN = "brushwork-known-"
KNOWN_SECONDS = 31_536_000  # a year
MAX_TOKEN_CHARACTERS = 200

log = structlog.get_logger()


class Unauthorized(AppError, status=401, title="Password needed", code="unauthorized"):
    """The password is missing or wrong."""


@dataclass(frozen=True)
class CachedSession:
    """The session of a token, None if there is none, until its time in the cache is over."""

    session: LoginSession | None
    until: float


class Login:
    """Checks passwords, start token and sessions of one server; thread-safe."""

    def __init__(
        self,
        *,
        password: str | None,
        start_token: str | None = None,
        accounts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.has_password = password is not None
        self.has_start_token = start_token is not None
        self.accounts = accounts
        self.marks = SecretMarks(password)
        self.throttle = Throttle(clock)
        self._secrets = [
            (name, _digest(secret.encode()))
            for name, secret in (("password", password), (START, start_token))
            if secret is not None
        ]
        self.named_stranger = False  # the log has who sent a header of identity
        self._clock = clock
        self._checking = threading.Lock()
        self._lock = threading.Lock()
        self._notes_at = 0.0
        self._cache: OrderedDict[str, CachedSession] = OrderedDict()

    @property
    def is_needed(self) -> bool:
        """False where everybody who reaches the server may use it."""
        return self.accounts or bool(self._secrets)

    def check_secret(self, given: bytes, *, address: str, way: str) -> str:
        """The name of the secret that this is. Raises Unauthorized, TooManyTries."""
        digest = _digest(given)
        with self._checking:  # so that many requests at once get no more tries than one by one
            self.throttle.require_allowed(address)
            # every secret is compared, in constant time
            found = [name for name, known in self._secrets if hmac.compare_digest(digest, known)]
            if found:
                self.throttle.add_right(address)
                return found[0]
            delay = self.throttle.add_wrong(address)
        log.warning("password refused", address=site_of(address), way=way, delay_s=delay)
        raise Unauthorized("The password is wrong.")

    def is_start_token(self, given: bytes) -> bool:
        """True if this is the start token, which is too long to be guessed: tries are not counted.

        Any page can make a browser open a login address, so counting them would lock its user out.
        """
        digest = _digest(given)
        return any(
            name == START and hmac.compare_digest(digest, known) for name, known in self._secrets
        )

    def open_session(self, database: Database, secret: str, *, address: str, browser: str) -> str:
        """A new session for who gave this secret; returns its token."""
        mark = START if secret == START else self.marks.own()
        with database.write() as session:
            token, _ = service.open_session(
                session, secret_mark=mark, address=site_of(address), browser=browser
            )
        return token

    def cached_session(self, token: str) -> CachedSession | None:
        """The session of this token if it was looked up a moment ago."""
        with self._lock:
            cached = self._cache.get(service.token_hash(token))
        return cached if cached is not None and cached.until > self._clock() else None

    def look_up(self, database: Database, token: str) -> LoginSession | None:
        """The session of this token from the database; blocks."""
        sha256 = service.token_hash(token)
        with database.read() as session:
            found = service.find_session(session, sha256)
        if found is not None and not self._fits(found.secret_mark):
            found = None
        if found is not None and service.should_note_use(found):
            self.note_use(database, found.key)
        with self._lock:
            self._cache.pop(sha256, None)
            self._cache[sha256] = CachedSession(found, self._clock() + CACHE_SECONDS)
            while len(self._cache) > MOST_CACHED:
                self._cache.popitem(last=False)
        return found

    def note_use(
        self,
        database: Database,
        row_id: int,
        user_id: int | None = None,
        *,
        by: Callable[[Session, int], None] = service.note_use,
    ) -> None:
        """Write down that a session or token is used, and by whom.

        A database that cannot be written is ignored.
        """
        if self._clock() < self._notes_at:
            return
        try:
            with database.write() as session:
                by(session, row_id)
                if user_id is not None:
                    people.seen(session, user_id)
        except OUTAGES:
            self._notes_at = self._clock() + PAUSE_SECONDS  # each try would wait for the lock

    def _fits(self, mark: str) -> bool:
        if self.accounts or mark == PERSON:
            return self.accounts and mark == PERSON
        return self.has_start_token if mark == START else self.marks.fits(mark)

    def forget(self) -> None:
        """Look up every session again, because some have ended."""
        with self._lock:
            self._cache.clear()

    def end_sessions_of_other_secrets(self, database: Database) -> None:
        """Delete the sessions that were opened with another password."""
        with database.write() as session:
            ended = service.end_sessions_of_other_secrets(session, self._fits)
        if ended:
            log.info("sessions of another password ended", count=ended)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def read_credentials(headers: Headers) -> tuple[str, bytes] | None:
    """(basic or bearer, the secret) of a program; None if it sends none that can be read."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    # as ASGI decoded it; `str.strip` would take letters whose bytes are spaces in latin-1
    given = credentials.encode("latin-1").strip(b" \t")
    match scheme.lower():
        case "basic":
            try:
                return "basic", base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return "basic", b""
        case "bearer":
            return "bearer", given
        case _:
            return None


def address_of(connection: HTTPConnection) -> str:
    """The address that a request came from, as far as trusted proxies tell."""
    return connection.client.host if connection.client else "unknown"


def cookie_name(connection: HTTPConnection) -> str:
    """The session's cookie: browsers share cookies between the ports of a host.

    With https it can be set neither by a page of http nor for other hosts.
    """
    port = connection.url.port
    name = f"{COOKIE}-{port}" if port else COOKIE
    return f"__Host-{name}" if connection.url.scheme == "https" else name


def token_of(connection: HTTPConnection) -> str | None:
    """The token of the session's cookie, if there is one that could be valid."""
    token = connection.cookies.get(cookie_name(connection))
    return token if token and len(token) <= MAX_TOKEN_CHARACTERS else None


def set_cookie(response: Response, connection: HTTPConnection, token: str) -> None:
    """Hand the token to the browser."""
    seconds = int(service.ABSOLUTE_END.total_seconds())
    _set(response, connection, cookie_name(connection), token, seconds)


def _set(
    response: Response, connection: HTTPConnection, name: str, value: str, seconds: int
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=connection.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def known_by(connection: HTTPConnection) -> dict[int, str]:
    """What tells that this browser has logged in as people, by their ids."""
    found = {}
    for name, value in connection.cookies.items():
        user_id = name.rpartition(KNOWN)[2].partition("-")[0]
        if user_id.isdecimal() and name == known_name(connection, int(user_id)):
            found[int(user_id)] = value[:MAX_TOKEN_CHARACTERS]
    return found


def known_name(connection: HTTPConnection, user_id: int) -> str:
    """The cookie of a browser that has logged in as this person."""
    return cookie_name(connection).replace(COOKIE, f"{KNOWN}{user_id}", 1)


def set_known(response: Response, connection: HTTPConnection, user_id: int, value: str) -> None:
    """Let the browser be known as this person's, also after they log out."""
    _set(response, connection, known_name(connection, user_id), value, KNOWN_SECONDS)


def delete_cookie(response: Response, connection: HTTPConnection) -> None:
    """Take the token from the browser."""
    response.delete_cookie(
        cookie_name(connection),
        path="/",
        secure=connection.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
