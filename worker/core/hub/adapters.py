"""Download adapters from the Hub, and publish them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from worker.core.hub.cancel_guard import CancelGuard
from worker.core.hub.card import make_card
from worker.core.hub.errors import Access, HubError
from worker.core.hub.model_card import ModelCard
from worker.core.hub.models import HubReference
from worker.core.hub.repository import RemoteFile, Repository, fetch_repository
from worker.core.hub.selection import ADAPTER_NAMES, select_adapter_file
from worker.core.hub.transfer import fetch_files
from worker.core.lora_files.file_names import CONFIG_NAME
from worker.core.safetensors_header import MAX_ADAPTER_BYTES
from worker.core.wording import size_text

MAX_IMAGE_BYTES = 16 * 2**20
MAX_CARD_TEXT = 200
MAX_CONFIG_BYTES = 2**20
CARD_FACTS = ("license", "license_name", "instance_prompt")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PUBLISHED_IMAGES = "images/"
HUB_DEFAULT_FILES = (".gitattributes",)  # files of a new repository
ALREADY_PUBLIC = (
    "“{repo}” is public, but “Private” is on, so nothing was uploaded. Make it private at "
    "{endpoint}/{repo}/settings, choose another name, or turn “Private” off."
)


def fetch_adapter(
    reference: HubReference,
    folder: Path,
    access: Access,
    *,
    on_progress: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> dict[str, Any]:
    """Download one LoRA file, and an image if there is one; returns their paths and what the card
    says.

    `name` is for display: the file's name, or the repository's when the file has a conventional
    name.
    """
    repository = fetch_repository(reference.repo, reference.revision, access)
    file = select_adapter_file(repository, reference.file)
    if file.size > MAX_ADAPTER_BYTES:
        raise HubError(
            "hub_unusable",
            f"{file.path} is larger than {size_text(MAX_ADAPTER_BYTES)}, so it is not an "
            "adapter. Choose another file.",
        )
    image = _find_image(repository)
    config = _find_config(repository, file)
    files = [file, *([image] if image else []), *([config] if config else [])]
    total = sum(row.size for row in files)
    fetch_files(
        repository, files, folder, access, lambda path, done: on_progress(path, done, total)
    )
    card_values = {key: repository.card.get(key) for key in CARD_FACTS}
    return {
        "path": str(folder / file.path),
        "picture": str(folder / image.path) if image else None,
        "config": str(folder / config.path) if config else None,
        "name": repository.name.rpartition("/")[2] + ".safetensors"
        if file.name in ADAPTER_NAMES
        else file.name,
        "commit": repository.commit,
        "card": {
            key: text[:MAX_CARD_TEXT] for key, text in card_values.items() if isinstance(text, str)
        },
    }


def _find_config(repository: Repository, weights: RemoteFile) -> RemoteFile | None:
    """PEFT's settings in the folder of the weights."""
    folder = weights.path.rpartition("/")[0]
    config = repository.files.get(f"{folder}/{CONFIG_NAME}" if folder else CONFIG_NAME)
    return config if config and 0 < config.size <= MAX_CONFIG_BYTES else None


def _find_image(repository: Repository) -> RemoteFile | None:
    images = [
        file
        for _, file in sorted(repository.files.items())
        if file.name.lower().endswith(IMAGE_SUFFIXES) and 0 < file.size <= MAX_IMAGE_BYTES
    ]
    return images[0] if images else None


def publish_adapter(
    repo: str,
    files: Mapping[str, Path],
    card: ModelCard,
    access: Access,
    *,
    private: bool = True,
    update: bool = False,
    guard: CancelGuard | None = None,
) -> dict[str, Any]:
    """Upload files and a model card in one commit; returns `repo`, `url`,
    `commit` and whether the repository is `private`.

    A `repo` without an owner belongs to the owner of the token. An existing repository is refused
    unless `update` is set or it is empty. With `private`, nothing is uploaded to a public one.

    `guard` can cancel it until the commit; a repository that was created for it is then deleted.
    """
    disable_progress_bars()
    guard = guard or CancelGuard()
    api = HfApi(endpoint=access.endpoint, token=access.token)
    if "/" not in repo:
        repo = f"{api.whoami()['name']}/{repo}"
    with guard.step():
        if _create_repository(api, repo, access, private=private, update=update, expected=files):
            guard.undo = partial(api.delete_repo, repo, missing_ok=True)
    text = make_card(card, repo)
    info = api.model_info(repo)  # a private repository is not returned to users without access
    if private and not info.private:
        raise HubError("hub_public", ALREADY_PUBLIC.format(repo=repo, endpoint=access.endpoint))
    before = {row.rfilename for row in info.siblings or []}
    gone = [path for path in before if path.startswith(PUBLISHED_IMAGES) and path not in files]
    added = [CommitOperationAdd(path, str(source)) for path, source in files.items()]
    api.preupload_lfs_files(repo, added, free_memory=False)  # invisible before the commit
    with guard.step():
        done = api.create_commit(
            repo,
            operations=[
                *added,
                CommitOperationAdd("README.md", text.encode()),
                *(CommitOperationDelete(path) for path in gone),
            ],
            commit_message=f"{card.metadata.title}, version {card.version}, by Brushwork",
        )
        guard.is_done = True
    return {
        "repo": repo,
        "url": f"{access.endpoint}/{repo}",
        "commit": done.oid,
        "private": bool(info.private),
    }


def _create_repository(
    api: HfApi, repo: str, access: Access, *, private: bool, update: bool, expected: Collection[str]
) -> bool:
    """Create the repository; True when it is new. An existing one must be published by us.

    It is ours when it was published to before, or when an attempt whose worker was lost created it:
    then it is empty, or (commits are atomic) holds exactly the `expected` files.
    """
    try:
        api.create_repo(repo, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        files = {row.rfilename for row in api.model_info(repo).siblings or []}
        empty, complete = (
            files <= set(HUB_DEFAULT_FILES),
            files - set(HUB_DEFAULT_FILES) == {"README.md", *expected},
        )
        if update or empty or complete:
            return False
        raise HubError(
            "hub_taken",
            f"“{repo}” already exists at {access.endpoint} and was not published by Brushwork. "
            "Choose another name.",
        ) from error
    return True
