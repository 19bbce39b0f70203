"""Passwords of people: what is accepted, and their hashes (Argon2id).

Few are hashed at once, as each takes 64 MiB; nobody holds a session of the database meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from app.registry.errors import AppError, invalid_field

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_CHARACTERS = 12
MAX_CHARACTERS = 128
MIN_SCORE = 3  # of zxcvbn: 10^8 guesses or more
RATED_CHARACTERS = 40  # the first ones; of 100 characters some take seconds
MOST_AT_ONCE = 2
WAIT_SECONDS = 2.0
COST: dict[str, int] = {}  # arguments of PasswordHasher, whose defaults are those of RFC 9106

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


class Busy(AppError, status=429, title="Too many logins at once", code="busy"):
    """Too many passwords are looked at now."""

    retry_after = 2


@contextmanager
def _place() -> Iterator[None]:
    if not _places.acquire(timeout=WAIT_SECONDS):
        raise Busy("Too many people log in at this moment. Try again in a few seconds.")
    try:
        yield
    finally:
        _places.release()


def hasher() -> PasswordHasher:
    """What hashes passwords; imported late, as servers without accounts do without."""
    from argon2 import PasswordHasher

    return PasswordHasher(**COST)


@lru_cache(maxsize=1)
def _hash_of_nobody() -> str:
    return _hash("the password of nobody")


def hash_new(password: str, name: str) -> str:
    """The hash of a password that the person with this name chose.

    Raises InvalidInput for the field `password` if it is too weak, and Busy.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise invalid_field(
            "password",
            f"Choose a password of {MIN_CHARACTERS} to {MAX_CHARACTERS} characters; this one has "
            f"{len(password):,}.",
        )
    with _place():
        if _score(password, name) < MIN_SCORE:
            raise invalid_field(
                "password",
                "This password is easy to guess. Choose several words that do not belong together, "
                "or let a password manager make one.",
            )
        return _hash(password)


def is_right(stored: str | None, password: str) -> bool:
    """True if the stored hash is of this password; without one it takes as long. Raises Busy."""
    from argon2.exceptions import InvalidHashError, VerificationError

    with _place():
        try:
            return hasher().verify(stored or _hash_of_nobody(), _encoded(password)) and bool(stored)
        except (VerificationError, InvalidHashError):
            return False


def renewed(stored: str, password: str) -> str | None:
    """The hash of a right password by the present cost; None if the stored one has it already."""
    if not hasher().check_needs_rehash(stored):
        return None
    with _place():
        return _hash(password)


def _hash(password: str) -> str:
    hashed: str = hasher().hash(_encoded(password))
    return hashed


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _score(password: str, name: str) -> int:
    """From 0 (guessed at once) to 4."""
    from zxcvbn import zxcvbn

    rated = password[:RATED_CHARACTERS]
    score: int = zxcvbn(rated, user_inputs=["brushwork", *name.split(), name])["score"]
    return score
