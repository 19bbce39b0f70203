"""The form of one module, told from the shapes of its tensors: kind, weight shape, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from worker.core.lora_files.canonical import AdapterError
from worker.core.lora_files.keys import Leaf

Shape = tuple[int, ...]
Entries = Mapping[Leaf, Shape]


class Kind(StrEnum):
    """How a weight change is written down, as people call it."""

    LORA = "LoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    DIFF = "full difference"


@dataclass(frozen=True)
class Form:
    """`shape` is the base weight's; (out, in * kh * kw) where `is_flat`: the kernel is not told.

    `rank` is that of an equal LoRA, before the weight's own size bounds it; `rank_of_scale` is
    what alpha is divided by (1 where the kind has no scale).
    """

    kind: Kind
    shape: Shape
    rank: int
    rank_of_scale: int
    has_scale: bool = True
    is_flat: bool = False


_OF_LORA = {Leaf.DOWN, Leaf.UP, Leaf.MID}
_OF_LOHA = {Leaf.H1_A, Leaf.H1_B, Leaf.H2_A, Leaf.H2_B, Leaf.HT1, Leaf.HT2}
_OF_LOKR = {Leaf.W1, Leaf.W1_A, Leaf.W1_B, Leaf.W2, Leaf.W2_A, Leaf.W2_B, Leaf.T2}
_BESIDES = {Leaf.ALPHA, Leaf.MAGNITUDE, Leaf.DORA_SCALE}


def form_of(entries: Entries, where: str) -> Form:
    """The form of the module `where`; AdapterError when a part is missing or does not fit."""
    leaves = set(entries) - _BESIDES
    if prod(entries.get(Leaf.ALPHA, ())) != 1:
        raise AdapterError(f"The alpha of {where} is not a single number.")
    if leaves & _OF_LORA or not leaves:
        form = _lora(_only(entries, _OF_LORA, where), where)
    elif leaves & _OF_LOHA:
        form = _loha(_only(entries, _OF_LOHA, where), where)
    elif leaves & _OF_LOKR:
        form = _lokr(_only(entries, _OF_LOKR, where), where)
    else:
        form = _diff(_only(entries, {Leaf.DIFF}, where), where)
    _check_magnitude(entries, form, where)
    return form


def _only(entries: Entries, allowed: set[Leaf], where: str) -> Entries:
    if strange := set(entries) - allowed - _BESIDES:
        raise AdapterError(f"{where} is of two kinds at once: it has {min(strange)!r}, too.")
    return entries


def _need(entries: Entries, leaves: tuple[Leaf, ...], where: str) -> list[Shape]:
    missing = [leaf for leaf in leaves if leaf not in entries]
    if missing:
        raise AdapterError(
            f"The adapter is incomplete: {where} has no {' and no '.join(map(str, missing))}; a "
            "half of it is missing. Get the file again from where it was made."
        )
    return [entries[leaf] for leaf in leaves]


def _require(fits: bool, entries: Entries, where: str) -> None:
    if not fits:
        shapes = ", ".join(
            f"{leaf} {tuple(shape)}"
            for leaf, shape in sorted(entries.items())
            if leaf is not Leaf.ALPHA
        )
        raise AdapterError(f"The shapes of {where} do not fit together: {shapes}.")


def _lora(entries: Entries, where: str) -> Form:
    down, up = _need(entries, (Leaf.DOWN, Leaf.UP), where)
    _require(len(down) in (2, 4) and len(up) in (2, 4), entries, where)
    _require(up[1] == down[0] and set(up[2:]) <= {1}, entries, where)
    kernel = down[2:]
    if Leaf.MID in entries:
        mid = entries[Leaf.MID]
        fits = len(mid) == 4 and mid[:2] == (down[0], down[0]) and set(kernel) <= {1}
        _require(fits, entries, where)
        kernel = mid[2:]
    return Form(Kind.LORA, (up[0], down[1], *kernel), down[0], down[0])


def _loha(entries: Entries, where: str) -> Form:
    four = (Leaf.H1_A, Leaf.H1_B, Leaf.H2_A, Leaf.H2_B)
    a1, b1, a2, b2 = _need(entries, four, where)
    _require(all(len(shape) == 2 for shape in (a1, b1, a2, b2)), entries, where)
    if Leaf.HT1 not in entries and Leaf.HT2 not in entries:
        fits = a1[0] == a2[0] and b1[1] == b2[1] and a1[1] == b1[0] and a2[1] == b2[0]
        _require(fits, entries, where)
        return Form(Kind.LOHA, (a1[0], b1[1]), a1[1] * a2[1], b1[0], is_flat=True)
    t1, t2 = _need(entries, (Leaf.HT1, Leaf.HT2), where)
    _require(len(t1) == 4 and len(t2) == 4 and t1[2:] == t2[2:], entries, where)
    _require(t1[:2] == (a1[0], b1[0]) and t2[:2] == (a2[0], b2[0]), entries, where)
    _require(a1[1] == a2[1] and b1[1] == b2[1], entries, where)
    return Form(Kind.LOHA, (a1[1], b1[1], *t1[2:]), a1[0] * a2[0], b1[0])


def _lokr(entries: Entries, where: str) -> Form:
    first, rank_1 = _factor(entries, (Leaf.W1, Leaf.W1_A, Leaf.W1_B), where)
    _require(len(first) == 2, entries, where)
    own = {leaf: shape for leaf, shape in entries.items() if leaf in _OF_LOKR}
    if Leaf.T2 in entries:
        a, b, core = _need(entries, (Leaf.W2_A, Leaf.W2_B, Leaf.T2), where)
        _require(len(a) == 2 and len(b) == 2 and len(core) == 4, own, where)
        _require(core[:2] == (a[0], b[0]), own, where)
        second: Shape = (a[1], b[1], *core[2:])
        rank_2 = min(a[0], a[1], prod(second[1:]))
    else:
        second, rank_2 = _factor(entries, (Leaf.W2, Leaf.W2_A, Leaf.W2_B), where)
    scale = entries.get(Leaf.W2_B) or entries.get(Leaf.W1_B)
    flat = Leaf.W2 not in entries and Leaf.T2 not in entries
    return Form(
        Kind.LOKR,
        (first[0] * second[0], first[1] * second[1], *second[2:]),
        rank_1 * rank_2,
        scale[0] if scale else 1,
        has_scale=scale is not None,
        is_flat=flat,
    )


def _factor(entries: Entries, leaves: tuple[Leaf, Leaf, Leaf], where: str) -> tuple[Shape, int]:
    """(shape, rank) of a LoKr's factor, which is whole or a product of two matrices."""
    whole, a_leaf, b_leaf = leaves
    if whole in entries:
        shape = entries[whole]
        _require(not {a_leaf, b_leaf} & set(entries) and len(shape) in (2, 4), entries, where)
        return shape, min(shape[0], prod(shape[1:]))
    a, b = _need(entries, (a_leaf, b_leaf), where)
    _require(len(a) == 2 and len(b) == 2 and a[1] == b[0], entries, where)
    return (a[0], b[1]), min(a[0], a[1], b[1])


def _diff(entries: Entries, where: str) -> Form:
    (shape,) = _need(entries, (Leaf.DIFF,), where)
    _require(len(shape) in (2, 4), entries, where)
    full = min(shape[0], prod(shape[1:]))
    return Form(Kind.DIFF, shape, full, 1, has_scale=False)


def _check_magnitude(entries: Entries, form: Form, where: str) -> None:
    """PEFT's vector has a number per output; LyCORIS' per output (out, 1…) or input (1, in…)."""
    out, given = form.shape[0], form.shape[1]
    if Leaf.MAGNITUDE in entries:
        _require(prod(entries[Leaf.MAGNITUDE]) == out, entries, where)
    if Leaf.DORA_SCALE in entries:
        shape = entries[Leaf.DORA_SCALE]
        per_output = shape[:1] == (out,) and set(shape[1:]) <= {1}
        per_input = len(shape) > 1 and shape[:2] == (1, given) and set(shape[2:]) <= {1}
        flat_input = form.is_flat and len(shape) > 1 and shape[0] == 1 and given % shape[1] == 0
        _require(per_output or per_input or flat_input, entries, where)
