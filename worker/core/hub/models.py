"""Base models and caption models from the Hub: downloaded once, then found without a network.

Each repository has a folder. `COMMIT/` in it holds the files under their original names, so that
any program can use it; `COMMIT-….json` next to it marks a complete download of a base model.
Caption models are BLIP, Florence-2 and WD taggers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from worker.core.captioning.local.inspect import CONFIG, ONNX, TAGS, UnusableModel, family_of_config
from worker.core.families.folder import INDEX
from worker.core.hub.errors import Access, HubError
from worker.core.hub.repository import RemoteFile, Repository, fetch_repository
from worker.core.hub.selection import (
    Precision,
    find_weights,
    refuse_pickles,
    select_folder_files,
    select_single_file,
)
from worker.core.hub.transfer import OnProgress, fetch_files

MAIN = "main"
LOCK = ".lock"
CAPTION_WEIGHTS = "model"
WORD_LISTS = ("merges.txt", "vocab.txt")


@dataclass(frozen=True)
class HubReference:
    """A model on the Hub as a person names it: repository, optional revision, optional file."""

    repo: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class LocalModel:
    """A base model on this machine: its folder or file, and its commit."""

    path: Path
    commit: str


def download_model(
    reference: HubReference,
    home: Path,
    access: Access,
    *,
    precision: Precision = "fp16",
    on_progress: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> LocalModel:
    """Download a base model; `on_progress(file, bytes so far, bytes in total)`."""

    def select(repository: Repository, folder: Path) -> list[RemoteFile]:
        return _select_files(repository, reference, folder, access, precision)

    with downloaded_files(reference, home, access, select, on_progress) as found:
        is_file = reference.file is not None or INDEX not in found.repository.files
        entry = found.files[0].path if is_file else ""
        _write_receipt(found.folder, reference, found.repository.commit, entry)
    path = found.folder / entry if entry else found.folder
    return LocalModel(path, found.repository.commit)


def download_size(
    reference: HubReference, home: Path, access: Access, *, precision: Precision = "fp16"
) -> int:
    """The bytes of the files that `download_model` fetches, of which this fetches no weights."""
    repository = fetch_repository(reference.repo, reference.revision, access)
    folder = home / repository.commit
    home.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(home / LOCK):
        files = _select_files(repository, reference, folder, access, precision)
    return sum(file.size for file in files)


@dataclass(frozen=True)
class Downloaded:
    """The files of a repository that are in a folder of this machine."""

    repository: Repository
    folder: Path
    files: list[RemoteFile]


@contextmanager
def downloaded_files(
    reference: HubReference,
    home: Path,
    access: Access,
    select: Callable[[Repository, Path], list[RemoteFile]],
    on_progress: Callable[[str, int, int], None],
) -> Iterator[Downloaded]:
    """Download the files that `select` chooses of a repository, given the folder they come to.

    Other processes wait with the same repository until the block ends.
    """
    repository = fetch_repository(reference.repo, reference.revision, access)
    folder = home / repository.commit
    home.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(home / LOCK):
        files = select(repository, folder)
        total = sum(file.size for file in files)
        on_progress("", 0, total)
        progress: OnProgress = lambda path, done: on_progress(path, done, total)  # noqa: E731
        fetch_files(repository, files, folder, access, progress)
        yield Downloaded(repository, folder, files)


def _select_files(
    repository: Repository,
    reference: HubReference,
    folder: Path,
    access: Access,
    precision: Precision,
) -> list[RemoteFile]:
    if reference.file is not None or INDEX not in repository.files:
        return [select_single_file(repository, reference.file)]
    fetch_files(repository, [repository.files[INDEX]], folder, access)
    index = _read_json(folder / INDEX)
    if not isinstance(index, dict):
        raise HubError(
            f"The {INDEX} of “{repository.name}” is not valid JSON. Choose another model."
        )
    try:
        return select_folder_files(repository, index, precision)
    except HubError:
        (folder / INDEX).unlink()  # nothing is left of a model that cannot be used
        with suppress(OSError):  # of another download of this commit
            folder.rmdir()
        raise


def find_local_model(reference: HubReference, home: Path) -> LocalModel | None:
    """A base model downloaded earlier, by us or into the Hub's own cache; uses no network."""
    for receipt in sorted(home.glob("*.json"), key=lambda path: -path.stat().st_mtime):
        found = _read_receipt(receipt)
        if found is None or found["file"] != reference.file:
            continue
        if (
            reference.revision in (None, *found["revisions"])
            or found["commit"] == reference.revision
        ):
            folder = receipt.parent / found["commit"]
            path = folder / found["entry"] if found["entry"] else folder
            if path.exists():
                return LocalModel(path, found["commit"])
    return _find_in_hub_cache(reference)


def _find_in_hub_cache(reference: HubReference) -> LocalModel | None:
    entry = reference.file or INDEX
    try:
        found = snapshot_download(
            reference.repo,
            revision=reference.revision,
            allow_patterns=[entry],
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    snapshot = Path(found)
    if not (snapshot / entry).is_file():
        return None
    return LocalModel(snapshot / reference.file if reference.file else snapshot, snapshot.name)


def _write_receipt(folder: Path, reference: HubReference, commit: str, entry: str) -> None:
    mark = hashlib.sha256((reference.file or "").encode()).hexdigest()[:8]
    path = folder.with_name(f"{commit}-{mark}.json")
    before = _read_receipt(path) or {"revisions": []}
    revisions = sorted({*before["revisions"], reference.revision or MAIN})
    content = {"file": reference.file, "commit": commit, "entry": entry, "revisions": revisions}
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


def download_caption_model(
    reference: HubReference,
    home: Path,
    access: Access,
    *,
    on_progress: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> LocalModel:
    """Download a caption model; `on_progress(file, bytes so far, bytes in total)`.

    Its config is read first: gigabytes of a model that cannot be used are not downloaded.
    """

    def select(repository: Repository, folder: Path) -> list[RemoteFile]:
        if ONNX in repository.files and TAGS in repository.files:
            return [
                repository.files[name] for name in (CONFIG, TAGS, ONNX) if name in repository.files
            ]
        if CONFIG not in repository.files:
            raise HubError(
                f"“{repository.name}” has no {CONFIG}, so it is no caption model. Choose a BLIP or "
                "Florence-2 model, or a WD tagger."
            )
        fetch_files(repository, [repository.files[CONFIG]], folder, access)
        try:
            family_of_config(_read_json(folder / CONFIG))
        except UnusableModel as error:
            raise HubError(str(error)) from error
        return select_caption_files(repository)

    with downloaded_files(reference, home, access, select, on_progress) as found:
        return LocalModel(found.folder, found.repository.commit)


def select_caption_files(repository: Repository) -> list[RemoteFile]:
    """The files of a BLIP or Florence-2 model to download, small ones first. Raises HubError."""
    root = [file for path, file in repository.files.items() if "/" not in path]
    weights = find_weights(root, CAPTION_WEIGHTS)
    if not weights:
        refuse_pickles(f"“{repository.name}”", root)
        raise HubError(
            f"“{repository.name}” has no {CAPTION_WEIGHTS}.safetensors. Choose another model."
        )
    settings = [
        file
        for file in root
        if file.name in WORD_LISTS or (file.name.endswith(".json") and ".index." not in file.name)
    ]
    return sorted([*settings, *weights], key=lambda file: (file.size, file.path))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None
