"""Lines of each area beside the budget in `pyproject.toml`: `make lines`.

A feature that needs more lines raises the budget of its area in its own commit, with the reason.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {"static/css": "*.css", "static/js": "*.js", "templates": "*.html"}
"""The files that count in these areas; in all others it is Python."""


def budget() -> Mapping[str, int]:
    """The most lines that each area may have; an area within another one counts for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines: Mapping[str, int] = project["tool"]["brushwork"]["lines"]
    return lines


def count(areas: Mapping[str, int]) -> dict[str, int]:
    """The lines of each area."""
    return {area: sum(map(_lines, _files(area, areas))) for area in areas}


def _files(area: str, areas: Mapping[str, int]) -> Iterator[Path]:
    others = [ROOT / other for other in areas if other.startswith(f"{area}/")]
    for path in sorted((ROOT / area).rglob(KINDS.get(area, "*.py"))):
        if not any(path.is_relative_to(other) for other in others):
            yield path


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def main() -> int:
    """Print the table; the status is 1 where an area has more lines than its budget."""
    areas = budget()
    lines = count(areas)
    for area, most in areas.items():
        print(f"{area:<16}{lines[area]:>8,} of {most:>7,}")
    print(f"{'all':<16}{sum(lines.values()):>8,} of {sum(areas.values()):>7,}")
    return int(any(lines[area] > most for area, most in areas.items()))


if __name__ == "__main__":
    sys.exit(main())
