"""The counts of a soak: requests and their times, errors by kind, jobs, kills and recoveries."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

OUTAGE_STATUSES = (503, 507)  # what the server may answer while something is away


@dataclass
class Figures:
    """Counts of one soak; methods may be called from any thread."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    jobs: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, action: str, seconds: float, status: int) -> None:
        """Count a request that was answered; an answer that is a defect breaks a promise."""
        with self._lock:
            self.requests[action] += 1
            self.seconds[action].append(seconds)
            if status in OUTAGE_STATUSES:
                self.errors[f"HTTP {status}"] += 1
            elif status >= 500:
                self.errors[f"HTTP {status}"] += 1
                self.broken.append(f"{action} was answered with {status}")

    def unanswered(self, action: str, error: Exception) -> None:
        """Count a request whose connection broke, as it does when the web server is killed."""
        with self._lock:
            self.requests[action] += 1
            self.errors[type(error).__name__] += 1

    def break_promise(self, sentence: str) -> None:
        """Note something that must not happen."""
        with self._lock:
            self.broken.append(sentence)

    def recovered(self, name: str, seconds: float) -> None:
        """Count a kill and the time until its successor was at work."""
        with self._lock:
            self.kills[name] += 1
            self.recoveries[name].append(seconds)

    def as_json(self) -> dict[str, Any]:
        """Everything, with percentiles in place of the single times."""
        return {
            "requests": dict(self.requests),
            "errors": dict(self.errors),
            "request_seconds": {name: spread(found) for name, found in self.seconds.items()},
            "kills": dict(self.kills),
            "recovery_seconds": {name: spread(found) for name, found in self.recoveries.items()},
            "jobs": self.jobs,
            "broken_promises": self.broken,
        }

    def tables(self) -> Iterable[str]:
        """Lines for people."""
        total, wrong = sum(self.requests.values()), sum(self.errors.values())
        yield f"Requests: {total:,}, of which {wrong:,} were not answered as usual"
        for name in sorted(self.requests):
            yield f"  {name:<12}{self.requests[name]:>7,}  {times(self.seconds[name])}"
        for kind, count in self.errors.most_common():
            yield f"  {kind:<28}{count:>7,}"
        yield f"Jobs: {', '.join(f'{count} {name}' for name, count in self.jobs.items())}"
        yield f"Kills: {sum(self.kills.values())}; until the next process was at work:"
        for name in sorted(self.recoveries):
            yield f"  {name:<16}{self.kills[name]:>4}  {times(self.recoveries[name])}"


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum; empty without values."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    at = {"median": 0.5, "p95": 0.95, "max": 1.0}
    last = len(ordered) - 1
    return {name: round(ordered[round(share * last)], 3) for name, share in at.items()}


def times(seconds: Sequence[float]) -> str:
    """Median, 95th percentile and maximum as text."""
    return "  ".join(f"{name} {value:.2f} s" for name, value in spread(seconds).items())
