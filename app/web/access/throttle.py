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

import structlog

from app.registry.access.delays import FORGET_SECONDS, TooManyTries, delay_after, site_of

MOST_ADDRESSES = 10_000
MOST_KNOWN = 1_000
BURST = 60  # wrong passwords from all addresses together, refilled at this rate:
SECONDS_PER_TRY = 6.0
LOG_EVERY_SECONDS = 60.0

log = structlog.get_logger()


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
