"""Base models from the Hub in the data folder: downloaded once, found again without a network.

A repository has a folder of its own; `COMMIT/` in it holds the files under their own names, so that
any program can use it, and `COMMIT-….json` beside it says that a download is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from worker.core.hub.errors import Access, HubError
from worker.core.hub.repository import RemoteFile, Repository, look_up
from worker.core.hub.selection import INDEX, Precision, folder_files, single_file
from worker.core.hub.transfer import Tell, fetch

MAIN = "main"
LOCK = ".lock"


@dataclass(frozen=True)
class Wanted:
    """A base model as a person names it: a repository, maybe its revision, maybe one file."""

    repo: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Downloaded:
    """A base model that lies here: its folder or file, and the commit it is of."""

    path: Path
    commit: str


def download(
    wanted: Wanted,
    home: Path,
    access: Access,
    *,
    precision: Precision = "fp16",
    tell: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> Downloaded:
    """Fetch a base model into its repository's folder; `tell(file, bytes here, bytes in all)`."""
    repository = look_up(wanted.repo, wanted.revision, access)
    folder = home / repository.commit
    home.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(home / LOCK):  # another process may be fetching the very same: wait for it
        files = _needed(repository, wanted, folder, access, precision)
        total = sum(file.size for file in files)
        tell("", 0, total)
        progress: Tell = lambda path, done: tell(path, done, total)  # noqa: E731
        fetch(repository, files, folder, access, progress)
        entry = files[0].path if wanted.file or INDEX not in repository.files else ""
        _write_receipt(folder, wanted, repository.commit, entry)
    return Downloaded(folder / entry if entry else folder, repository.commit)


def _needed(
    repository: Repository, wanted: Wanted, folder: Path, access: Access, precision: Precision
) -> list[RemoteFile]:
    if wanted.file is not None or INDEX not in repository.files:
        return [single_file(repository, wanted.file)]
    fetch(repository, [repository.files[INDEX]], folder, access)
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except ValueError:
        index = None
    if not isinstance(index, dict):
        raise HubError("hub_unusable", f"The {INDEX} of “{repository.name}” cannot be read.")
    return folder_files(repository, index, precision)


def find(wanted: Wanted, home: Path) -> Downloaded | None:
    """A base model that was downloaded before, by us or into the Hub's own cache; asks nobody."""
    for receipt in sorted(home.glob("*.json"), key=_age):
        found = _read_receipt(receipt)
        if found is None or found["file"] != wanted.file:
            continue
        if wanted.revision in (None, *found["revisions"]) or found["commit"] == wanted.revision:
            folder = receipt.parent / found["commit"]
            path = folder / found["entry"] if found["entry"] else folder
            if path.exists():
                return Downloaded(path, found["commit"])
    return _find_in_cache(wanted)


def _find_in_cache(wanted: Wanted) -> Downloaded | None:
    entry = wanted.file or INDEX
    try:
        found = snapshot_download(
            wanted.repo, revision=wanted.revision, allow_patterns=[entry], local_files_only=True
        )
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    snapshot = Path(found)
    if not (snapshot / entry).is_file():
        return None
    return Downloaded(snapshot / wanted.file if wanted.file else snapshot, snapshot.name)


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def _write_receipt(folder: Path, wanted: Wanted, commit: str, entry: str) -> None:
    mark = hashlib.sha256((wanted.file or "").encode()).hexdigest()[:8]
    path = folder.with_name(f"{commit}-{mark}.json")
    before = _read_receipt(path) or {"revisions": []}
    revisions = sorted({*before["revisions"], wanted.revision or MAIN})
    content = {"file": wanted.file, "commit": commit, "entry": entry, "revisions": revisions}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _read_receipt(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    keys = {"file", "commit", "entry", "revisions"}
    return content if isinstance(content, dict) and keys <= set(content) else None
