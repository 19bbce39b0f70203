"""The build backend of the small project that the tests install; it needs no other package."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any


def write_wheel(
    folder: Path, name: str, version: str, files: dict[str, str], needs: str = ""
) -> str:
    """Write a wheel of pure Python into `folder`; returns its name. Keys are paths inside it."""
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def build_editable(folder: str, _settings: Any = None, _metadata: Any = None) -> str:
    """PEP 660: a wheel that names this folder and needs torch."""
    files = {"brushwork.pth": str(Path.cwd())}
    return write_wheel(Path(folder), "brushwork", "0.0", files, "Requires-Dist: torch>=2.6\n")
