"""Layers are folders. Their directions are held by import-linter; here is what it cannot see."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import costs
from tests.statements import statements

ROOT = Path(__file__).parents[1]
REGISTRY = "app.registry"
CODE = ("app", "worker", "tools")
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate"}
WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "jinja2"}
MAX_MODULES = 30
SESSION_CALLS = {
    "add",
    "connection",
    "delete",
    "exec",
    "execute",
    "flush",
    "get",
    "get_one",
    "merge",
}


def modules(folder: str) -> Iterator[Path]:
    yield from sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever the import stands."""
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded_by(*imports: str) -> list[set[str]]:
    """The top-level packages in `sys.modules` of one new process, after each of these lines."""
    say = "print(*{n.split('.')[0] for n in sys.modules})"
    # garbage collection would look through the same objects again and again
    program = "\n".join(["import gc, sys; gc.disable()", *(f"{line}; {say}" for line in imports)])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.process
def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.process
def test_a_broken_contract_is_found(tmp_path: Path) -> None:
    """The tool reads this project's contracts: an arrow against them fails."""
    for folder in CODE:
        for path in modules(folder):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (tmp_path / "app" / "registry" / "db.py").open("a") as file:
        file.write("\nfrom app.web import state as _state\n")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "app.registry is not allowed to import app.web" in done.stdout


@pytest.mark.process
def test_trainer_worker_registry_and_web_load_no_torch_and_the_web_alone_its_framework() -> None:
    """In one process, in this order: what one of them loads, those before it did not.

    A trainer opens its pipes before it loads torch. An io worker idles without it; the others load
    it when their loop or trainer starts. `tests/worker/test_lean_imports.py` looks at the core.
    """
    names = {
        folder: ", ".join(module_name(path) for path in modules(folder))
        for folder in ("app/registry", "app/web")
    }
    worker = "import worker.runtime.process, worker.runtime.launch, worker.runtime.celery_app"
    trainer, worker, registry, web = loaded_by(
        "import worker.runtime.trainer",
        f"{worker}; worker.runtime.process.LimitedIoJobs(settings=None, database=None, store=None)",
        f"import {names['app/registry']}",
        f"import {names['app/web']}",
    )
    assert (trainer | worker) & (HEAVY | {"safetensors", "numpy"}) == set()
    assert registry & (WEB_FRAMEWORKS | HEAVY) == set()
    assert web & HEAVY == set()


def test_quick_tests_import_no_networks() -> None:
    """Only tests of tensors do, and of what is `unit` nothing that builds networks with them.

    Each process of `make check` imports all that it collects.
    """
    allowed = {"torch": "tests/worker/"}  # files of adapters are tensors
    quick = {
        library: file
        for library, file in costs.loaded_by.items()
        if costs.cost_of_folder(ROOT / file) in ("unit", "pages")
        and not (library in allowed and file.startswith(allowed[library]))
    }
    assert quick == {}


@pytest.mark.parametrize("folder", ["worker/core", "app/web"])
def test_only_settings_and_programs_read_the_environment(folder: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in modules(folder)
        if path.stem != "__main__"  # a program may: it is where the machine's words come in
        and any(word in path.read_text() for word in ("os.environ", "getenv"))
    ]
    assert wrong == []


def test_the_web_calls_no_session() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules("app/web")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SESSION_CALLS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "session"
    ]
    assert wrong == []


@functools.cache
def all_arrows() -> dict[str, set[str]]:
    """The modules of ours that each module imports, by name."""
    names = {module_name(path): path for folder in CODE for path in modules(folder)}
    return {
        name: {found for found in imported(path) if found in names} - {name}
        for name, path in names.items()
    }


def in_circles(arrows: dict[str, set[str]]) -> list[str]:
    """Those that lead to a circle and are led to by one: what no order from below can place."""
    for _ in range(2):  # from both ends
        while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
            arrows = {name: arrows[name] for name in arrows.keys() - leaves}
        arrows = {name: {back for back in arrows if name in arrows[back]} for name in arrows}
    return sorted(arrows)


def room_arrows(parent: str, arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The rooms of a folder, its folders and loose files, each with the rooms that it imports."""

    def room(name: str) -> str:
        return name.removeprefix(f"{parent}.").partition(".")[0]

    rooms: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        if name.startswith(f"{parent}."):
            inside = {room(target) for target in targets if target.startswith(f"{parent}.")}
            rooms.setdefault(room(name), set()).update(inside - {room(name)})
    return rooms


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert in_circles(all_arrows()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    arrows = all_arrows()
    parents = {name.rpartition(".")[0] for name in arrows} - {""}
    found = {parent: in_circles(room_arrows(parent, arrows)) for parent in parents}
    assert {parent: rooms for parent, rooms in found.items() if rooms} == {}


def test_no_folder_holds_more_than_thirty_modules() -> None:
    count = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for folder in CODE
        for path in modules(folder)
        if path.stem != "__init__"
    )
    assert {folder: number for folder, number in count.items() if number > MAX_MODULES} == {}


def test_others_import_of_a_domain_what_is_in_its_face() -> None:
    """Web, command line, supervisor and workers import all of a face and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    faces = project["tool"]["brushwork"]["faces"]
    named = {f"{REGISTRY}.{room}.{name}" for room, names in faces.items() for name in names}
    used = {
        target
        for name, targets in all_arrows().items()
        if not name.startswith(REGISTRY)
        for target in targets
        if target.startswith(REGISTRY)
        and target.count(".") > REGISTRY.count(".") + 1  # in a room
        and not (ROOT / target.replace(".", "/")).is_dir()
    }
    assert used == named
