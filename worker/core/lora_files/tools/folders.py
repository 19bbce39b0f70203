"""The files of a diffusers folder other than weights: configs, tokenizers, noise schedule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from worker.core.bases.family import BaseFamily
from worker.core.bases.load import COMPONENTS
from worker.core.families.adapter_files import files_of
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.core.lora_files.tools.stack import ToolError

WEIGHTS = frozenset(
    {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".onnx_data"}
)
_FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
_PIPELINE = {BaseFamily.SDXL: "StableDiffusionXLPipeline"}


def weight_file(component: str) -> str:
    """The path of a component's weights in a diffusers folder."""
    return f"{component}/{_FILES[component]}"


def tensor_name(component: str, name: str) -> str:
    """The name of a module's tensor in a folder, where encoders have the prefix `text_model.`."""
    bare = name.startswith(("text_model.", "text_projection"))
    return name if bare or not component.startswith("text_encoder") else f"text_model.{name}"


def write_other_files(base: BaseCheckpoint, folder: Path) -> None:
    """Write all files but the weights: copied from a folder, or derived from a single file."""
    if base.info.layout == "diffusers":
        _copy_other_files(base.info.path, folder)
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


def _copy_other_files(source: Path, folder: Path) -> None:
    shutil.copyfile(source / "model_index.json", folder / "model_index.json")
    for part in sorted(path for path in source.iterdir() if path.is_dir()):
        if part.name.startswith("."):
            continue
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            is_ours = part.name in COMPONENTS
            if is_ours and (file.suffix in WEIGHTS or ".index." in file.name):
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
    if base.info.family is BaseFamily.SDXL:
        index["force_zeros_for_empty_prompt"] = True
    else:
        index |= {name: [None, None] for name in ("safety_checker", "feature_extractor")}
        index |= {"image_encoder": [None, None], "requires_safety_checker": False}
    _write_json(folder / "model_index.json", index)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
