"""Extracting the difference of two checkpoints as an adapter of a given rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worker.core.bases.family import BaseModelError
from worker.core.families.family import Component
from worker.core.lora_files.compatible import shape_text
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint, TensorName
from worker.core.lora_files.tools.combine import Progress, ToolResult, check_rank
from worker.core.lora_files.tools.lowrank import lowrank_module, spectrum_of_matrix
from worker.core.lora_files.tools.stack import ToolError
from worker.core.safetensors_header import HeaderError


@dataclass(frozen=True, eq=False)
class ExtractResult(ToolResult):
    """The adapter, how close it is to the exact difference, and what it cannot contain.

    `unchanged`: the number of layers that do not differ; `beyond`: that of norms, biases and
    embeddings that differ, which a LoRA cannot change.
    """

    unchanged: int
    beyond: int


def extract_adapter(
    base: Path,
    tuned: Path,
    rank: int,
    *,
    on_layer: Progress = lambda done, total: None,
) -> ExtractResult:
    """The difference of `tuned` and `base` as an adapter of `rank`; one layer is read at a time.

    Both are diffusers folders or single files of the same architecture. The VAE is ignored.
    `on_layer(done, total)` may raise to stop. Raises ToolError or BaseModelError.
    """
    check_rank(rank)
    try:
        with BaseCheckpoint(base) as before, BaseCheckpoint(tuned) as after:
            _check_architecture(before, after)
            return _extract_layers(before, after, rank, on_layer)
    except HeaderError as error:
        raise BaseModelError(str(error)) from error


def _extract_layers(
    before: BaseCheckpoint, after: BaseCheckpoint, rank: int, on_layer: Progress
) -> ExtractResult:
    shapes = before.target_shapes
    most = max(min(shape[0], torch.Size(shape[1:]).numel()) for shape in shapes.values())
    rank = min(rank, most)
    found = []
    for done, key in enumerate(sorted(shapes), start=1):
        change = _weight_change(before, after, before.targets[key])
        if change is not None:
            component, _, path = key.partition(".")
            spectrum = spectrum_of_matrix(change.flatten(1), directions=rank)
            found.append(lowrank_module(Component(component), path, spectrum, rank, shapes[key]))
        on_layer(done, len(shapes))
    beyond = _count_unsupported(before, after)
    if not found:
        more = f" ({beyond} norms, biases or embeddings differ, which a LoRA cannot change)"
        raise ToolError(
            "The two checkpoints do not differ in any layer that a LoRA can change"
            f"{more if beyond else ''}."
        )
    result = ToolResult.of(found, {})
    return ExtractResult(result.adapter, result.report, len(shapes) - len(found), beyond)


def _weight_change(
    before: BaseCheckpoint, after: BaseCheckpoint, name: TensorName
) -> Tensor | None:
    """tuned - base in fp32; None if they differ only by the rounding of a number type."""
    old, new = before.read(name), after.read(name)
    if any(torch.equal(old.to(dtype), new.to(dtype)) for dtype in {old.dtype, new.dtype}):
        return None
    change = new.float() - old.float()
    if not bool(torch.isfinite(change).all()):
        raise ToolError(f"The weights of {'.'.join(name)} contain NaN or infinity.")
    return change


def _count_unsupported(before: BaseCheckpoint, after: BaseCheckpoint) -> int:
    targets = set(before.targets.values())
    others = [n for n in before.tensors if n not in targets and n[0] != "vae"]
    return sum(_weight_change(before, after, name) is not None for name in others)


def _check_architecture(before: BaseCheckpoint, after: BaseCheckpoint) -> None:
    if before.info.family is not after.info.family:
        raise ToolError(
            f"The base is an {before.info.family.label} model and the tuned model an "
            f"{after.info.family.label} model. Choose two checkpoints of the same architecture."
        )
    shapes, others = before.target_shapes, after.target_shapes
    if shapes == others:
        return
    differing = sorted(k for k in shapes.keys() | others.keys() if shapes.get(k) != others.get(k))
    first = differing[0]
    raise ToolError(
        "The two checkpoints have different architectures: "
        f"{first} {_shape_text(shapes.get(first))} in the base and "
        f"{_shape_text(others.get(first))} in the tuned model ({len(differing)} layers differ)."
    )


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "is missing" if shape is None else f"is {shape_text(shape)}"
