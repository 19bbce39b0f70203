"""The virtual environment that Brushwork is installed into."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from app.install import InstallError

OLDEST = (3, 11)
LOOK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(json.dumps({
    "python": sys.version_info[:2],
    "has_pip": find_spec("pip") is not None,
    "torch": found("torch"),
    "brushwork": found("brushwork"),
}))
"""


class Contents(TypedDict):
    """The output of `LOOK`."""

    python: tuple[int, int]
    has_pip: bool
    torch: str | None
    brushwork: str | None


@dataclass(frozen=True)
class Environment:
    """An environment and the versions that it has of these packages."""

    python: Path
    torch: str | None
    brushwork: str | None


def open_environment(folder: Path, say: Callable[[str], None]) -> Environment:
    """The environment in this folder; made with this Python if it is missing.

    Raises InstallError if it cannot be made, or was made with an older Python.
    """
    python = folder / "bin" / "python"
    found = _look(python)
    if found is None:
        say(f"Making {folder} with Python {platform.python_version()}")
        _make(folder)
        found = _look(python)
    if found is None:
        raise InstallError(f"{python} does not run. Remove {folder} and try again.")
    if tuple(found["python"]) < OLDEST:
        raise InstallError(
            f"{folder} was made with Python {found['python'][0]}.{found['python'][1]}, and "
            "Brushwork needs 3.11 or newer. Remove it (`make clean`), then run the same command "
            "again."
        )
    if not found["has_pip"]:  # making it was interrupted
        _run([str(python), "-m", "ensurepip"], "pip cannot be installed")
    return Environment(python, found["torch"], found["brushwork"])


def _look(python: Path) -> Contents | None:
    """The contents of this Python's environment; None if it does not run."""
    try:
        done = subprocess.run([str(python), "-I", "-c", LOOK], capture_output=True, text=True)
    except OSError:
        return None
    contents: Contents | None = json.loads(done.stdout) if done.returncode == 0 else None
    return contents


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise InstallError(
            f"The folder {folder} cannot be written ({error.strerror}). Clone Brushwork into a "
            "folder of your own, or install it elsewhere with VENV=FOLDER."
        ) from error
    _run(
        [sys.executable, "-m", "venv", str(folder)],
        "The environment cannot be made; on Debian and Ubuntu it needs `apt install python3-venv`",
    )


def _run(command: list[str], problem: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise InstallError(f"{problem}: {words[-1]}")
