"""Writes bases with random weights to disk: by default with the shapes of Stable Diffusion 1.5."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.bases import RANDOM_BLOCK, SCHEDULE, SD15_TEXT, SD15_UNET, sd15_vae
from worker.core.bases.tokenizer import clip_tokenizer
from worker.core.bases.weights import build_module
from worker.core.families.family import BaseFamily
from worker.core.families.stable_diffusion.names import FILES
from worker.core.lora_files.tools.ldm_names import LdmTensor, ldm_names
from worker.core.lora_files.tools.stream import TensorItem, write_tensors

Components = Mapping[str, tuple[str, Mapping[str, Any], str]]
"""By component: the class, its config, and the name of its weight file."""

SD15: Components = {
    "unet": ("UNet2DConditionModel", SD15_UNET | {"in_channels": 4}, "diffusion_pytorch_model"),
    "vae": ("AutoencoderKL", sd15_vae(), "diffusion_pytorch_model"),
    "text_encoder": (
        "CLIPTextModel",
        SD15_TEXT | {"bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 1},
        "model",
    ),
}


def write_folder(folder: Path, dtype: torch.dtype, components: Components = SD15) -> Path:
    """A diffusers folder with weights of this number type: 4.3 GB in fp32, one tensor in memory."""
    for name, (kind, config, stem) in components.items():
        module = build_module(kind, dict(config))
        items = [
            _item(tensor_name, tensor.shape, dtype)
            for tensor_name, tensor in module.state_dict().items()
        ]
        (folder / name).mkdir(parents=True)
        write_tensors(folder / name / f"{stem}.safetensors", items, metadata={"format": "pt"})
        stated = {"architectures": [kind]} if name == "text_encoder" else {"_class_name": kind}
        _write_json(folder / name / "config.json", {**config, **stated})
    clip_tokenizer(length=77, pad="<|endoftext|>").save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    scheduler = SCHEDULE | {"_class_name": "DDIMScheduler", "set_alpha_to_one": False}
    _write_json(folder / "scheduler/scheduler_config.json", scheduler)
    _write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    return folder


def write_single_file(path: Path, dtype: torch.dtype, components: Components = SD15) -> Path:
    """The same in one file with the names of the original implementation."""
    shapes = {
        name: _shapes(build_module(kind, dict(config)))
        for name, (kind, config, _) in components.items()
    }
    single_file = FILES[BaseFamily.SD1].single_file
    assert single_file is not None
    names = ldm_names(shapes, open_clip=(), prefixes=single_file.encoders)
    items = [
        _item_in_file(names.of(component, name), shape, dtype)
        for component, known in shapes.items()
        for name, shape in known.items()
    ]
    write_tensors(path, items, metadata={"modelspec.resolution": "512x512"})
    return path


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _item_in_file(place: LdmTensor, shape: Iterable[int], dtype: torch.dtype) -> TensorItem:
    shape = tuple(shape)
    return _item(place.name, (*shape, 1, 1) if place.square else shape, dtype)


def _item(name: str, shape: Iterable[int], dtype: torch.dtype) -> TensorItem:
    shape = tuple(shape)
    return TensorItem(name, dtype, shape, partial(_random_weight, name, shape))


def _random_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values of the usual size, from one block of numbers: 860 M draws take too long."""
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
    count = math.prod(shape)
    repeated = _random_block()[:count].repeat(-(-count // RANDOM_BLOCK))[:count]
    return repeated.view(shape).mul_(1 / math.sqrt(math.prod(shape[1:])))


@cache
def _random_block() -> Tensor:
    return torch.randn(RANDOM_BLOCK, generator=torch.Generator().manual_seed(0))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content)))
