"""Salted hashes of the password, so that sessions end when it changes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading

START = "start"  # the mark of sessions that were opened with the start token
PERSON = "person"  # of sessions that a person with an account opened
SALT_BYTES = 16
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}  # 16 MiB and about 50 ms
MOST_KNOWN = 100


class SecretMarks:
    """Makes the mark of the current password and recognizes it in rows; thread-safe.

    Each mark has a salt of its own and is computed once per process.
    """

    def __init__(self, password: str | None) -> None:
        self._password = None if password is None else password.encode()
        self._lock = threading.Lock()
        self._known: dict[str, bool] = {}
        self._own: str | None = None

    def own(self) -> str:
        """The mark for a session that is opened now."""
        assert self._password is not None, "there is no password"
        with self._lock:
            if self._own is None:
                self._own = _mark(self._password, secrets.token_hex(SALT_BYTES))
                self._known[self._own] = True
            return self._own

    def fits(self, mark: str) -> bool:
        """True if this mark is of the current password."""
        if self._password is None:
            return False
        with self._lock:
            if mark not in self._known:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                salt = mark.partition("$")[0]
                self._known[mark] = hmac.compare_digest(_mark(self._password, salt), mark)
            if self._known[mark] and self._own is None:
                self._own = mark
            return self._known[mark]


def _mark(password: bytes, salt: str) -> str:
    return f"{salt}${hashlib.scrypt(password, salt=salt.encode(), **SCRYPT).hex()}"
