"""Selects the files of a repository to download; pure functions without network.

From a diffusers folder: the components that model_index.json names and Brushwork uses, with weights
as safetensors in one variant. fp16 files are preferred: they halve the download, a frozen base is
computed in half precision on a GPU anyway, and fp16 rounding (11 significant bits) is far smaller
than what training changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from worker.core.families.folder import INDEX, BaseModelError, class_in, weight_stem
from worker.core.families.folders import folder_kind
from worker.core.hub.errors import HubError
from worker.core.hub.repository import RemoteFile, Repository

Precision = Literal["fp16", "fp32"]

CONFIGS = ("scheduler", "tokenizer", "tokenizer_2")
ADAPTER_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
SHOWN_CHOICES = 8
PICKLES = (".ckpt", ".bin", ".pt", ".pth")
UNUSABLE = {
    PICKLES: "PyTorch pickles, which can run code when they are opened",
    (".gguf",): "GGUF files, whose weights are rounded",
}
"""Endings of files that are not used, and what they are."""


def select_folder_files(
    repository: Repository, index: Mapping[str, Any], precision: Precision
) -> list[RemoteFile]:
    """The files of a diffusers folder to download, small ones first; HubError when it cannot be
    used."""
    try:
        kind = folder_kind(index)
    except BaseModelError as error:
        raise HubError(str(error)) from error
    files = repository.files
    selected = [files[INDEX]]
    weights = set(kind.folders.values())
    for folder in (*CONFIGS, *kind.folders.values()):
        if class_in(index, folder) is None:
            continue
        inside = [file for path, file in files.items() if path.startswith(f"{folder}/")]
        selected += [file for file in inside if _is_config(file)]
        if folder in weights:
            selected += _select_weights(repository.name, folder, inside, precision)
    return sorted(selected, key=lambda file: (file.size, file.path))


def _is_config(file: RemoteFile) -> bool:
    return file.path.count("/") == 1 and (
        file.name in ("merges.txt", "vocab.json", "chat_template.jinja")
        or (file.name.endswith(".json") and ".index." not in file.name)
    )


def _select_weights(
    name: str, folder: str, inside: Iterable[RemoteFile], precision: Precision
) -> list[RemoteFile]:
    """The weights of one component in one variant."""
    inside = list(inside)
    variants = ("fp16", "") if precision == "fp16" else ("", "fp16")
    if found := find_weights(inside, f"{folder}/{weight_stem(folder)}", variants):
        return found
    refuse_pickles(f"The {folder} of “{name}”", inside)
    raise HubError(
        f"“{name}” is incomplete: its {folder} has no .safetensors weights. Choose another."
    )


def find_weights(
    files: Iterable[RemoteFile], stem: str, variants: Iterable[str] = ("",)
) -> list[RemoteFile]:
    """The weights with this path, in the first of these variants: one file, or shards with their
    index; empty if there are none."""
    files = list(files)
    stem = re.escape(stem)
    for variant in variants:
        dotted = re.escape(f".{variant}") if variant else ""
        whole = re.compile(rf"{stem}{dotted}\.safetensors")
        shard = re.compile(rf"{stem}({dotted}-\d+-of-\d+|-\d+-of-\d+{dotted})\.safetensors")
        index = re.compile(
            rf"{stem}({dotted}\.safetensors\.index|\.safetensors\.index{dotted})\.json"
        )
        if found := [file for file in files if whole.fullmatch(file.path)]:
            return found
        if found := [file for file in files if shard.fullmatch(file.path)]:
            return found + [file for file in files if index.fullmatch(file.path)]
    return []


def refuse_pickles(what: str, files: Iterable[RemoteFile]) -> None:
    """Raise HubError if the weights of `what` are among these files, in a format not opened."""
    if any(file.name.endswith(PICKLES) for file in files):
        raise HubError(
            f"{what} is only a PyTorch pickle, which can run code when it is opened. Choose a "
            "model with .safetensors files."
        )


def select_single_file(repository: Repository, file_name: str | None) -> RemoteFile:
    """The named `.safetensors` file, or the only one in the root folder."""
    if file_name is not None:
        return _find_file(repository, file_name)
    if any(path.rpartition("/")[2] in ADAPTER_NAMES for path in repository.files):
        raise HubError(
            f"“{repository.name}” is an adapter, not a base model. Import it under Adapters."
        )
    return _find_only_file(repository, lambda path: "/" not in path, "a base model")


def select_adapter_file(repository: Repository, file_name: str | None) -> RemoteFile:
    """The named LoRA file, the one with a conventional name, or the only one."""
    if file_name is not None:
        return _find_file(repository, file_name)
    if INDEX in repository.files:
        raise HubError(
            f"“{repository.name}” is a base model, not an adapter. Add it under Base models."
        )
    for name in ADAPTER_NAMES:
        if name in repository.files:
            return repository.files[name]
    return _find_only_file(repository, lambda _path: True, "an adapter")


def _find_file(repository: Repository, file_name: str) -> RemoteFile:
    if not file_name.endswith(".safetensors"):
        raise HubError(f"{file_name} is not a .safetensors file. Name one that is.")
    found = repository.files.get(file_name)
    if found is None:
        raise HubError(
            f"“{repository.name}” has no file {file_name}. Check the name.", "hub_not_found"
        )
    return found


def _find_only_file(repository: Repository, admits: Callable[[str], bool], what: str) -> RemoteFile:
    name = repository.name
    found = [
        file
        for path, file in sorted(repository.files.items())
        if path.endswith(".safetensors") and admits(path)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(file.path for file in found[:SHOWN_CHOICES])
        more = f" and {len(found) - SHOWN_CHOICES} more" if len(found) > SHOWN_CHOICES else ""
        raise HubError(
            f"“{name}” has several files: {choices}{more}. Choose one: {name}/{found[0].path}",
            "hub_choice",
        )
    for endings, files in UNUSABLE.items():
        if any(path.endswith(endings) for path in repository.files):
            raise HubError(
                f"“{name}” has only {files}. Choose a repository with .safetensors files."
            )
    raise HubError(f"“{name}” does not contain {what}. Choose another repository.")
