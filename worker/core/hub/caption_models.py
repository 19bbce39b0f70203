"""Caption models from the Hub: BLIP, Florence-2 and WD taggers, in the folders they come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.core.captioning.local.inspect import (
    CONFIG,
    ONNX,
    TAGS,
    UnusableModel,
    family_of_config,
)
from worker.core.hub.errors import Access, HubError
from worker.core.hub.models import HubReference, LocalModel, downloaded_files
from worker.core.hub.repository import RemoteFile, Repository
from worker.core.hub.selection import find_weights, refuse_pickles
from worker.core.hub.transfer import fetch_files

WEIGHTS = "model"
WORD_LISTS = ("merges.txt", "vocab.txt")


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
            return _present(repository, (CONFIG, TAGS, ONNX))
        if CONFIG not in repository.files:
            raise HubError(
                "hub_unusable",
                f"“{repository.name}” has no {CONFIG}, so it is no caption model. Choose a BLIP or "
                "Florence-2 model, or a WD tagger.",
            )
        fetch_files(repository, [repository.files[CONFIG]], folder, access)
        try:
            family_of_config(_read_json(folder / CONFIG))
        except UnusableModel as error:
            raise HubError("hub_unusable", str(error)) from error
        return select_caption_files(repository)

    with downloaded_files(reference, home, access, select, on_progress) as found:
        return LocalModel(found.folder, found.repository.commit)


def select_caption_files(repository: Repository) -> list[RemoteFile]:
    """The files of a BLIP or Florence-2 model to download, small ones first. Raises HubError."""
    root = [file for path, file in repository.files.items() if "/" not in path]
    weights = find_weights(root, WEIGHTS)
    if not weights:
        refuse_pickles(f"“{repository.name}”", root)
        raise HubError(
            "hub_unusable",
            f"“{repository.name}” has no {WEIGHTS}.safetensors. Choose another model.",
        )
    settings = [
        file
        for file in root
        if file.name in WORD_LISTS or (file.name.endswith(".json") and ".index." not in file.name)
    ]
    return sorted([*settings, *weights], key=lambda file: (file.size, file.path))


def _present(repository: Repository, names: tuple[str, ...]) -> list[RemoteFile]:
    return [repository.files[name] for name in names if name in repository.files]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None
