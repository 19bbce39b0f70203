"""The difference of two checkpoints as an adapter: each layer by the nearest change of a rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worker.core.bases.family import BaseModelError
from worker.core.lora_files.canonical import Adapter, Component
from worker.core.lora_files.header import HeaderError
from worker.core.lora_files.tools.checkpoint import Checkpoint, Name
from worker.core.lora_files.tools.combine import Progress, check_rank
from worker.core.lora_files.tools.lowrank import Kept, Report, lora, of_matrix
from worker.core.lora_files.tools.stack import ToolError


@dataclass(frozen=True, eq=False)
class Extracted:
    """The adapter, how near it is, and what it cannot hold.

    `unchanged`: layers that do not differ; `beyond`: norms, biases and embeddings that do differ,
    which no LoRA can change.
    """

    adapter: Adapter
    report: Report
    unchanged: int
    beyond: int


def extract(
    base: Path,
    tuned: Path,
    rank: int,
    *,
    on_layer: Progress = lambda done, total: None,
) -> Extracted:
    """What `tuned` has learned since `base`, as an adapter of `rank`; one layer is read at a time.

    Both are diffusers folders or single files of one architecture. The autoencoder is not looked
    at. `on_layer(done, total)` may raise to stop. Raises ToolError or BaseModelError.
    """
    check_rank(rank)
    try:
        with Checkpoint(base) as before, Checkpoint(tuned) as after:
            _check_same(before, after)
            return _extract(before, after, rank, on_layer)
    except HeaderError as error:
        raise BaseModelError(str(error)) from error


def _extract(before: Checkpoint, after: Checkpoint, rank: int, on_layer: Progress) -> Extracted:
    shapes = before.target_shapes
    most = max(min(shape[0], torch.Size(shape[1:]).numel()) for shape in shapes.values())
    rank = min(rank, most)
    modules, kept = [], []
    for done, key in enumerate(sorted(shapes), start=1):
        change = _change(before, after, before.targets[key])
        if change is not None:
            component, _, path = key.partition(".")
            spectrum = of_matrix(change.flatten(1), directions=rank)
            up, down = spectrum.factors(rank)
            modules.append(lora(Component(component), path, up, down, shapes[key]))
            kept.append(Kept(key, rank, spectrum.kept(rank), spectrum.energy))
        on_layer(done, len(shapes))
    beyond = _beyond(before, after)
    if not modules:
        more = f" ({beyond} norms, biases or embeddings do, which no LoRA can hold)"
        raise ToolError(
            "The two checkpoints do not differ in any layer that a LoRA can change"
            f"{more if beyond else ''}."
        )
    unchanged = len(shapes) - len(modules)
    return Extracted(Adapter(tuple(modules)), Report(tuple(kept)), unchanged, beyond)


def _change(before: Checkpoint, after: Checkpoint, name: Name) -> Tensor | None:
    """tuned - base in fp32; None when they are the same but for the rounding of a number type."""
    old, new = before.read(name), after.read(name)
    if any(torch.equal(old.to(dtype), new.to(dtype)) for dtype in {old.dtype, new.dtype}):
        return None
    change = new.float() - old.float()
    if not bool(torch.isfinite(change).all()):
        raise ToolError(f"The weights of {'.'.join(name)} are not all finite numbers.")
    return change


def _beyond(before: Checkpoint, after: Checkpoint) -> int:
    targets = set(before.targets.values())
    others = [n for n in before.tensors if n not in targets and n[0] != "vae"]
    return sum(_change(before, after, name) is not None for name in others)


def _check_same(before: Checkpoint, after: Checkpoint) -> None:
    if before.info.family is not after.info.family:
        raise ToolError(
            f"The base is an {before.info.family.label} model and the tuned one an "
            f"{after.info.family.label} model; only checkpoints of one architecture differ by an "
            "adapter."
        )
    shapes, others = before.target_shapes, after.target_shapes
    if shapes == others:
        return
    differing = sorted(k for k in shapes.keys() | others.keys() if shapes.get(k) != others.get(k))
    first = differing[0]
    raise ToolError(
        "The two checkpoints are not of one architecture: "
        f"{first} {_said(shapes.get(first))} in the base and {_said(others.get(first))} in the "
        f"tuned one ({len(differing)} layers differ)."
    )


def _said(shape: tuple[int, ...] | None) -> str:
    return "is missing" if shape is None else f"is {' × '.join(str(size) for size in shape)}"
