"""Imports point one way, and the web front end stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate"}
APP_MAY_IMPORT = {
    "worker.training.config",
    "worker.training.buckets",  # plain geometry: the form shows the very crop a training makes
    "worker.training.presets",
    "worker.inference.config",
    "worker.bases.family",  # what an inspection tells; constants and dataclasses
    "worker.bases.inspect",  # reads configs and headers, in milliseconds and without torch
    "worker.starter",  # where the embedded base and its example lie; constants only
}
CORES = ("training", "inference", "adapters", "bases", "hub")
# The command line drives the cores and the processes; it imports them when a command runs.
COMMANDS = {"app/commands", "app/__main__.py"}


def modules(folder: str) -> Iterator[Path]:
    yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a file imports, and whether at its top level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "worker":
                yield from ((f"worker.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield node.module, id(node) in top


def is_command(path: Path) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return any(relative.startswith(place) for place in COMMANDS)


def test_the_web_front_end_imports_nothing_heavy() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("app")
        for name, _ in imported(path)
        if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_the_web_front_end_takes_only_configs_from_the_workers() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("app")
        for name, at_top in imported(path)
        if name.startswith("worker")
        and name not in APP_MAY_IMPORT
        and not (is_command(path) and not at_top)
    ]
    assert wrong == []


@pytest.mark.parametrize("core", CORES)
def test_a_core_runs_alone(core: str) -> None:
    forbidden = {"app", "celery", "sqlmodel", "sqlalchemy", "fastapi"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(f"worker/{core}")
        for name, _ in imported(path)
        if name.split(".")[0] in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("core", CORES)
def test_a_core_reads_no_environment(core: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in modules(f"worker/{core}")
        if path.stem != "__main__"  # a program may: it is where the machine's words come in
        and ("os.environ" in path.read_text() or "getenv" in path.read_text())
    ]
    assert wrong == []


@pytest.mark.parametrize("layer", ["api", "pages"])
def test_routes_hold_no_queries(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("app")
        if path.stem == layer
        for name, _ in imported(path)
        if name.startswith("sqlalchemy")
    ]
    assert wrong == []


def test_starting_the_web_front_end_loads_no_torch() -> None:
    program = (
        "import sys, app.main; "
        f"loaded = {sorted(HEAVY)!r}; "
        "print([name for name in loaded if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
