"""What a diffusers folder has beside its weights: configs, tokenizers, the noise schedule."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from worker.core.bases.family import BaseFamily
from worker.core.bases.load import COMPONENTS
from worker.core.lora_files.tools.checkpoint import Checkpoint
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
    """The name of a module's tensor in a folder: encoders have `text_model.`, as everywhere."""
    bare = name.startswith(("text_model.", "text_projection"))
    return name if bare or not component.startswith("text_encoder") else f"text_model.{name}"


def write_rest(base: Checkpoint, folder: Path) -> None:
    """Everything but the weights: copied from a folder, told from the shapes of a single file."""
    if base.info.layout == "diffusers":
        _copy(base.info.path, folder)
    else:
        _make(base, folder)


def require_single_file(base: Checkpoint) -> None:
    """Raise ToolError when the single-file layout cannot hold this base."""
    kind, _ = base.source.config("vae")
    if kind != "AutoencoderKL":
        raise ToolError(
            f"This base has an autoencoder of the kind {kind}, which single files of Stable "
            "Diffusion cannot hold. Choose a diffusers folder."
        )


def _copy(source: Path, folder: Path) -> None:
    shutil.copyfile(source / "model_index.json", folder / "model_index.json")
    for part in sorted(path for path in source.iterdir() if path.is_dir()):
        if part.name.startswith("."):
            continue
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            is_ours = part.name in COMPONENTS
            if is_ours and (file.suffix in WEIGHTS or ".index." in file.name):
                continue  # the new weights are in one file, which needs no index
            if file.suffix in WEIGHTS - {".safetensors"}:
                continue
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _make(base: Checkpoint, folder: Path) -> None:
    pipeline = _PIPELINE.get(base.info.family, "StableDiffusionPipeline")
    index: dict[str, Any] = {"_class_name": pipeline}
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
