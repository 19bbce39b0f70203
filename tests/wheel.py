"""The wheel of this checkout, and an environment in which it is installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import hatchling.build

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """The wheel, written into this folder."""
    with contextlib.chdir(ROOT):
        return folder / hatchling.build.build_wheel(str(folder))


def build_sdist(folder: Path) -> Path:
    """The source distribution, written into this folder."""
    with contextlib.chdir(ROOT):
        return folder / hatchling.build.build_sdist(str(folder))


def install_wheel(wheel: Path, folder: Path) -> Path:
    """The folder of the programs of a new environment in `folder` that has this wheel.

    Other packages are those of this environment, so that nothing is downloaded.
    """
    venv.EnvBuilder(symlinks=True).create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True)
    place = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", place))
    # Paths alone: the .pth files in these folders, which may name a checkout, are not read.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    return folder / "bin"
