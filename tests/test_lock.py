"""The image installs what `requirements/` names, by hash, and that fits `pyproject.toml`."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^\s;+]+)(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(file: str) -> dict[str, tuple[str, int]]:
    """(version, number of hashes) of each package in a lock; it has no other lines."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in (FOLDER / file).read_text().splitlines():
        if line.startswith("#") or not line:
            continue
        if pin := PIN.match(line):
            name = pin["name"]
            assert name not in found, f"{name} is there twice"
            found[name] = (pin["version"], 0)
        else:
            assert HASH.match(line), f"{file}: {line}"
            found[name] = (found[name][0], found[name][1] + 1)
    return found


IMAGE, LIBRARIES, BUILD = pins("image.txt"), pins("torch.txt"), pins("build.txt")


def direct() -> Iterator[Requirement]:
    """The packages that `pyproject.toml` names for the image."""
    extras = PROJECT["project"]["optional-dependencies"]
    for text in (*PROJECT["project"]["dependencies"], *extras["eightbit"]):
        yield Requirement(text)


def environment(machine: str) -> dict[str, str]:
    """The environment of markers in the image."""
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.M)
    on_linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    of_python = {"python_version": python, "python_full_version": f"{python}.99"}
    found = {**default_environment(), **on_linux, **of_python, "platform_machine": machine}
    return {name: str(value) for name, value in found.items()}


def test_every_package_is_pinned_with_hashes() -> None:
    for name, (version, hashes) in (IMAGE | LIBRARIES | BUILD).items():
        assert hashes > 0, f"{name}=={version} has no hash"
    assert not set(IMAGE) & set(LIBRARIES)
    assert {name for name in IMAGE | LIBRARIES if TORCH.fullmatch(name)} == set(LIBRARIES)


def test_every_dependency_is_pinned_within_its_range() -> None:
    named = list(direct())
    assert len(named) > 30
    for requirement in named:
        name = canonicalize_name(requirement.name)
        version, _ = (IMAGE | LIBRARIES)[name]
        assert requirement.specifier.contains(version), f"run `make lock`: {requirement}, {version}"
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(BUILD[canonicalize_name(requirement.name)][0])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_the_packages_need_themselves_is_there_too(machine: str) -> None:
    """Walks along what the packages of this environment name, by the image's markers."""
    wanted = [(requirement, "") for requirement in direct()]
    seen: set[tuple[str, str]] = set()
    locked = IMAGE | LIBRARIES
    while wanted:
        requirement, extra = wanted.pop()
        marker = requirement.marker
        if marker and not marker.evaluate({**environment(machine), "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        assert name in locked, f"run `make lock`: {name} is missing"
        assert requirement.specifier.contains(locked[name][0], prereleases=True), requirement
        for wanted_extra in ("", *requirement.extras):
            if (name, wanted_extra) not in seen and name not in LIBRARIES:
                seen.add((name, wanted_extra))
                wanted += [(Requirement(one), wanted_extra) for one in requires(name)]
    assert len(seen) > 50


def requires(name: str) -> list[str]:
    """The requirements of an installed package; nothing for one that this machine does not need."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def test_the_lock_names_no_index_and_no_machine() -> None:
    for path in FOLDER.glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert "--index" not in text
        assert not re.search(r"==\S*\+", text), "a build for one machine"


def test_the_image_installs_by_hash_and_resolves_nothing() -> None:
    installs = re.findall(r"pip install ([^&;\n]+(?:\\\n[^&;\n]+)*)", DOCKERFILE)
    assert len(installs) == 5
    by_hash = [line for line in installs if "--require-hashes" in line]
    resolved = [line for line in installs if "--no-deps" not in line]
    assert [line.split()[0] for line in resolved] == ["--index-url"]  # another build of torch
    assert {re.findall(r"requirements/(\w+\.txt)", line)[0] for line in by_hash} == {
        "torch.txt",
        "image.txt",
        "build.txt",
    }
    assert "pip check" in DOCKERFILE
    for name in ("torch.txt", "image.txt", "build.txt"):
        assert f"requirements/{name}" in DOCKERFILE


def test_another_build_of_torch_has_the_locked_version() -> None:
    """The command of the Dockerfile that reads it finds the version, and only that."""
    (command,) = re.findall(r"\$\((grep [^)]*torch\.txt)\)", DOCKERFILE)
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"torch=={LIBRARIES['torch'][0]}"


def test_the_command_that_writes_the_lock_is_a_target_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^lock: .*\n\t@requirements/lock ", makefile, re.M)
    for path in FOLDER.glob("*.txt"):
        assert path.read_text().startswith("# Written by `make lock`")
