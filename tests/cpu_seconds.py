"""CPU seconds of tests: `make test` records them, `make costs` prints them beside a budget.

`pytest -p tests.cpu_seconds` writes a file per process into `.pytest_cache`, until the next run.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.costs import BUDGET, TESTS, folder_of_budget

COLLECTION = "collection"
RECORD = TESTS.parent / ".pytest_cache" / "d" / "costs"


def cpu_seconds() -> float:
    """CPU seconds of this process and of the children it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class Recorder:
    """A plugin that writes the CPU seconds of each test of one process, and of collecting them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_collection_finish(self) -> None:
        self._seconds[COLLECTION] = cpu_seconds()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        start = cpu_seconds()
        try:
            return (yield)
        finally:  # the fixtures of a file count for its first and its last test
            self._seconds[item.nodeid] += cpu_seconds() - start

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._seconds), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Record the tests of this process; the one that starts others removes the last record."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    RECORD.mkdir(parents=True, exist_ok=True)
    if worker is None:
        for file in RECORD.glob("*.json"):
            file.unlink()
    if worker or config.getoption("dist", "no") == "no":
        config.pluginmanager.register(Recorder(RECORD / f"{worker or 'main'}.json"))


def read_record() -> Counter[str]:
    """CPU seconds by test, and those of `COLLECTION`, in all processes of the last run."""
    seconds: Counter[str] = Counter()
    for file in RECORD.glob("*.json"):
        seconds.update(json.loads(file.read_text(encoding="utf-8")))
    return seconds


def by_folder(seconds: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Tests and CPU seconds of each folder of the budget."""
    found: dict[str, tuple[int, float]] = {}
    for test, spent in seconds.items():
        folder = COLLECTION if test == COLLECTION else folder_of_budget(test)
        count, total = found.get(folder, (0, 0.0))
        found[folder] = (count + (test != COLLECTION), total + spent)
    return found


def main() -> int:
    """Print the last run; 1 if a folder costs more than its budget."""
    rows = by_folder(read_record())
    if not rows:
        print("No run is recorded. Run `make test` first.")
        return 1
    print(f"{'folder':<20}{'tests':>7}{'CPU s':>9}{'budget':>9}")
    for folder, (count, spent) in sorted(rows.items(), key=lambda row: -row[1][1]):
        over = "  over the budget" if spent > BUDGET[folder] else ""
        print(f"{folder:<20}{count:>7}{spent:>9.1f}{BUDGET[folder]:>9}{over}")
    count, spent = (sum(column) for column in zip(*rows.values(), strict=True))
    print(f"{'in all':<20}{count:>7}{spent:>9.1f}{sum(BUDGET.values()):>9}")
    return int(any(spent > BUDGET[folder] for folder, (_, spent) in rows.items()))


if __name__ == "__main__":
    sys.exit(main())
