"""The wheel and the source distribution hold the product and nothing else.

tests/stack installs the wheel and starts it.
"""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.wheel import ROOT, build_sdist, build_wheel

DATA = ("migrations", "static", "templates")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def repository_files() -> set[str]:
    """The files that the wheel is made of, as paths in a checkout."""
    folders = ("app", "worker", *DATA)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_every_file_and_no_top_level_folder_but_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"app", "worker"}
    expected = {f"app/{name}" if name.startswith(DATA) else name for name in repository_files()}
    assert names == expected


def test_the_sdist_holds_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    with tarfile.open(build_sdist(tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert repository_files() | {"pyproject.toml", "LICENSE", "README.md"} <= names
