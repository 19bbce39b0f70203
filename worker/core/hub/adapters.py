"""Download adapters from the Hub, and publish them with a model card."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from worker.core.hub.errors import Access, HubError
from worker.core.hub.messages import PEFT_FILE, ModelCard
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
TAGS = ("text-to-image", "lora", "diffusers", "template:diffusion-lora")
# the Hub's identifiers of licenses that people use for adapters; any other becomes `other`
LICENSES = (
    "apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "bsd-3-clause", "gpl-3.0", "agpl-3.0", "unlicense", "wtfpl",
)  # fmt: skip
UNKNOWN_BASE = "path/of/the/base-model"


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
            f"{file.path} is larger than {size_text(MAX_ADAPTER_BYTES)}, so it is not an "
            "adapter. Choose another file."
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


class CancelGuard:
    """Undoes what a request began when it is canceled before it is complete.

    A lock between a cancel and steps that must not be interrupted: each waits for the other.

    `undo` reverts what was begun so far; `is_done` means that nothing is left to cancel.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.undo: Callable[[], None] | None = None
        self.is_done = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step that completes even when a cancel arrives meanwhile."""
        with self._lock:
            yield

    def cancel(self) -> bool:
        """Undo what was begun and allow no further step. False when all work is complete."""
        self._lock.acquire()  # never released: a step that waits for it must not begin
        if self.is_done:
            self._lock.release()
            return False
        if self.undo is not None:
            self.undo()
        return True


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
        raise HubError(ALREADY_PUBLIC.format(repo=repo, endpoint=access.endpoint), "hub_public")
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
            f"“{repo}” already exists at {access.endpoint} and was not published by Brushwork. "
            "Choose another name.",
            "hub_taken",
        ) from error
    return True


def make_card(card: ModelCard, repo: str) -> str:
    """The README.md of the repository `repo`."""
    parts = [
        f"---\n{_front_matter(card)}\n---",
        f"# {_one_line(card.metadata.title)}",
        card.metadata.description.strip(),
        "<Gallery />" if card.pictures else "",
        _trigger_section(card),
        f"## Facts\n\n{_facts_table(card)}",
        _usage_section(card, repo),
        "Published with Brushwork.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: ModelCard) -> str:
    metadata = card.metadata
    license = metadata.license.strip().lower().replace(" ", "-")
    values: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": list(dict.fromkeys([*TAGS, metadata.family.facts.hub_tag, *metadata.tags])),
    }
    values["tags"] = [tag for tag in values["tags"] if tag]
    if card.base_model:
        values |= {"base_model": card.base_model, "base_model_relation": "adapter"}
    if card.metadata.trigger_words:
        values["instance_prompt"] = _one_line(", ".join(card.metadata.trigger_words))
    if license in LICENSES:
        values["license"] = license
    elif license:
        values |= {"license": "other", "license_name": _one_line(card.metadata.license)}
    if card.pictures:
        values["widget"] = [
            {"text": _one_line(prompt) or " ", "output": {"url": path}}
            for path, prompt in card.pictures
        ]
    return str(ModelCardData(**values).to_yaml())


def _trigger_section(card: ModelCard) -> str:
    if not card.metadata.trigger_words:
        return "## Trigger words\n\nNo trigger word is needed."
    words = ", ".join(f"`{_escape_code(word)}`" for word in card.metadata.trigger_words)
    return f"## Trigger words\n\nWrite {words} in the prompt."


def _facts_table(card: ModelCard) -> str:
    base = card.base_model or card.metadata.base_name
    family = card.metadata.family.facts.label
    rows = [
        ("Base", f"{_one_line(base)} ({family})" if base else family),
        ("Rank, alpha", f"{card.rank}, {card.alpha:g}"),
        ("Parameters", f"{card.trained:,}" if card.trained else None),
        ("Training steps", f"{card.steps:,}" if card.steps else None),
        ("Training images", f"{card.metadata.images:,}" if card.metadata.images else None),
        ("Resolution", f"{card.metadata.resolution} px" if card.metadata.resolution else None),
        ("Prediction", "v" if card.metadata.predicts_v else None),
        ("Measured weights", _one_line(" ".join(card.metadata.card_words)) or None),
        ("License", _one_line(card.metadata.license) or None),
        ("Version", str(card.version)),
    ]
    lines = [f"| {label} | {_escape_cell(value)} |" for label, value in rows if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _usage_section(card: ModelCard, repo: str) -> str:
    stem = card.kohya_file.removesuffix(".safetensors")
    prompt = ", ".join(["a fox", *card.metadata.trigger_words])
    return f"""## Usage

With diffusers:

```python
import torch
from diffusers import AutoPipelineForText2Image

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = AutoPipelineForText2Image.from_pretrained({card.base_model or UNKNOWN_BASE!r}).to(device)
pipe.load_lora_weights({repo!r}, weight_name={PEFT_FILE!r}, adapter_name="style")
pipe.set_adapters("style", {card.metadata.usual_weight:g})
pipe({_one_line(prompt)!r}).images[0].save("image.png")
```

With ComfyUI, A1111, Forge, InvokeAI and other programs that read the kohya format: put
[{card.kohya_file}]({card.kohya_file}) into the LoRA folder. In A1111 and Forge, write
`<lora:{_escape_code(stem)}:{card.metadata.usual_weight:g}>` in the prompt."""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_code(text: str) -> str:
    return _one_line(text).replace("`", "'")


def _escape_cell(text: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", text)
