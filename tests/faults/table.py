"""Writes the times of the last whole `make faults` into docs/faults.md: `make faults-table`.

`recovery_table.md` has the table with the words of the measurements in braces, in place of the
figures. `{a || b}` is the range of several, and `{a [refuses]}` those of tests with that parameter.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.registry.paths import ROOT
from tests.faults.recovery import SUMMARY, Recovery

DOCUMENT = ROOT / "docs" / "faults.md"
TEMPLATE = Path(__file__).with_name("recovery_table.md")
TABLE = re.compile(r"(?<=\n)\| Fault \| Until \|.*?\n(?=\n)", re.DOTALL)
PLACE = re.compile(r"\{([^{}]+)\}")
PARAMETER = re.compile(r" (\[[^\]]+\])$")
FIGURE = r"(?:not measured|at once|[\d.]+ s|[\d.]+ to [\d.]+ s)"  # not: new since the last run
AT_ONCE = 0.05  # seconds
NOT_SHOWN = re.compile(
    "(trainer|worker-train|fork-libraries|fork-registry) killed: another one runs"
    "|fork-(libraries|registry) killed: the run is claimed again"
    "|(broker|worker-io|worker-render) killed: an image ordered after the restart is there"
    "|Redis back: ready again"
)


class MissingMeasurement(Exception):
    """The table needs a measurement that was not made; the message names it."""


def fill(template: str, found: Sequence[Recovery]) -> str:
    """The table with these measurements. Raises MissingMeasurement."""
    return PLACE.sub(lambda place: figure(place[1], found), template)


def figure(place: str, found: Sequence[Recovery]) -> str:
    """The measurements of a place in words, such as `1.1 to 1.2 s`."""
    seconds = [one.seconds for words in place.split(" || ") for one in _measured(words, found)]
    least, most = (f"{one:.1f}" for one in (min(seconds), max(seconds)))
    if max(seconds) < AT_ONCE:
        return "at once"
    return f"{most} s" if least == most else f"{least} to {most} s"


def _measured(words: str, found: Sequence[Recovery]) -> list[Recovery]:
    parameter = PARAMETER.search(words)
    test = parameter[1] if parameter else ""
    what = PARAMETER.sub("", words)
    measured = [one for one in found if one.what == what and test in one.test]
    if not measured:
        raise MissingMeasurement(f"“{words}” was not measured. Run all of `make faults` first.")
    return measured


def unused(template: str, found: Sequence[Recovery]) -> list[str]:
    """The words of measurements for which the table has no place."""
    places = {PARAMETER.sub("", words) for place in _places(template) for words in place}
    left = {one.what for one in found} - places
    return sorted(what for what in left if not NOT_SHOWN.fullmatch(what))


def _places(template: str) -> Iterator[list[str]]:
    for place in PLACE.finditer(template):
        yield place[1].split(" || ")


def pattern(template: str) -> re.Pattern[str]:
    """The form of the document's table, whatever was measured."""
    literals = PLACE.split(template)[::2]
    return re.compile(FIGURE.join(re.escape(literal) for literal in literals))


def main() -> None:
    """Rewrite the table of the document; exits with a sentence if it cannot be filled."""
    template = TEMPLATE.read_text(encoding="utf-8")
    try:
        found = [Recovery(**one) for one in json.loads(SUMMARY.read_text())]
        table = fill(template, found)
    except FileNotFoundError:
        sys.exit(f"There is no {SUMMARY.relative_to(ROOT)}. Run `make faults` first.")
    except MissingMeasurement as missing:
        sys.exit(str(missing))
    if left := unused(template, found):
        sys.exit(f"{TEMPLATE.relative_to(ROOT)} has no place for: {'; '.join(left)}.")
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(TABLE.sub(lambda _: table, text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
