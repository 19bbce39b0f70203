"""Slows down who guesses passwords: by address and in all, in bounded memory, holding no thread.

Wrong passwords count, right ones reset nothing: otherwise somebody who shares an address with a
program that logs in all the time could guess without limit. An address that has given the right
password before is not stopped by the limit for all, only by its own delay.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import structlog

from app.registry.errors import AppError
from app.registry.wording import plural

FREE_TRIES = 5
MAX_DELAY_SECONDS = 60.0
FORGET_SECONDS = 600.0  # after this long, one wrong password of an address is forgotten
MOST_ADDRESSES = 10_000
MOST_KNOWN = 1_000
BURST = 60  # wrong passwords from all addresses together, refilled at this rate:
SECONDS_PER_TRY = 6.0
LOG_EVERY_SECONDS = 60.0
IPV6_SITE_BITS = 64  # one customer usually has all of these addresses

log = structlog.get_logger()


class TooManyTries(AppError):
    """Too many wrong passwords; the message says when to try again."""

    status = 429
    title = "Too many wrong passwords"
    code = "too_many_tries"

    def __init__(self, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(
            "There were too many wrong passwords. Try again in "
            f"{plural(self.retry_after, 'second')}."
        )


@dataclass
class Tries:
    """The wrong passwords of one address; `count` shrinks with time."""

    count: float = 0.0
    last: float = 0.0
    allowed_at: float = 0.0
    is_logged: bool = False  # its present delay has a line in the log


class Throttle:
    """Counts wrong passwords; thread-safe. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[str, Tries] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._left = float(BURST)
        self._refilled_at = clock()
        self._logged_at = -math.inf

    def require_allowed(self, address: str) -> None:
        """Raise TooManyTries if a password from this address is not looked at now."""
        site = site_of(address)
        with self._lock:
            now = self._clock()
            tries = self._tries.get(site)
            if tries is not None and tries.allowed_at > now:
                wait = tries.allowed_at - now
                if not tries.is_logged:
                    tries.is_logged = True
                    log.warning("passwords throttled", address=site, seconds=math.ceil(wait))
                raise TooManyTries(wait)
            self._refill(now)
            if self._left < 1 and site not in self._known:
                if now - self._logged_at >= LOG_EVERY_SECONDS:
                    self._logged_at = now
                    log.warning("passwords throttled for all unknown addresses")
                raise TooManyTries((1 - self._left) * SECONDS_PER_TRY)

    def add_wrong(self, address: str) -> float:
        """Count a wrong password; return the seconds until the next is looked at."""
        site = site_of(address)
        with self._lock:
            now = self._clock()
            self._refill(now)
            self._left = max(0.0, self._left - 1)
            tries = self._tries.pop(site, None) or Tries(last=now)
            tries.count = max(0.0, tries.count - (now - tries.last) / FORGET_SECONDS) + 1
            delay = delay_after(round(tries.count))
            tries.last, tries.allowed_at, tries.is_logged = now, now + delay, False
            self._tries[site] = tries
            while len(self._tries) > MOST_ADDRESSES:
                self._tries.popitem(last=False)
            return delay

    def add_right(self, address: str) -> None:
        """Remember that somebody at this address knows the password."""
        site = site_of(address)
        with self._lock:
            self._known[site] = None
            self._known.move_to_end(site)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def _refill(self, now: float) -> None:
        earned = (now - self._refilled_at) / SECONDS_PER_TRY
        self._left = min(float(BURST), self._left + earned)
        self._refilled_at = now


def delay_after(wrong: int) -> float:
    """Seconds after this many wrong passwords: none at first, then each time twice as many."""
    if wrong <= FREE_TRIES:
        return 0.0
    doublings = min(wrong - FREE_TRIES, math.ceil(math.log2(MAX_DELAY_SECONDS)))
    return min(2.0**doublings, MAX_DELAY_SECONDS)


def site_of(address: str) -> str:
    """The address that is counted: an IPv6 site as one, IPv4 in IPv6 as IPv4."""
    try:
        found = ip_address(address)
    except ValueError:
        return "".join(char if char.isprintable() else "?" for char in address[:64]) or "unknown"
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((found.packed, IPV6_SITE_BITS), strict=False))
