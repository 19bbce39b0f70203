"""The time that a job has worked, as seen from another process."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOOK = 1.0  # seconds between two looks that count
CALL_SECONDS = 3_600.0  # for a file of gigabytes on a slow line


class JobClock:
    """Counts the seconds that a job works on its own, and those of one call to what it waits for.

    Whoever looks late did not see the job either: the machine slept, or everything was stopped. So
    what lies between two looks counts as `LONGEST_LOOK` seconds at most.
    """

    def __init__(
        self,
        limit: float,
        *,
        call_limit: float = CALL_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._call_limit = call_limit
        self._now = now
        self._looked = now()
        self._worked = 0.0
        self._called = 0.0
        self._is_calling = False

    def is_over(self) -> bool:
        """True once the job has worked for longer than its limit, or one call has."""
        self._look()
        return self._worked > self.limit or self._called > self._call_limit

    def restart(self) -> None:
        """A part of the job is done: the next one has the whole limit."""
        self._look()
        self._worked = 0.0

    def begin_call(self) -> None:
        """The job calls the storage or the database from now on: no work of its own."""
        self._look()
        self._is_calling, self._called = True, 0.0

    def end_call(self) -> None:
        """The job works on its own again."""
        self._look()
        self._is_calling, self._called = False, 0.0

    def _look(self) -> None:
        now = self._now()
        passed = min(now - self._looked, LONGEST_LOOK)
        self._looked = now
        if self._is_calling:
            self._called += passed
        else:
            self._worked += passed
