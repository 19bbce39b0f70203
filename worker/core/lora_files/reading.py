"""Reading any adapter file in the canonical form, with notes on everything that is not exact.

The layout is read from the header (`file_layout.py`), then one module at a time: plain LoRAs
unchanged, LoHa and LoKr as the LoRA with the same product if its rank is low enough, everything
else as the best LoRA of a limited rank, with a measured error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files import algebra
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, check_adapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_layout import (
    ExtraKind,
    FileLayout,
    ModuleLayout,
    conversion_rank_limit,
    is_plain,
    read_layout,
)
from worker.core.lora_files.import_notes import (
    OVERFLOW,
    ConversionLoss,
    file_notes,
    loss_notes,
    require_small_loss,
)
from worker.core.lora_files.keys import Leaf, parse_tensor_name
from worker.core.lora_files.parametrizations import ParametrizationKind
from worker.core.wording import plural

BaseWeights = Callable[[str], Tensor | None]
"""Returns the base's weight of a module by its key, fp32; None if the base lacks the layer."""

MAX_WEIGHT = 1e9  # products of larger numbers may overflow fp32; MAX_NORM catches the rest
ZERO_ALPHA = (
    "Alpha is 0 in {modules} and was read as the rank (strength 1), as in kohya. In most other "
    "programs, the original file has no effect there."
)
NO_EFFECT = "All changes in the file are 0: it has no effect at any weight."
# relative rounding of numbers of which a full difference is the only record
_ROUNDINGS = {"F16": 2**-11, "BF16": 2**-8, "F8_E4M3": 2**-8, "F8_E5M2": 2**-8}
NEEDS_BASE = (
    "This is a DoRA: the magnitudes of {key} need the weights of the base model that it was "
    "trained on. Add that base model (or pass it with --base), or get a plain LoRA instead."
)


@dataclass(frozen=True)
class AdapterReading:
    """An adapter, the layout of its file, and sentences about what was converted.

    `loss`: the norm of all that was truncated or left out, relative to that of the whole change.
    """

    adapter: LoraAdapter
    layout: FileLayout
    notes: tuple[str, ...] = ()
    loss: float = 0.0

    @property
    def is_converted(self) -> bool:
        """True if the original content of the file cannot be restored from the adapter."""
        layout = self.layout
        unchanged = (is_plain(m) and Leaf.MID not in m.names for m in layout.modules)
        left_out = layout.extras or layout.embeddings or layout.left_out
        return bool(left_out) or not all(unchanged)


def read_adapter(path: Path) -> LoraAdapter:
    """The validated adapter in a safetensors file of any supported naming and type.

    Raises AdapterError with a sentence for other files. `read_with_notes` also returns the notes.
    """
    return read_with_notes(path).adapter


def read_with_notes(
    path: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    weights: BaseWeights | None = None,
    allow_loss: bool = False,
) -> AdapterReading:
    """The adapter at `path` in the canonical form, with notes on how exact it is.

    `shapes`: those of its base, by default those of a family that it fits. `weights`: only needed
    for a DoRA. Raises AdapterError with a sentence, LossError unless `allow_loss`.
    """
    layout = read_layout(path)
    families = matching_families(layout)
    if shapes is None and families:
        shapes = family_shapes(families[0])
    if shapes is not None:
        layout = layout.with_shapes(shapes)
    return convert_layout(layout, weights, allow_loss=allow_loss)


def matching_families(layout: FileLayout) -> list[BaseFamily]:
    """The families that have all modules of the file in the same shapes."""
    return [family for family in BaseFamily if layout.fits(family_shapes(family))]


def convert_layout(
    layout: FileLayout,
    weights: BaseWeights | None = None,
    *,
    on_module: Callable[[int, int], None] = lambda done, total: None,
    allow_loss: bool = False,
) -> AdapterReading:
    """The adapter in the file with this layout; only one module's tensors are in memory at a time.

    `on_module(done, total)` is called before each module and may raise to stop. Raises LossError
    if more than a tenth of the change would be lost, unless `allow_loss`.
    """
    bound = conversion_rank_limit(layout.modules)
    loss = ConversionLoss()
    is_full = any(  # singular values of full layers are needed
        one.exact_rank > bound or one.parametrization.kind is ParametrizationKind.DIFF
        for one in layout.modules
    )
    with algebra.one_thread(when=not is_full), _open_tensors(layout.path) as file:
        tensors = _TensorReader(file, {n: e.dtype for n, e in layout.header.tensors.items()})
        modules = []
        for done, module in enumerate(layout.modules):
            on_module(done, len(layout.modules))
            modules.append(_convert_module(module, tensors, bound, loss, weights))
        loss.omitted = _omitted_norms(layout, modules, tensors, bound)
    adapter = LoraAdapter(modules=tuple(modules), metadata=layout.metadata)
    check_adapter(adapter)
    notes = file_notes(layout, adapter, loss.cut)
    if loss.total == 0:
        notes.append(NO_EFFECT)
    if tensors.zero_alphas:
        notes.append(ZERO_ALPHA.format(modules=plural(tensors.zero_alphas, "module")))
    what_is_lost = loss_notes(layout, adapter, loss)
    if not allow_loss:
        require_small_loss(loss, what_is_lost)
    return AdapterReading(adapter, layout, (*notes, *what_is_lost), loss.share)


def _omitted_norms(
    layout: FileLayout, modules: Sequence[LoraModule], tensors: _TensorReader, bound: int
) -> dict[ExtraKind, float]:
    """The squared Frobenius norm of all that a LoRA of these bases cannot contain."""
    scales = {module.key: module.scale for module in modules}
    norms: dict[ExtraKind, float] = {}
    for extra, names in layout.extras.items():
        norms[extra] = 0.0
        for name in names:
            key = parse_tensor_name(name)
            is_up = key is not None and key.leaf is Leaf.UP_BIAS  # scaled as its module
            scale = scales.get(f"{key.component}.{key.path}", 1.0) if key and is_up else 1.0
            norms[extra] += algebra.squared_norm(tensors.read(name)) * scale**2
    if layout.left_out:
        left = ConversionLoss()
        for module in layout.left_out:
            _convert_module(module, tensors, bound, left, None)
        norms[ExtraKind.PROJECTIONS] = left.total
    return norms


def _open_tensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise AdapterError("The file is damaged: its tensors cannot be read.") from error


class _TensorReader:
    """Reads single tensors of an open file in fp32, and rejects values that are not finite."""

    def __init__(self, file: Any, types: Mapping[str, str]) -> None:
        self._file = file
        self._types = types
        self.zero_alphas = 0

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name).float()
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"The weights of {name[:120]!r} contain NaN or infinity: the file is damaged, or "
                "the training diverged."
            )
        if float(tensor.abs().max()) > MAX_WEIGHT:
            raise AdapterError(
                f"The weights of {name[:120]!r} are as large as {float(tensor.abs().max()):.1e}; "
                f"at most {MAX_WEIGHT:,.0f} is supported. The file is damaged, or the training "
                "diverged."
            )
        return tensor

    def read_module(self, module: ModuleLayout) -> dict[Leaf, Tensor]:
        """All tensors of a module except its alpha."""
        return {leaf: self.read(n) for leaf, n in module.names.items() if leaf is not Leaf.ALPHA}

    def rounding(self, module: ModuleLayout) -> float:
        """The relative rounding of a full difference by its number type."""
        return _ROUNDINGS.get(self._types[module.names[Leaf.DIFF]], algebra.ROUNDING)

    def read_alpha(self, module: ModuleLayout) -> float:
        """Alpha as a number; the rank if it is missing, as in every loader.

        An alpha of 0 is counted and replaced by the rank, as in kohya's programs. Most other
        programs read it as a strength of 0.
        """
        rank = float(module.parametrization.rank_of_scale)
        if not module.parametrization.has_scale:
            return rank if module.config_alpha is None else module.config_alpha
        alpha = module.config_alpha
        if Leaf.ALPHA in module.names:
            alpha = float(self.read(module.names[Leaf.ALPHA]))
        self.zero_alphas += alpha == 0
        return alpha or rank


def _convert_module(
    module: ModuleLayout,
    tensors: _TensorReader,
    bound: int,
    loss: ConversionLoss,
    weights: BaseWeights | None,
) -> LoraModule:
    parts, alpha = tensors.read_module(module), tensors.read_alpha(module)
    if is_plain(module):
        down, up = _plain_pair(parts)
        if module.rows is not None:
            down, up, alpha = _own_rows(module.rows, down, up, alpha)
        down, up = _with_layer_shape(module, down, up)
        plain = LoraModule(module.component, module.path, down, up, alpha)
        total = algebra.squared_norm_of_product(down, up) * plain.scale**2
        loss.add(module.key, total, 0.0, was_cut=False)
        return plain
    factors, scale = _collect_factors(module, parts), alpha / module.parametrization.rank_of_scale
    if module.is_dora:
        change = dora_change(module, parts, _dense_change(module, factors) * scale, weights)
        down, up, lost = algebra.truncate_to_rank(change, bound)
        total, scale = algebra.squared_norm(change), 1.0
    elif module.exact_rank <= bound and Leaf.DIFF not in module.names:
        down, up = _exact_pair(module, factors)
        lost, total = 0.0, algebra.squared_norm_of_product(down, up)
    elif module.parametrization.kind is ParametrizationKind.DIFF:
        down, up, lost = algebra.truncate_to_rank(
            factors["diff"], min(bound, module.exact_rank), tensors.rounding(module)
        )
        total = algebra.squared_norm(factors["diff"])
    elif module.parametrization.kind is ParametrizationKind.LOKR:
        down, up, lost = algebra.truncate_kronecker(*algebra.kronecker_factors(factors), bound)
        total = algebra.squared_norm_of_product(down, up) + lost
    else:
        change = _dense_change(module, factors)
        if not bool(torch.isfinite(change).all()):
            raise AdapterError(OVERFLOW.format(key=module.key))
        down, up, lost = algebra.truncate_to_rank(change, bound)
        total = algebra.squared_norm(change)
    was_cut = module.exact_rank > bound and down.shape[0] >= bound
    loss.add(module.key, total * scale**2, lost * scale**2, was_cut=was_cut)
    down, up = _with_layer_shape(module, *algebra.balance_pair(down, up))
    return LoraModule(module.component, module.path, down, up, scale * down.shape[0])


def _plain_pair(parts: Mapping[Leaf, Tensor]) -> algebra.Pair:
    down, up = parts[Leaf.DOWN], parts[Leaf.UP]
    if Leaf.MID in parts:
        down = algebra.fold_mid_kernel(down, parts[Leaf.MID])
    return down, up


def _own_rows(
    rows: tuple[int, int], down: Tensor, up: Tensor, alpha: float
) -> tuple[Tensor, Tensor, float]:
    """(down, up, alpha) of some rows of a layer, without directions that are 0 in them: exact."""
    part, parts = rows
    up = up.chunk(parts)[part]
    if 0 < (count := int((used := up.any(dim=0)).sum())) < len(used):
        down, up, alpha = down[used], up[:, used], alpha * count / len(used)
    return down, up, alpha


def _with_layer_shape(module: ModuleLayout, down: Tensor, up: Tensor) -> algebra.Pair:
    """The matrices in the shape of the base's layer: (R, in) and (out, R), or with kernels."""
    out, *given = module.weight_shape
    rank = up.shape[1]
    kernel = [1] * (len(given) - 1)
    return down.reshape(rank, *given).contiguous(), up.reshape(out, rank, *kernel).contiguous()


_NAMES = {
    Leaf.W1: "w1", Leaf.W1_A: "w1_a", Leaf.W1_B: "w1_b",
    Leaf.W2: "w2", Leaf.W2_A: "w2_a", Leaf.W2_B: "w2_b",
    Leaf.H1_A: "w1_a", Leaf.H1_B: "w1_b", Leaf.H2_A: "w2_a", Leaf.H2_B: "w2_b",
}  # fmt: skip
_CORES = (
    (Leaf.HT1, Leaf.H1_A, Leaf.H1_B),
    (Leaf.HT2, Leaf.H2_A, Leaf.H2_B),
    (Leaf.T2, Leaf.W2_A, Leaf.W2_B),
)


def _collect_factors(module: ModuleLayout, parts: dict[Leaf, Tensor]) -> dict[str, Tensor]:
    """The factors by the names that `algebra` uses, with Tucker cores multiplied in."""
    parts = dict(parts)
    if module.parametrization.kind is ParametrizationKind.LORA:
        down, up = _plain_pair(parts)
        return {"down": down, "up": up}
    for core, a, b in _CORES:
        if core in parts:
            parts[a], parts[b] = algebra.fold_tucker_core(parts.pop(core), parts[a], parts[b])
    if Leaf.DIFF in parts:
        return {"diff": parts[Leaf.DIFF].flatten(1)}
    return {_NAMES[leaf]: tensor for leaf, tensor in parts.items() if leaf in _NAMES}


def _exact_pair(module: ModuleLayout, factors: Mapping[str, Tensor]) -> algebra.Pair:
    is_lokr = module.parametrization.kind is ParametrizationKind.LOKR
    return algebra.kronecker_pair(factors) if is_lokr else algebra.lora_pair(factors)


def _dense_change(module: ModuleLayout, factors: Mapping[str, Tensor]) -> Tensor:
    """The full weight change (out, in) without its scale."""
    match module.parametrization.kind:
        case ParametrizationKind.DIFF:
            return factors["diff"]
        case ParametrizationKind.LOHA:
            first = factors["w1_a"] @ factors["w1_b"]
            return first * (factors["w2_a"] @ factors["w2_b"])
    down, up = _exact_pair(module, factors)
    return up @ down


def dora_change(
    module: ModuleLayout,
    parts: Mapping[Leaf, Tensor],
    change: Tensor,
    weights: Callable[[str], Tensor | None] | None,
) -> Tensor:
    """W' - W (out, in) of a DoRA module whose plain change is `change` (out, in).

    W' = m * (W + s BA) / |W + s BA| (Liu et al. 2024, arXiv 2402.09353), which depends on the
    weights of the base. The norm is taken per output (PEFT, and LyCORIS with `wd_on_output`) or per
    input (older LyCORIS), according to the shape of m.
    """
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
