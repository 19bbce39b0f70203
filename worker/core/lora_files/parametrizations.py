"""The parametrization of a module, from the shapes of its tensors: kind, weight shape, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.keys import Leaf

Shape = tuple[int, ...]
LeafShapes = Mapping[Leaf, Shape]


class ParametrizationKind(StrEnum):
    """The usual name of a parametrization of a weight change."""

    LORA = "LoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    DIFF = "full difference"


@dataclass(frozen=True)
class Parametrization:
    """The representation of a weight change by the tensors of a module.

    `shape`: that of the base weight, or (out, in * kh * kw) if `is_flat`, where the kernel size is
    unknown. `rank`: that of an exact LoRA, not limited by the size of the weight. `rank_of_scale`:
    the divisor of alpha (1 if the kind has no scale).
    """

    kind: ParametrizationKind
    shape: Shape
    rank: int
    rank_of_scale: int
    has_scale: bool = True
    is_flat: bool = False


_LORA_LEAVES = {Leaf.DOWN, Leaf.UP, Leaf.MID}
_LOHA_LEAVES = {Leaf.H1_A, Leaf.H1_B, Leaf.H2_A, Leaf.H2_B, Leaf.HT1, Leaf.HT2}
_LOKR_LEAVES = {Leaf.W1, Leaf.W1_A, Leaf.W1_B, Leaf.W2, Leaf.W2_A, Leaf.W2_B, Leaf.T2}
_COMMON_LEAVES = {Leaf.ALPHA, Leaf.MAGNITUDE, Leaf.DORA_SCALE}


def detect_parametrization(entries: LeafShapes, where: str) -> Parametrization:
    """The parametrization of the module `where`; AdapterError if a tensor is missing or misfits."""
    leaves = set(entries) - _COMMON_LEAVES
    if prod(entries.get(Leaf.ALPHA, ())) != 1:
        raise AdapterError(f"The alpha of {where} is not a single number.")
    if leaves & _LORA_LEAVES or not leaves:
        form = _lora_parametrization(_check_leaves(entries, _LORA_LEAVES, where), where)
    elif leaves & _LOHA_LEAVES:
        form = _loha_parametrization(_check_leaves(entries, _LOHA_LEAVES, where), where)
    elif leaves & _LOKR_LEAVES:
        form = _lokr_parametrization(_check_leaves(entries, _LOKR_LEAVES, where), where)
    else:
        form = _full_difference(_check_leaves(entries, {Leaf.DIFF}, where), where)
    _check_magnitude(entries, form, where)
    return form


def _check_leaves(entries: LeafShapes, allowed: set[Leaf], where: str) -> LeafShapes:
    if unexpected := set(entries) - allowed - _COMMON_LEAVES:
        raise AdapterError(f"{where} mixes two adapter types: it also has {min(unexpected)!r}.")
    return entries


def _required_shapes(entries: LeafShapes, leaves: tuple[Leaf, ...], where: str) -> list[Shape]:
    missing = [leaf for leaf in leaves if leaf not in entries]
    if missing:
        raise AdapterError(
            f"The adapter is incomplete: {where} has no {' and no '.join(map(str, missing))}. "
            "Download the file again from its source."
        )
    return [entries[leaf] for leaf in leaves]


def _check_shapes(fits: bool, entries: LeafShapes, where: str) -> None:
    if not fits:
        shapes = ", ".join(
            f"{leaf} {tuple(shape)}"
            for leaf, shape in sorted(entries.items())
            if leaf is not Leaf.ALPHA
        )
        raise AdapterError(f"The shapes of {where} do not match: {shapes}.")


def _lora_parametrization(entries: LeafShapes, where: str) -> Parametrization:
    down, up = _required_shapes(entries, (Leaf.DOWN, Leaf.UP), where)
    _check_shapes(len(down) in (2, 4) and len(up) in (2, 4), entries, where)
    _check_shapes(up[1] == down[0] and set(up[2:]) <= {1}, entries, where)
    kernel = down[2:]
    if Leaf.MID in entries:
        mid = entries[Leaf.MID]
        fits = len(mid) == 4 and mid[:2] == (down[0], down[0]) and set(kernel) <= {1}
        _check_shapes(fits, entries, where)
        kernel = mid[2:]
    return Parametrization(
        ParametrizationKind.LORA,
        (up[0], down[1], *kernel),
        down[0],
        down[0],
        is_flat=not kernel,  # ComfyUI's TrainLora flattens the kernels of convolutions
    )


def _loha_parametrization(entries: LeafShapes, where: str) -> Parametrization:
    four = (Leaf.H1_A, Leaf.H1_B, Leaf.H2_A, Leaf.H2_B)
    a1, b1, a2, b2 = _required_shapes(entries, four, where)
    _check_shapes(all(len(shape) == 2 for shape in (a1, b1, a2, b2)), entries, where)
    if Leaf.HT1 not in entries and Leaf.HT2 not in entries:
        fits = a1[0] == a2[0] and b1[1] == b2[1] and a1[1] == b1[0] and a2[1] == b2[0]
        _check_shapes(fits, entries, where)
        return Parametrization(
            ParametrizationKind.LOHA, (a1[0], b1[1]), a1[1] * a2[1], b1[0], is_flat=True
        )
    t1, t2 = _required_shapes(entries, (Leaf.HT1, Leaf.HT2), where)
    _check_shapes(len(t1) == 4 and len(t2) == 4 and t1[2:] == t2[2:], entries, where)
    _check_shapes(t1[:2] == (a1[0], b1[0]) and t2[:2] == (a2[0], b2[0]), entries, where)
    _check_shapes(a1[1] == a2[1] and b1[1] == b2[1], entries, where)
    return Parametrization(ParametrizationKind.LOHA, (a1[1], b1[1], *t1[2:]), a1[0] * a2[0], b1[0])


def _lokr_parametrization(entries: LeafShapes, where: str) -> Parametrization:
    first, rank_1 = _factor_shape(entries, (Leaf.W1, Leaf.W1_A, Leaf.W1_B), where)
    _check_shapes(len(first) == 2, entries, where)
    own = {leaf: shape for leaf, shape in entries.items() if leaf in _LOKR_LEAVES}
    if Leaf.T2 in entries:
        a, b, core = _required_shapes(entries, (Leaf.W2_A, Leaf.W2_B, Leaf.T2), where)
        _check_shapes(len(a) == 2 and len(b) == 2 and len(core) == 4, own, where)
        _check_shapes(core[:2] == (a[0], b[0]), own, where)
        second: Shape = (a[1], b[1], *core[2:])
        rank_2 = min(a[0], a[1], prod(second[1:]))
    else:
        second, rank_2 = _factor_shape(entries, (Leaf.W2, Leaf.W2_A, Leaf.W2_B), where)
    scale = entries.get(Leaf.W2_B) or entries.get(Leaf.W1_B)
    flat = Leaf.W2 not in entries and Leaf.T2 not in entries
    return Parametrization(
        ParametrizationKind.LOKR,
        (first[0] * second[0], first[1] * second[1], *second[2:]),
        rank_1 * rank_2,
        scale[0] if scale else 1,
        has_scale=scale is not None,
        is_flat=flat,
    )


def _factor_shape(
    entries: LeafShapes, leaves: tuple[Leaf, Leaf, Leaf], where: str
) -> tuple[Shape, int]:
    """(shape, rank) of a LoKr factor, which is a full matrix or a product of two."""
    whole, a_leaf, b_leaf = leaves
    if whole in entries:
        shape = entries[whole]
        _check_shapes(not {a_leaf, b_leaf} & set(entries) and len(shape) in (2, 4), entries, where)
        return shape, min(shape[0], prod(shape[1:]))
    a, b = _required_shapes(entries, (a_leaf, b_leaf), where)
    _check_shapes(len(a) == 2 and len(b) == 2 and a[1] == b[0], entries, where)
    return (a[0], b[1]), min(a[0], a[1], b[1])


def _full_difference(entries: LeafShapes, where: str) -> Parametrization:
    (shape,) = _required_shapes(entries, (Leaf.DIFF,), where)
    _check_shapes(len(shape) in (2, 4), entries, where)
    full = min(shape[0], prod(shape[1:]))
    return Parametrization(ParametrizationKind.DIFF, shape, full, 1, has_scale=False)


def _check_magnitude(entries: LeafShapes, form: Parametrization, where: str) -> None:
    """Check the shape of the magnitudes: (out) in PEFT, (out, 1…) or (1, in…) in LyCORIS."""
    out, given = form.shape[0], form.shape[1]
    if Leaf.MAGNITUDE in entries:
        _check_shapes(prod(entries[Leaf.MAGNITUDE]) == out, entries, where)
    if Leaf.DORA_SCALE in entries:
        shape = entries[Leaf.DORA_SCALE]
        per_output = shape[:1] == (out,) and set(shape[1:]) <= {1}
        per_input = len(shape) > 1 and shape[:2] == (1, given) and set(shape[2:]) <= {1}
        flat_input = form.is_flat and len(shape) > 1 and shape[0] == 1 and given % shape[1] == 0
        _check_shapes(per_output or per_input or flat_input, entries, where)
