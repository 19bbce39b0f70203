"""Times until faults were over, measured by the tests and printed at the end of the run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.registry.paths import ROOT

PROPERTY = "recovery"
SUMMARY = ROOT / "build" / "faults" / "recovery.json"


@dataclass(frozen=True)
class Recovery:
    """The measurements: seconds from the end of the fault (or from a kill) until it was over."""

    test: str
    what: str
    seconds: float


class Stopwatch:
    """Measures recoveries for one test."""

    def __init__(self, test: str, record: Callable[[str, object], None]) -> None:
        self._test = test
        self._record = record
        self._began = time.monotonic()

    def start(self) -> None:
        """Count from now."""
        self._began = time.monotonic()

    def stop(self, what: str) -> None:
        """Record the seconds since `start` under these words."""
        seconds = round(time.monotonic() - self._began, 2)
        self._record(PROPERTY, asdict(Recovery(self._test, what, seconds)))


def recoveries(properties: Iterable[tuple[str, Any]]) -> list[Recovery]:
    """The recoveries among the properties of a test report."""
    return [Recovery(**value) for name, value in properties if name == PROPERTY]


def write_summary(found: Iterable[Recovery], file: Path = SUMMARY) -> None:
    """Write the recoveries as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
