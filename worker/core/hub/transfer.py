"""Files from the Hub to a folder: what was cut off goes on where it stopped, in any later process.

The client's own download keeps nothing of a file when its process dies, so the partial file is ours
(`NAME.part`), and the client's request goes on from its end by a Range header.
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

PART = ".part"
SPARE_BYTES = 256 * 2**20  # left free on the disk: the database and the logs need some
CHUNK = 2**20
WAITS = (1.0, 4.0, 10.0)  # seconds before a server in trouble is asked again

Tell = Callable[[str, int], None]  # the file at work, and the bytes of all files that are here


def fetch(
    repository: Repository,
    files: Sequence[RemoteFile],
    folder: Path,
    access: Access,
    tell: Tell = lambda _path, _done: None,
) -> None:
    """All these files in `folder`; those that are there are not asked for again."""
    disable_progress_bars()
    _require_room(files, folder)
    done = 0
    for file in files:
        target = folder / file.path
        if not _is_whole(target, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_one(repository, file, target, access, partial(_tell_sum, tell, file.path, done))
        done += file.size
        tell(file.path, done)


def _tell_sum(tell: Tell, path: str, before: int, have: int) -> None:
    tell(path, before + have)


def _is_whole(target: Path, file: RemoteFile) -> bool:
    """A file has its name only once it was compared with its hash."""
    return target.is_file() and target.stat().st_size == file.size


def _require_room(files: Sequence[RemoteFile], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = sum(
        file.size - _size(folder / f"{file.path}{PART}")
        for file in files
        if not _is_whole(folder / file.path, file)
    )
    free = shutil.disk_usage(folder).free
    if missing and missing + SPARE_BYTES > free:
        raise HubError(
            "disk_full",
            f"This needs {_gigabytes(missing)} more, and the disk of the data folder has "
            f"{_gigabytes(free)} left. Make room, then try again.",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_one(
    repository: Repository,
    file: RemoteFile,
    target: Path,
    access: Access,
    tell: Callable[[int], None],
) -> None:
    part = target.with_name(target.name + PART)
    cached = _take_from_cache(repository, file, part)
    if cached and not _is_right(part, file):
        part.unlink()  # damaged there: fetched whole, and never written to, as it may be a link
        cached = False
    if not cached:
        _go_on(repository, file, part, access, tell)
    if not _is_right(part, file):
        part.unlink()
        raise HubError(
            "hub_damaged", f"{file.path} came damaged and was thrown away. Try again to load it."
        )
    part.replace(target)


def _take_from_cache(repository: Repository, file: RemoteFile, part: Path) -> bool:
    """Take a file that another program has left in the Hub's own cache on this machine."""
    found = try_to_load_from_cache(repository.name, file.path, revision=repository.commit)
    if not isinstance(found, str) or _size(Path(found)) != file.size:
        return False
    part.unlink(missing_ok=True)
    try:
        os.link(Path(found).resolve(), part)
    except OSError:  # another disk
        shutil.copyfile(found, part)
    return True


def _go_on(
    repository: Repository,
    file: RemoteFile,
    part: Path,
    access: Access,
    tell: Callable[[int], None],
) -> None:
    """Fetch what is missing of a partial file; a server in trouble is asked again a few times."""
    url = hf_hub_url(
        repository.name, file.path, revision=repository.commit, endpoint=access.endpoint
    )
    headers = build_hf_headers(token=access.token)
    headers["Accept-Encoding"] = "identity"  # a range of a compressed body would be of no use
    if _size(part) > file.size:
        part.unlink()
    for wait in (*WAITS, None):
        with part.open("ab") as raw, contextlib.closing(_Part(raw, tell)) as counted:
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
                if wait is None or not _is_passing(error):
                    raise
        time.sleep(wait)


def _is_passing(error: Exception) -> bool:
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


class _Part:
    """A partial file that tells its size as it grows."""

    def __init__(self, raw: BinaryIO, tell: Callable[[int], None]) -> None:
        self._raw = raw
        self._tell = tell

    def write(self, chunk: bytes) -> int:
        written = self._raw.write(chunk)
        self._raw.flush()  # what has arrived is kept whatever happens to this process
        self._tell(self._raw.tell())
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def close(self) -> None:
        os.fsync(self._raw.fileno())


def _is_right(part: Path, file: RemoteFile) -> bool:
    if _size(part) != file.size:
        return False
    if file.sha256 is None:
        return True
    digest = hashlib.sha256()
    with part.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256
