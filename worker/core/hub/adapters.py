"""Adapters from the Hub and to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from worker.core.hub.card import CardFacts, card
from worker.core.hub.errors import Access, HubError
from worker.core.hub.models import Wanted
from worker.core.hub.repository import RemoteFile, Repository, look_up
from worker.core.hub.selection import ADAPTER_NAMES, adapter_file
from worker.core.hub.transfer import fetch
from worker.core.hub.undoing import Undoing

MAX_ADAPTER_BYTES = 2 * 2**30
MAX_PICTURE_BYTES = 16 * 2**20
MAX_CARD_TEXT = 200
CARD_FACTS = ("license", "license_name", "instance_prompt")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PUBLISHED_PICTURES = "images/"
OWN = (".gitattributes",)  # what a repository that was just made has
PUBLIC = (
    "“{repo}” is public, and this was to be private, so nothing was uploaded. Make it private at "
    "{endpoint}/{repo}/settings, choose another name, or publish it without “Private”."
)


def fetch_adapter(
    wanted: Wanted,
    folder: Path,
    access: Access,
    *,
    tell: Callable[[str, int, int], None] = lambda _path, _done, _total: None,
) -> dict[str, Any]:
    """Fetch one LoRA file, and a picture when there is one: where they are, and what is said of it.

    `name` is one for people: of the file, or of the repository when the file's is by convention.
    """
    repository = look_up(wanted.repo, wanted.revision, access)
    file = adapter_file(repository, wanted.file)
    if file.size > MAX_ADAPTER_BYTES:
        raise HubError("hub_unusable", f"{file.path} is larger than 2 GB, which no adapter is.")
    picture = _picture(repository)
    files = [file, *([picture] if picture else [])]
    total = sum(row.size for row in files)
    fetch(repository, files, folder, access, lambda path, done: tell(path, done, total))
    said = {key: repository.card.get(key) for key in CARD_FACTS}
    return {
        "path": str(folder / file.path),
        "picture": str(folder / picture.path) if picture else None,
        "name": repository.name.rpartition("/")[2] + ".safetensors"
        if file.name in ADAPTER_NAMES
        else file.name,
        "commit": repository.commit,
        "card": {key: text[:MAX_CARD_TEXT] for key, text in said.items() if isinstance(text, str)},
    }


def _picture(repository: Repository) -> RemoteFile | None:
    pictures = [
        file
        for _, file in sorted(repository.files.items())
        if file.name.lower().endswith(PICTURES) and 0 < file.size <= MAX_PICTURE_BYTES
    ]
    return pictures[0] if pictures else None


def publish(
    repo: str,
    files: Mapping[str, Path],
    facts: CardFacts,
    access: Access,
    *,
    private: bool = True,
    update: bool = False,
    undoing: Undoing | None = None,
) -> dict[str, Any]:
    """Put files and a model card made of the facts into a repository of the Hub, in one commit.

    `repo` without an owner is one of whoever the token belongs to. A repository that exists is
    refused unless `update` allows it or it is empty, and nothing is uploaded to a public one when
    `private` is asked for. Gives its `repo`, `url`, `commit`, and whether it is `private` in truth.

    By `undoing` it can be canceled until the commit: a repository made for it is then deleted.
    """
    disable_progress_bars()
    undoing = undoing or Undoing()
    api = HfApi(endpoint=access.endpoint, token=access.token)
    if "/" not in repo:
        repo = f"{api.whoami()['name']}/{repo}"
    with undoing.whole():
        if _make(api, repo, access, private=private, update=update, ours=files):
            undoing.undo = partial(api.delete_repo, repo, missing_ok=True)
    text = card(facts, repo)
    there = api.model_info(repo)  # who asks for a private one is not given what exists unseen
    if private and not there.private:
        raise HubError("hub_public", PUBLIC.format(repo=repo, endpoint=access.endpoint))
    before = {row.rfilename for row in there.siblings or []}
    gone = [path for path in before if path.startswith(PUBLISHED_PICTURES) and path not in files]
    added = [CommitOperationAdd(path, str(source)) for path, source in files.items()]
    api.preupload_lfs_files(repo, added, free_memory=False)  # seen by nobody before the commit
    with undoing.whole():
        done = api.create_commit(
            repo,
            operations=[
                *added,
                CommitOperationAdd("README.md", text.encode()),
                *(CommitOperationDelete(path) for path in gone),
            ],
            commit_message=f"{facts.name}, version {facts.version}, by Brushwork",
        )
        undoing.is_done = True
    return {
        "repo": repo,
        "url": f"{access.endpoint}/{repo}",
        "commit": done.oid,
        "private": bool(there.private),
    }


def _make(
    api: HfApi, repo: str, access: Access, *, private: bool, update: bool, ours: Collection[str]
) -> bool:
    """Create the repository, True when it was not there; one that is has to be ours.

    It is when it was published to before, or when an attempt whose worker was lost made it: then it
    is empty, or as a commit is whole or not at all, it holds all `ours` and nothing else.
    """
    try:
        api.create_repo(repo, private=private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        files = {row.rfilename for row in api.model_info(repo).siblings or []}
        empty, complete = files <= set(OWN), files - set(OWN) == {"README.md", *ours}
        if update or empty or complete:
            return False
        raise HubError(
            "hub_taken",
            f"There is a “{repo}” at {access.endpoint} already, and it was not published from "
            "here. Choose another name.",
        ) from error
    return True
