"""A repository of the Hub at one commit: its files with sizes and hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import HfApi

from worker.core.hub.errors import Access, HubError

TIMEOUT_SECONDS = 20.0
MAX_FILES = 20_000


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; `sha256` is known only for files in large-file storage."""

    path: str
    size: int
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file name without folders."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Repository:
    """A repository pinned to a commit; `card` is the front matter of its README."""

    name: str
    commit: str
    files: dict[str, RemoteFile]
    card: dict[str, Any]


def fetch_repository(name: str, revision: str | None, access: Access) -> Repository:
    """The repository at its current commit."""
    api = HfApi(endpoint=access.endpoint, token=access.token)
    info = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
    siblings = info.siblings or []
    if len(siblings) > MAX_FILES:
        raise HubError(f"“{name}” has {len(siblings)} files, so it is not a model. Choose another.")
    files = {
        row.rfilename: RemoteFile(row.rfilename, row.size or 0, row.lfs.sha256 if row.lfs else None)
        for row in siblings
        if is_safe_path(row.rfilename)
    }
    card = dict(vars(info.card_data)) if info.card_data else {}
    return Repository(info.id, str(info.sha), files, card)


def is_safe_path(path: str) -> bool:
    """True for a relative path that stays inside its folder on every system."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") or {"\\", ":", "\0"} & set(part) for part in parts)
