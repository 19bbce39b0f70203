"""Which files of a repository are needed; pure, nothing is fetched.

Of a diffusers folder: the components that its model_index.json names and Brushwork uses, weights as
safetensors only and in one variant. Half-precision files (`fp16`) are preferred: they are half the
download, a base stays frozen and is computed in half precision on a GPU anyway, and what fp16 loses
of a weight (11 bits of it are kept) is far below what a training changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from worker.core.hub.errors import HubError
from worker.core.hub.repository import RemoteFile, Repository

Precision = Literal["fp16", "fp32"]

INDEX = "model_index.json"
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
CONFIGS = ("scheduler", "tokenizer", "tokenizer_2")
CONFIG_BYTES = 8 * 2**20  # a tokenizer's tables have about 2 MB
ADAPTER_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
SHOWN_CHOICES = 8
PICKLES = (".ckpt", ".bin", ".pt", ".pth")


def folder_files(
    repository: Repository, index: Mapping[str, Any], precision: Precision
) -> list[RemoteFile]:
    """What a diffusers folder needs, small files first; HubError when it cannot be used."""
    files = repository.files
    wanted = [files[INDEX]]
    for component in (*CONFIGS, *WEIGHTS):
        if not is_named(index, component):
            continue
        inside = [file for path, file in files.items() if path.startswith(f"{component}/")]
        wanted += [file for file in inside if _is_config(file)]
        if component in WEIGHTS:
            wanted += _weights(repository.name, component, inside, precision)
    return sorted(wanted, key=lambda file: (file.size, file.path))


def is_named(index: Mapping[str, Any], component: str) -> bool:
    """True when a model_index.json says that the pipeline has this component."""
    named = index.get(component)
    return isinstance(named, list) and bool(named) and named[0] is not None


def _is_config(file: RemoteFile) -> bool:
    return file.path.count("/") == 1 and (
        file.name in ("merges.txt", "vocab.json")
        or (file.name.endswith(".json") and ".index." not in file.name)
    )


def _weights(
    name: str, component: str, inside: Iterable[RemoteFile], precision: Precision
) -> list[RemoteFile]:
    """The weights of one component in one variant, whole or in shards with their index."""
    inside = list(inside)
    stem = re.escape(WEIGHTS[component])
    variants = ("fp16", "") if precision == "fp16" else ("", "fp16")
    for variant in variants:
        dotted = re.escape(f".{variant}") if variant else ""
        whole = re.compile(rf"{component}/{stem}{dotted}\.safetensors")
        shard = re.compile(
            rf"{component}/{stem}({dotted}-\d+-of-\d+|-\d+-of-\d+{dotted})\.safetensors"
        )
        index = re.compile(
            rf"{component}/{stem}({dotted}\.safetensors\.index|\.safetensors\.index{dotted})\.json"
        )
        if found := [file for file in inside if whole.fullmatch(file.path)]:
            return found
        if found := [file for file in inside if shard.fullmatch(file.path)]:
            return found + [file for file in inside if index.fullmatch(file.path)]
    if any(file.name.endswith(PICKLES) for file in inside):
        raise HubError(
            "hub_unusable",
            f"“{name}” has its {component} only as a PyTorch pickle, which can run code when it is "
            "opened. Choose a model whose files are .safetensors.",
        )
    raise HubError(
        "hub_unusable", f"“{name}” is incomplete: its {component} has no .safetensors weights."
    )


def single_file(repository: Repository, wanted: str | None) -> RemoteFile:
    """The `.safetensors` file that was named, or the only one at the root."""
    if wanted is not None:
        return _named(repository, wanted)
    if any(path.rpartition("/")[2] in ADAPTER_NAMES for path in repository.files):
        raise HubError(
            "hub_unusable",
            f"“{repository.name}” is an adapter, not a base model: import it among the adapters.",
        )
    return _only(repository, lambda path: "/" not in path, "a base model")


def adapter_file(repository: Repository, wanted: str | None) -> RemoteFile:
    """The LoRA file that was named, the one with a name by convention, or the only one."""
    if wanted is not None:
        return _named(repository, wanted)
    if INDEX in repository.files:
        raise HubError(
            "hub_unusable",
            f"“{repository.name}” is a base model, not an adapter: add it among the base models.",
        )
    for name in ADAPTER_NAMES:
        if name in repository.files:
            return repository.files[name]
    return _only(repository, lambda _path: True, "an adapter")


def _named(repository: Repository, wanted: str) -> RemoteFile:
    if not wanted.endswith(".safetensors"):
        raise HubError("hub_unusable", f"Only .safetensors files are read, and {wanted} is none.")
    found = repository.files.get(wanted)
    if found is None:
        raise HubError("hub_not_found", f"“{repository.name}” has no file {wanted}.")
    return found


def _only(repository: Repository, admits: Callable[[str], bool], what: str) -> RemoteFile:
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
            "hub_choice",
            f"“{name}” has several files: {choices}{more}. Say which: {name}/{found[0].path}",
        )
    if any(path.endswith(PICKLES) for path in repository.files):
        raise HubError(
            "hub_unusable",
            f"“{name}” has only PyTorch pickles, which can run code when they are opened. "
            "Brushwork reads .safetensors files.",
        )
    raise HubError("hub_unusable", f"“{name}” holds nothing that could be {what}.")
