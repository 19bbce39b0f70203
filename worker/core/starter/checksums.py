"""The list of the embedded base model's files: what was installed, and what is damaged.

    python -m worker.core.starter.checksums

writes the list again, after the build of other weights. `sha256sum -c` reads it too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from worker.core.starter import PATH, REPAIR

NAME = "SHA256SUMS"
MOST_NAMED = 3


def find_damage(folder: Path = PATH) -> str | None:
    """Which files are not those in the list of `folder`, as a sentence; None if all are.

    Reads all files, 50 MB. Without a list nothing is known to be damaged.
    """
    try:
        lines = (folder / NAME).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    listed = (line.split("  ", 1) for line in lines if "  " in line)
    bad = [name for sha256, name in listed if _sha256(folder / name) != sha256]
    if not bad:
        return None
    names = ", ".join(bad[:MOST_NAMED]) + (" …" if len(bad) > MOST_NAMED else "")
    return f"The embedded base model is damaged or incomplete: {names}. {REPAIR}"


def write_checksums(folder: Path = PATH) -> None:
    """Write the list of the files that belong to the base model in `folder`."""
    index = folder / "model_index.json"
    components = json.loads(index.read_text(encoding="utf-8"))
    files = [index, *(f for name in sorted(components) for f in sorted((folder / name).glob("*")))]
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / NAME).write_text("".join(lines), encoding="ascii")


def _sha256(file: Path) -> str:
    """The hash of a file; empty if it cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""


if __name__ == "__main__":
    write_checksums()
