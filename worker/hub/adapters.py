"""Adapters from the Hub and to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.hub.errors import Access, HubError
from worker.hub.models import Wanted
from worker.hub.repository import look_up
from worker.hub.selection import adapter_file
from worker.hub.transfer import fetch

MAX_ADAPTER_BYTES = 2 * 2**30
MAX_CARD_TEXT = 200


def fetch_adapter(
    wanted: Wanted,
    folder: Path,
    access: Access,
    *,
    tell: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> dict[str, Any]:
    """Fetch one LoRA file: its `path`, `commit`, and what the model card says of it."""
    repository = look_up(wanted.repo, wanted.revision, access)
    file = adapter_file(repository, wanted.file)
    if file.size > MAX_ADAPTER_BYTES:
        raise HubError("hub_unusable", f"{file.path} is larger than 2 GB, which no adapter is.")
    fetch(repository, [file], folder, access, lambda path, done: tell(path, done, file.size))
    said = {key: repository.card.get(key) for key in ("license", "instance_prompt")}
    return {
        "path": str(folder / file.path),
        "file": file.path,
        "commit": repository.commit,
        "card": {key: text[:MAX_CARD_TEXT] for key, text in said.items() if isinstance(text, str)},
    }
