"""Any adapter file in the registry's own form, with notes on everything that is not exact.

A file is planned from its header (`plan.py`), then read module by module: plain LoRAs as they are,
LoHa and LoKr as the LoRA with the same product where its rank is bearable, everything else as the
best LoRA of a bounded rank, whose error is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.core.bases.family import BaseFamily
from worker.core.lora_files import algebra
from worker.core.lora_files.canonical import Adapter, AdapterError, LoraModule, check
from worker.core.lora_files.dora import decomposed
from worker.core.lora_files.families import family_shapes
from worker.core.lora_files.file_layout import (
    Extra,
    Plan,
    PlannedModule,
    converted_rank,
    is_plain,
    plan,
)
from worker.core.lora_files.import_notes import counted, file_notes, loss_note, percent
from worker.core.lora_files.keys import Leaf
from worker.core.lora_files.parametrizations import Kind
from worker.core.lora_files.peft_settings import PEFT_METADATA

__all__ = [
    "PEFT_METADATA",
    "BaseWeights",
    "Reading",
    "families_of",
    "read",
    "read_any",
    "told_family",
]

BaseWeights = Callable[[str], Tensor | None]
"""The base's weight of a module by its key, fp32; None when the base has no such layer."""

MAX_WEIGHT = 1e9  # products of so large numbers stay finite in fp32, mostly; MAX_NORM sees the rest
MAX_NORM = 1e15  # Frobenius, of the change of one layer
OVERFLOWS = "The weights of {key} are absurdly large when multiplied out: its training diverged."
ZERO_ALPHA = (
    "Alpha is 0 in {modules} and was read as the rank (strength 1), as kohya does; to most other "
    "programs the file as it came changes nothing there."
)
NOTHING = "All changes in the file are 0: it does nothing at any weight."
MAX_DROPPED_SHARE = 0.1  # of the whole change, in Frobenius norm: more left out is another adapter


@dataclass(frozen=True)
class Reading:
    """An adapter, what was planned for its file, and sentences on what changed on the way."""

    adapter: Adapter
    plan: Plan
    notes: tuple[str, ...] = ()

    @property
    def is_converted(self) -> bool:
        """Whether something in the file cannot be got back from the adapter as it was written."""
        found = self.plan
        as_written = (is_plain(m) and Leaf.MID not in m.names for m in found.modules)
        return bool(found.extras or found.embeddings) or not all(as_written)


@dataclass
class _Loss:
    """Squared Frobenius norms: of the whole change, and of what was left out of it."""

    total: float = 0.0
    lost: float = 0.0
    cut: set[str] = field(default_factory=set)
    worst: tuple[float, str] = (0.0, "")
    dropped: dict[Extra, float] = field(default_factory=dict)

    def add(self, key: str, total: float, lost: float, *, was_cut: bool) -> None:
        if not total < MAX_NORM**2:
            raise AdapterError(OVERFLOWS.format(key=key))
        self.total += total
        self.lost += lost
        if was_cut:
            self.cut.add(key)
            self.worst = max(self.worst, (_share(lost, total), key))


def read_any(path: Path) -> Adapter:
    """The validated adapter in a safetensors file of any naming and kind that is known.

    Raises AdapterError with a sentence for anything else. `read` also gives the notes.
    """
    return read(path).adapter


def read(
    path: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    weights: BaseWeights | None = None,
) -> Reading:
    """The adapter at `path` in the canonical form, and how exact that is.

    `shapes` are those of the base it is meant for (else those of a family that it fits);
    `weights` are needed by a DoRA only. Raises AdapterError with a sentence.
    """
    found = plan(path)
    families = families_of(found)
    if shapes is None and families:
        shapes = family_shapes(families[0])
    if shapes is not None:
        found = found.on(shapes)
    return convert(found, weights)


def families_of(found: Plan) -> list[BaseFamily]:
    """The families in which every module of the file exists with its shape."""
    return [family for family in BaseFamily if found.fits(family_shapes(family))]


def told_family(metadata: Mapping[str, str]) -> BaseFamily | None:
    """The family that a file's metadata names; its shapes are what counts, where they can tell."""
    version = metadata.get("ss_base_model_version", "").lower()
    architecture = metadata.get("modelspec.architecture", "").lower()
    if "xl" in version or "stable-diffusion-xl" in architecture:
        return BaseFamily.SDXL
    if metadata.get("ss_v2") == "True" or "stable-diffusion-v2" in architecture:
        return BaseFamily.SD2
    if version or "stable-diffusion-v1" in architecture:
        return BaseFamily.SD1
    return None


def convert(
    found: Plan,
    weights: BaseWeights | None = None,
    *,
    on_module: Callable[[int, int], None] = lambda done, total: None,
) -> Reading:
    """The planned file's adapter. A module is read, converted and let go before the next.

    `on_module(done, total)` is called before each and may raise to stop.
    """
    bound = converted_rank(found.modules)
    loss = _Loss()
    with _threads(found, bound), _open(found.path) as file:
        tensors = _Tensors(file)
        modules = []
        for done, module in enumerate(found.modules):
            on_module(done, len(found.modules))
            modules.append(_module(module, tensors, bound, loss, weights))
        for extra, names in found.extras.items():
            loss.dropped[extra] = sum(algebra.squared_norm(tensors.read(n)) for n in names)
    adapter = Adapter(modules=tuple(modules), metadata=found.metadata)
    check(adapter)
    notes = file_notes(found, adapter, loss.cut)
    if loss.total == 0:
        notes.append(NOTHING)
    if tensors.zero_alphas:
        notes.append(ZERO_ALPHA.format(modules=counted(tensors.zero_alphas, "module")))
    notes += _loss_notes(found, adapter, loss)
    return Reading(adapter, found, tuple(notes))


@contextmanager
def _threads(found: Plan, bound: int) -> Iterator[None]:
    """One thread of torch for many small products, all for singular values of whole layers.

    An SDXL LoRA of rank 32 (730 modules) was read in 79 s by two threads of a machine at work on
    other things, which wait for one another, and in 2.6 s by one.
    """
    before = torch.get_num_threads()
    if not any(m.exact_rank > bound or m.form.kind is Kind.DIFF for m in found.modules):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise AdapterError("The file is damaged: its tensors cannot be read.") from error


class _Tensors:
    """Reads single tensors of an open file, in fp32, and refuses numbers that are none."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.zero_alphas = 0

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"The weights of {name[:120]!r} are not all finite numbers: the file was damaged, "
                "or its training diverged."
            )
        if float(tensor.abs().max()) > MAX_WEIGHT:
            raise AdapterError(
                f"The weights of {name[:120]!r} go up to {float(tensor.abs().max()):.1e}; up to "
                f"{MAX_WEIGHT:,.0f} are read. The file was damaged, or its training diverged."
            )
        return tensor.float()

    def of(self, module: PlannedModule) -> dict[Leaf, Tensor]:
        """All tensors of a module but its alpha."""
        return {leaf: self.read(n) for leaf, n in module.names.items() if leaf is not Leaf.ALPHA}

    def alpha(self, module: PlannedModule) -> float:
        """Alpha as a number; the rank where it is missing, as every loader has it.

        An alpha of 0 is counted and means the rank too: so kohya's programs read it.
        To most others it is a strength of 0.
        """
        rank = float(module.form.rank_of_scale)
        if not module.form.has_scale:
            return rank
        told = module.config_alpha
        if Leaf.ALPHA in module.names:
            told = float(self.read(module.names[Leaf.ALPHA]))
        self.zero_alphas += told == 0
        return told or rank


def _module(
    module: PlannedModule,
    tensors: _Tensors,
    bound: int,
    loss: _Loss,
    weights: BaseWeights | None,
) -> LoraModule:
    parts, alpha = tensors.of(module), tensors.alpha(module)
    if is_plain(module):
        down, up = _shaped(module, *_plain_pair(parts))
        made = LoraModule(module.component, module.path, down, up, alpha)
        total = algebra.squared_norm_of_product(down, up) * made.scale**2
        loss.add(module.key, total, 0.0, was_cut=False)
        return made
    factors, scale = _factors(module, parts), alpha / module.form.rank_of_scale
    if module.is_dora:
        change = decomposed(module, parts, _dense(module, factors) * scale, weights)
        down, up, lost = algebra.within_rank(change, bound)
        total, scale = algebra.squared_norm(change), 1.0
    elif module.exact_rank <= bound:
        down, up = _exact(module, factors)
        lost, total = 0.0, algebra.squared_norm_of_product(down, up)
    elif module.form.kind is Kind.LOKR:
        down, up, lost = algebra.kron_within(*algebra.kronecker_pairs(factors), bound)
        total = algebra.squared_norm_of_product(down, up) + lost
    else:
        change = _dense(module, factors)
        if not bool(torch.isfinite(change).all()):
            raise AdapterError(OVERFLOWS.format(key=module.key))
        down, up, lost = algebra.within_rank(change, bound)
        total = algebra.squared_norm(change)
    was_cut = module.exact_rank > bound and down.shape[0] >= bound
    loss.add(module.key, total * scale**2, lost * scale**2, was_cut=was_cut)
    down, up = _shaped(module, *algebra.balanced(down, up))
    return LoraModule(module.component, module.path, down, up, scale * down.shape[0])


def _plain_pair(parts: Mapping[Leaf, Tensor]) -> algebra.Pair:
    down, up = parts[Leaf.DOWN], parts[Leaf.UP]
    if Leaf.MID in parts:
        down = algebra.fold_mid(down, parts[Leaf.MID])
    return down, up


def _shaped(module: PlannedModule, down: Tensor, up: Tensor) -> algebra.Pair:
    """The halves as the base's layer has them: (R, in) and (out, R), or with kernels."""
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


def _factors(module: PlannedModule, parts: dict[Leaf, Tensor]) -> dict[str, Tensor]:
    """The factors by the names that `algebra` knows, cores of Tucker's form multiplied in."""
    parts = dict(parts)
    if module.form.kind is Kind.LORA:
        down, up = _plain_pair(parts)
        return {"down": down, "up": up}
    for core, a, b in _CORES:
        if core in parts:
            parts[a], parts[b] = algebra.tucker(parts.pop(core), parts[a], parts[b])
    if Leaf.DIFF in parts:
        return {"diff": parts[Leaf.DIFF].flatten(1)}
    return {_NAMES[leaf]: tensor for leaf, tensor in parts.items() if leaf in _NAMES}


def _exact(module: PlannedModule, factors: Mapping[str, Tensor]) -> algebra.Pair:
    if module.form.kind is Kind.DIFF:
        down, up, _ = algebra.within_rank(factors["diff"], module.exact_rank)
        return down, up
    is_lokr = module.form.kind is Kind.LOKR
    return algebra.kronecker(factors) if is_lokr else algebra.as_lora(factors)


def _dense(module: PlannedModule, factors: Mapping[str, Tensor]) -> Tensor:
    """The whole change (out, in) before its scale."""
    match module.form.kind:
        case Kind.DIFF:
            return factors["diff"]
        case Kind.LOHA:
            first = factors["w1_a"] @ factors["w1_b"]
            return first * (factors["w2_a"] @ factors["w2_b"])
    down, up = _exact(module, factors)
    return up @ down


def _share(lost: float, total: float) -> float:
    """The relative Frobenius norm of what was lost; 0 where nothing was there."""
    return math.sqrt(lost / total) if total > 0 else 0.0


def _loss_notes(found: Plan, adapter: Adapter, loss: _Loss) -> list[str]:
    notes = []
    if loss.cut:
        rank = max(module.rank for module in adapter.modules if module.key in loss.cut)
        error = _share(loss.lost, loss.total)
        notes.append(loss_note(len(loss.cut), rank, error, loss.worst))
    whole = loss.total + sum(loss.dropped.values())
    for extra, squared in loss.dropped.items():
        share, names = _share(squared, whole), found.extras[extra]
        if share > MAX_DROPPED_SHARE:
            raise AdapterError(
                f"The file changes {counted(len(names), extra)} of the base, {percent(share)} of "
                "its whole change, and a LoRA cannot hold them. Accepted are files in which they "
                "are at most a tenth of it."
            )
        notes.append(
            f"Changes of {counted(len(names), extra)} were left out, as a LoRA has no place for "
            f"them: {percent(share)} of the file's whole change (Frobenius norm)."
        )
    return notes
