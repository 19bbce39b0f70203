"""The table of faults has every fault, each with tests that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, rows, section, text
from tests.faults import table as recovery_table
from tests.faults.recovery import Recovery
from tests.faults.table import MissingMeasurement

FAULTS = 43
NOT_APPLICABLE = {"35", "36", "37"}
TEST = re.compile(r"`(test_\w+)`")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def defined() -> set[str]:
    """The names of all tests."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in DEFINED.findall(file.read_text())}


def table() -> list[tuple[str, ...]]:
    return rows(section(DOCS / "faults.md", "All faults"))


def test_every_fault_has_its_number_and_what_happens() -> None:
    numbers = [row[0] for row in table() if row[0]]
    assert numbers == [str(number) for number in range(1, FAULTS + 1)]
    assert all(len(row) == 4 and row[1] and row[2] for row in table())


def test_every_fault_is_staged_by_tests_that_exist() -> None:
    known = defined()
    for number, fault, _, tests in table():
        names = TEST.findall(tests)
        assert bool(names) == (number not in NOT_APPLICABLE), fault
        assert set(names) - known == set(), fault


def test_the_table_of_times_has_the_rows_and_the_form_that_its_command_writes() -> None:
    (written,) = recovery_table.TABLE.findall(text(DOCS / "faults.md"))
    template = recovery_table.TEMPLATE.read_text(encoding="utf-8")
    assert recovery_table.pattern(template).fullmatch(written)


def test_every_time_that_is_measured_has_a_place_in_the_table() -> None:
    """Those with a name in braces are filled in by `make faults` itself."""
    template = recovery_table.TEMPLATE.read_text(encoding="utf-8")
    calls = re.compile(r'stopwatch\.stop\(\s*"([^"]+)"\s*\)')
    files = (ROOT / "tests" / "faults").glob("test_*.py")
    whats = [what for file in files for what in calls.findall(file.read_text())]
    assert len(whats) > 15
    assert recovery_table.unused(template, [Recovery("", what, 1.0) for what in whats]) == []


def test_the_table_is_filled_with_what_was_measured() -> None:
    found = [
        Recovery("test_a[refuses]", "image there", 0.24),
        Recovery("test_a[hangs]", "image there", 3.06),
        Recovery("test_b", "page there", 0.01),
    ]
    template = "{image there} | {image there [hangs]}; {page there} | {image there || page there}"
    filled = recovery_table.fill(template, found)
    assert filled == "0.2 to 3.1 s | 3.1 s; at once | 0.0 to 3.1 s"
    assert recovery_table.pattern(template).fullmatch(filled)
    with pytest.raises(MissingMeasurement, match="“dog there” was not measured"):
        recovery_table.fill("{dog there}", found)
    assert recovery_table.unused("{image there}", found) == ["page there"]


def test_the_command_writes_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = recovery_table.TEMPLATE.read_text(encoding="utf-8")
    found = [
        {"test": "test_x[refuses][hangs]", "what": what, "seconds": 7.77}
        for place in recovery_table.PLACE.findall(template)
        for what in (words.partition(" [")[0] for words in place.split(" || "))
    ]
    summary, document = tmp_path / "recovery.json", tmp_path / "faults.md"
    summary.write_text(json.dumps(found))
    document.write_text(text(DOCS / "faults.md"))
    monkeypatch.setattr(recovery_table, "SUMMARY", summary)
    monkeypatch.setattr(recovery_table, "DOCUMENT", document)
    recovery_table.main()
    filled = recovery_table.fill(template, [Recovery(**one) for one in found])
    before, after = text(DOCS / "faults.md"), document.read_text()
    assert filled in after
    assert recovery_table.TABLE.sub("", after) == recovery_table.TABLE.sub("", before)
    summary.write_text("[]")
    with pytest.raises(SystemExit, match="Run all of `make faults` first"):
        recovery_table.main()
