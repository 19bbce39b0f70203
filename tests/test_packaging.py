"""Dependencies and the version are declared. tests/tools/test_wheel.py builds the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.cli.main import main
from app.registry import code_version
from tests.statements import statements
from tests.wheel import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"app", "worker", "tools", "tests", "bench", "docs"}
# Who imports it: the folder, and the extras that it may need beside the dependencies.
EXTRAS = {
    "app": (),
    "migrations": (),
    "worker": (),
    "worker/core/captioning/local/wd_tagger.py": ("tagger",),
    "worker/core/training/optim.py": ("eightbit",),
    "bench": ("test",),
    "docs": ("test",),
    "tests": ("test", "tools", "eightbit", "tagger"),
    "tools": ("tools",),
}


# dependencies


def distribution_name(requirement: str) -> str:
    """The normalized name in a requirement: `celery` of `celery[redis]>=5.7`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def declared(extras: tuple[str, ...]) -> set[str]:
    """The distributions of the dependencies and of these extras."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][one] for one in extras)]
    return {distribution_name(requirement) for each in lists for requirement in each}


def imported(path: Path) -> Iterator[str]:
    """The top-level packages of others that a file imports, wherever the import stands."""
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        packages = {name.partition(".")[0] for name in names}
        yield from packages - OWN - sys.stdlib_module_names


def extras_of(path: Path) -> tuple[str, ...]:
    """The extras that a file may need, by the nearest folder in `EXTRAS`."""
    place = path.relative_to(ROOT)
    return next(
        EXTRAS[one.as_posix()] for one in (place, *place.parents) if one.as_posix() in EXTRAS
    )


def test_everything_that_is_imported_is_declared() -> None:
    owners = packages_distributions()
    missing = set()
    for folder in ("app", "bench", "docs", "migrations", "tests", "tools", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            known = declared(extras_of(path))
            for package in imported(path):
                names = {distribution_name(name) for name in owners.get(package, [package])}
                if not names & known:
                    missing.add((package, str(path.relative_to(ROOT))))
    assert missing == set()


# the version


def test_the_version_stands_in_one_place(capsys: pytest.CaptureFixture[str], app: FastAPI) -> None:
    version = PROJECT["version"]
    assert code_version.release() == version
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith(f"Brushwork {version}")
    assert app.version == version
    files = (path for path in ROOT.rglob("*.py") if path.is_relative_to(ROOT / "app"))
    assert [path for path in files if f'"{version}"' in path.read_text()] == []


# what builds write


def test_what_builds_write_is_ignored() -> None:
    for name in ("build/lib/app.py", "dist/brushwork.whl"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0
    assert {"build", "dist"} <= set((ROOT / ".dockerignore").read_text().split())
