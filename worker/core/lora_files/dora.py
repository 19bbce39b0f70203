"""The weight change of a DoRA, which depends on the weights of its base.

W' = m * (W + s BA) / |W + s BA| (Liu et al. 2024, arXiv 2402.09353). The norm is taken per output
(PEFT, and LyCORIS with `wd_on_output`) or per input (older LyCORIS), according to the shape of m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_layout import ModuleLayout
from worker.core.lora_files.keys import Leaf

NEEDS_BASE = (
    "This is a DoRA: the magnitudes of {key} need the weights of the base model that it was "
    "trained on. Add that base model (or pass it with --base), or get a plain LoRA instead."
)


def dora_change(
    module: ModuleLayout,
    parts: Mapping[Leaf, Tensor],
    change: Tensor,
    weights: Callable[[str], Tensor | None] | None,
) -> Tensor:
    """W' - W (out, in) of a module whose plain change is `change` (out, in)."""
    base = weights(module.key) if weights else None
    if base is None or tuple(base.shape) != module.weight_shape:
        raise AdapterError(NEEDS_BASE.format(key=module.key))
    original = base.float()
    moved = original + change.reshape(original.shape)
    magnitude, per_output = _magnitude(parts, original)
    rows = moved.flatten(1) if per_output else moved.transpose(0, 1).flatten(1)
    norms = torch.linalg.vector_norm(rows, dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    shape = [1] * original.dim()
    shape[0 if per_output else 1] = -1
    result: Tensor = moved * (magnitude / norms).reshape(shape) - original
    if not bool(torch.isfinite(result).all()):
        raise AdapterError(f"The weights of {module.key} contain NaN or infinity.")
    return result.flatten(1)


def _magnitude(parts: Mapping[Leaf, Tensor], original: Tensor) -> tuple[Tensor, bool]:
    """(m as one dimension, whether it is per output)."""
    if Leaf.MAGNITUDE in parts:
        return parts[Leaf.MAGNITUDE].flatten(), True
    scale = parts[Leaf.DORA_SCALE]
    per_output = scale.shape[0] == original.shape[0] and scale.numel() == original.shape[0]
    return scale.flatten(), per_output
