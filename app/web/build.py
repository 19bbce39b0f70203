"""The name of the running build: a page left open sees when another one answers."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from app.registry.code_version import release
from app.registry.paths import STATIC, TEMPLATES

HEADER = "brushwork-build"
CACHED = ("/static/", "/media/")  # their answers outlive an update in the caches of browsers


@cache
def fingerprint() -> str:
    """The fingerprint of the release, the templates and the static files.

    Computed once per process: an update is in use when the process was restarted.
    """
    content = hashlib.sha256(release().encode())
    for folder in (TEMPLATES, STATIC):
        for file in _files(folder):
            content.update(file.relative_to(folder).as_posix().encode() + b"\0")
            content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:12]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
