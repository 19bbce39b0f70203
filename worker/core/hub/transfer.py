"""Resumable downloads: a partial file is continued, also by a later process.

The Hub client keeps nothing of a file when its process dies, so the partial file is ours
(`NAME.part`), and the client's request continues from its end with a Range header.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx2
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public by its documentation
    build_hf_headers,
    disable_progress_bars,
)

from worker.core.hub.errors import Access, HubError
from worker.core.hub.repository import RemoteFile, Repository
from worker.core.wording import size_text

PART = ".part"
SPARE_BYTES = 256 * 2**20  # kept free on the disk for the database and the logs
RETRY_DELAYS = (1.0, 4.0, 10.0)  # seconds before each retry after a server error

# (file being downloaded, bytes of all files so far)
OnProgress = Callable[[str, int], None]


def fetch_files(
    repository: Repository,
    files: Sequence[RemoteFile],
    folder: Path,
    access: Access,
    on_progress: OnProgress = lambda _path, _done: None,
) -> None:
    """Download all these files into `folder`; files already there are skipped."""
    disable_progress_bars()
    _require_disk_space(files, folder)
    done = 0
    for file in files:
        target = folder / file.path
        if not _is_complete(target, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(
                repository, file, target, access, partial(_report_sum, on_progress, file.path, done)
            )
        done += file.size
        on_progress(file.path, done)


def _report_sum(on_progress: OnProgress, path: str, before: int, have: int) -> None:
    on_progress(path, before + have)


def _is_complete(target: Path, file: RemoteFile) -> bool:
    """Files get their final name only after their hash was checked."""
    return target.is_file() and target.stat().st_size == file.size


def _require_disk_space(files: Sequence[RemoteFile], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = sum(
        file.size - _file_size(folder / f"{file.path}{PART}")
        for file in files
        if not _is_complete(folder / file.path, file)
    )
    free = shutil.disk_usage(folder).free
    if missing and missing + SPARE_BYTES > free:
        raise HubError(
            f"The download needs {size_text(missing)}, and the disk of the data folder has "
            f"{size_text(free)} free. Free some space and try again.",
            "disk_full",
        )


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_file(
    repository: Repository,
    file: RemoteFile,
    target: Path,
    access: Access,
    on_progress: Callable[[int], None],
) -> None:
    part = target.with_name(target.name + PART)
    cached = _take_from_cache(repository, file, part)
    if cached and not _matches_hash(part, file):
        part.unlink()  # damaged in the cache; never written to, as it may be a hard link
        cached = False
    if not cached:
        _resume_download(repository, file, part, access, on_progress)
    if not _matches_hash(part, file):
        part.unlink()
        raise HubError(f"{file.path} arrived damaged and was deleted. Try again.", "hub_damaged")
    part.replace(target)


def _take_from_cache(repository: Repository, file: RemoteFile, part: Path) -> bool:
    """Use a file that another program left in the Hub cache on this machine."""
    found = try_to_load_from_cache(repository.name, file.path, revision=repository.commit)
    if not isinstance(found, str) or _file_size(Path(found)) != file.size:
        return False
    part.unlink(missing_ok=True)
    try:
        os.link(Path(found).resolve(), part)
    except OSError:  # another disk
        shutil.copyfile(found, part)
    return True


def _resume_download(
    repository: Repository,
    file: RemoteFile,
    part: Path,
    access: Access,
    on_progress: Callable[[int], None],
) -> None:
    """Download the rest of a partial file; server errors are retried a few times."""
    url = hf_hub_url(
        repository.name, file.path, revision=repository.commit, endpoint=access.endpoint
    )
    headers = build_hf_headers(token=access.token)
    headers["Accept-Encoding"] = "identity"  # ranges of a compressed body are useless
    if _file_size(part) > file.size:
        part.unlink()
    for wait in (*RETRY_DELAYS, None):
        with part.open("ab") as raw, contextlib.closing(_PartFile(raw, on_progress)) as counted:
            try:
                http_get(
                    url,
                    cast(BinaryIO, counted),
                    resume_size=raw.tell(),
                    headers=headers,
                    expected_size=file.size,
                )
                return
            except (HfHubHTTPError, httpx2.TransportError) as error:
                is_refused = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
                if wait is None or is_refused:
                    raise
        time.sleep(wait)


class _PartFile:
    """A partial file that reports its size as it grows."""

    def __init__(self, raw: BinaryIO, on_progress: Callable[[int], None]) -> None:
        self._raw = raw
        self._on_progress = on_progress

    def write(self, chunk: bytes) -> int:
        written = self._raw.write(chunk)
        self._raw.flush()  # received bytes survive the end of this process
        self._on_progress(self._raw.tell())
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def close(self) -> None:
        os.fsync(self._raw.fileno())


def _matches_hash(part: Path, file: RemoteFile) -> bool:
    if _file_size(part) != file.size:
        return False
    if file.sha256 is None:
        return True
    with part.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
