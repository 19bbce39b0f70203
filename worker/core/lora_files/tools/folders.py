"""The files of a diffusers folder other than weights: configs, tokenizers, noise schedule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from worker.core.families.adapter_files import files_of
from worker.core.families.folder import weight_stem
from worker.core.families.folders import folder_of
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.core.lora_files.tools.stack import ToolError

WEIGHTS = frozenset(
    {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".onnx_data"}
)


def weight_file(base: BaseCheckpoint, component: str) -> str:
    """The path of a component's weights in a diffusers folder."""
    folder = folder_of(base.info.family).folders[component]
    return f"{folder}/{weight_stem(folder)}.safetensors"


def tensor_name(component: str, name: str) -> str:
    """The name of a module's tensor in a folder, where encoders have the prefix `text_model.`."""
    bare = name.startswith(("text_model.", "text_projection"))
    return name if bare or not component.startswith("text_encoder") else f"text_model.{name}"


def write_other_files(base: BaseCheckpoint, folder: Path) -> None:
    """Write all files but the weights: copied from a folder, or derived from a single file."""
    if base.info.layout == "diffusers":
        _copy_other_files(base, folder)
    else:
        _create_other_files(base, folder)


def require_single_file(base: BaseCheckpoint) -> None:
    """Raise ToolError if this base cannot be stored as a single file."""
    kind, _ = base.source.config("vae")
    if kind != "AutoencoderKL":
        raise ToolError(
            f"This base has a VAE of the type {kind}, which a single file of Stable Diffusion "
            "cannot contain. Choose a diffusers folder."
        )


def _copy_other_files(base: BaseCheckpoint, folder: Path) -> None:
    source, ours = base.info.path, set(folder_of(base.info.family).folders.values())
    shutil.copyfile(source / "model_index.json", folder / "model_index.json")
    for part in sorted(path for path in source.iterdir() if path.is_dir()):
        if part.name.startswith("."):
            continue
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            if part.name in ours and (file.suffix in WEIGHTS or ".index." in file.name):
                continue  # the new weights are in one file without an index
            if file.suffix in WEIGHTS - {".safetensors"}:
                continue
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _create_other_files(base: BaseCheckpoint, folder: Path) -> None:
    single = files_of(base.info.family).single_file
    assert single is not None  # the base is one
    index: dict[str, Any] = {"_class_name": single.pipeline}
    for component in base.modules:
        kind, config = base.source.config(component)
        is_text = component.startswith("text_encoder")
        if is_text:
            config = {**config, "architectures": [kind], "model_type": "clip_text_model"}
            tokenizer = component.replace("text_encoder", "tokenizer")
            base.source.tokenizer(component).save_pretrained(folder / tokenizer)
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
        else:
            config = {**config, "_class_name": kind}
        index[component] = ["transformers" if is_text else "diffusers", kind]
        _write_json(folder / component / "config.json", config)
    scheduler = base.source.scheduler_config()
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(folder / "model_index.json", {**index, **single.index})


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
