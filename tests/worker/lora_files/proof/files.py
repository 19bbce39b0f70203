"""Files as other programs write them, built by hand to test the rules of the loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from tests.worker.lora_files.random_adapters import ATTENTION, random_adapter
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.proof.check import ProofInput, check_loader
from worker.core.lora_files.proof.content import FileContent
from worker.core.lora_files.proof.loaders import LOADERS
from worker.core.lora_files.proof.result import LoaderResult

RANK, ALPHA = 4, 8.0
OUTSIDE = ("conv_in", "conv_out", "linear_1", "linear_2", "text_projection", "_embedding")


def attention(key: str) -> bool:
    return key.endswith(ATTENTION)


def everything(key: str) -> bool:
    """True if kohya's networks can contain the layer, which must be inside a block."""
    return not key.endswith(OUTSIDE)


def narrow(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The same names with thin layers, except for the widths that identify the base."""
    thin = {}
    for key, shape in shapes.items():
        text = key.endswith(("attn2.to_k", "attn2.to_v")) or ".self_attn." in key
        thin[key] = (8, shape[1] if text else 8, *shape[2:])
    return thin


@cache
def thin_adapter(
    family: BaseFamily, choose: Callable[[str], bool], **changes: float
) -> LoraAdapter:
    """A random adapter with the real layer names of a family."""
    shapes = narrow(family_shapes(family))
    return random_adapter(shapes, rank=RANK, alpha=ALPHA, choose=choose, **changes)


def mixed(adapter: LoraAdapter) -> LoraAdapter:
    """The adapter with ranks 2, 4 and 8 and alphas 1 and 8, as in resized and LoCon files."""
    modules = []
    for index, module in enumerate(adapter.modules):
        rank = (2, 4, 8)[index % 3]
        size = (1, 1)[: module.down.dim() - 2]
        modules.append(
            replace(
                module,
                down=torch.randn(rank, *module.down.shape[1:]) / 16,
                up=torch.randn(module.up.shape[0], rank, *size) / 10,
                alpha=(8.0, 8.0, 1.0)[index // 3 % 3],
            )
        )
    return replace(adapter, modules=tuple(modules))


def peft_file(adapter: LoraAdapter, *, text_model: bool = True) -> FileContent:
    """The file of diffusers' save_lora_weights; transformers 5 has no `text_model.`."""
    tensors = {}
    for module in adapter.modules:
        path = module.path
        if module.component is Component.TEXT_ENCODER and not text_model:
            path = path.removeprefix("text_model.")
        tensors[f"{module.component}.{path}.lora_A.weight"] = module.down
        tensors[f"{module.component}.{path}.lora_B.weight"] = module.up
    return FileContent(tensors, {"format": "pt"})


def script_file(adapter: LoraAdapter) -> FileContent:
    """The file of the example scripts of diffusers, with transformers 5."""
    tensors = {}
    for module in adapter.modules:
        leaf = "lora" if module.component is Component.DENOISER else "lora_linear_layer"
        stem = f"{module.component}.{module.path.removeprefix('text_model.')}.{leaf}"
        tensors[f"{stem}.down.weight"], tensors[f"{stem}.up.weight"] = module.down, module.up
    return FileContent(tensors, {"format": "pt"})


def util_file(adapter: LoraAdapter) -> FileContent:
    """The file of diffusers' convert_state_dict_to_kohya: alpha is the rank, encoders misnamed."""
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    tensors = {}
    for module in adapter.modules:
        path = module.path
        if module.component is Component.TEXT_ENCODER:
            path = path.removeprefix("text_model.")
        stem = prefixes[module.component] + path.replace(".", "_")
        tensors[f"{stem}.lora_down.weight"] = module.down
        tensors[f"{stem}.lora_up.weight"] = module.up
        tensors[f"{stem}.alpha"] = torch.tensor(module.rank)
    return FileContent(tensors)


def renamed(content: FileContent, old: str, new: str) -> FileContent:
    return FileContent(
        {name.replace(old, new): tensor for name, tensor in content.tensors.items()},
        content.metadata,
    )


def without(content: FileContent, drop: Callable[[str], bool]) -> FileContent:
    kept: dict[str, Tensor] = {n: t for n, t in content.tensors.items() if not drop(n)}
    return FileContent(kept, content.metadata)


def results(
    content: FileContent, adapter: LoraAdapter, family: BaseFamily, *, dtype: str = "fp32"
) -> dict[str, LoaderResult]:
    """The result of every loader for a file, by the name of the loader."""
    subject = ProofInput(content, adapter, "kohya", dtype, family)
    return {loader.name: check_loader(loader, subject) for loader in LOADERS}


def cell(result: LoaderResult) -> tuple[int, int, int, int]:
    """(right, wrong strength, not patched, tensors ignored), as in the measured tables."""
    unpatched = result.missed + result.beyond
    return result.right, result.wrong, unpatched, result.tensors - result.used


def module(key: str, *, size: int = 8, rank: int = RANK) -> LoraModule:
    component, _, path = key.partition(".")
    return LoraModule(
        Component(component), path, torch.randn(rank, size), torch.randn(size, rank), ALPHA
    )
