"""What an adapter file holds, module by module, told from its header before a tensor is read.

Everything that can be wrong with names, shapes and sizes is found here, at the cost of a header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from pathlib import Path

from worker.core.lora_files.canonical import (
    MAX_FILE_BYTES,
    MAX_RANK,
    AdapterError,
    Component,
    check_limits,
)
from worker.core.lora_files.header import Header, HeaderError, read_header
from worker.core.lora_files.keys import EMBEDDINGS, Key, Leaf, Naming, other_kind, parse
from worker.core.lora_files.parametrizations import Entries, Form, Kind, form_of
from worker.core.lora_files.peft_settings import peft_alphas

Shape = tuple[int, ...]

MAX_WEIGHT_NUMBERS = 2**26  # of one layer; the largest of SDXL has 29.5 million
MAX_DENSE_NUMBERS = 4_000_000_000  # of all layers whose whole change must be made: 10 min on a CPU
CONVERTED_BYTES = 2**30  # what a conversion may grow an adapter to, fp32
CONVERTED_RANKS = (256, 128, 64, 32, 16, 8, 4)
NAMED = 5  # unknown names that a refusal lists
READABLE = (
    "Brushwork reads LoRA, LoCon, LoHa, LoKr, DoRA and full differences for SD 1.x, SD 2.x and "
    "SDXL, as kohya, PEFT, diffusers and ComfyUI name them."
)


class Extra(StrEnum):
    """What a file may change beside the weights of linear layers and convolutions."""

    BIASES = "bias"
    NORMS = "norm"


@dataclass(frozen=True)
class PlannedModule:
    """One module of a file: its form, and the names of its tensors by leaf.

    `weight_shape` is that of the base's weight. Where `form.is_flat`, the file does not say it:
    it is told from the layer's name, until a base says it.
    """

    component: Component
    path: str
    form: Form
    names: Mapping[Leaf, str]
    weight_shape: Shape
    config_alpha: float | None = None

    @property
    def key(self) -> str:
        """`<component>.<path>`, unique in a file."""
        return f"{self.component}.{self.path}"

    @property
    def is_dora(self) -> bool:
        """Whether the change depends on the base's weights."""
        return Leaf.MAGNITUDE in self.names or Leaf.DORA_SCALE in self.names

    @property
    def exact_rank(self) -> int:
        """The least rank of a LoRA that is surely equal."""
        full = min(self.weight_shape[0], prod(self.weight_shape[1:]))
        if self.is_dora:
            return full
        return self.form.rank if self.form.kind is Kind.LORA else min(self.form.rank, full)

    def on(self, shape: Shape | None) -> PlannedModule:
        """The module on a weight of this shape, where it fits: same numbers in the same order."""
        own = self.weight_shape
        if shape is None or shape == own or shape[0] != own[0] or prod(shape) != prod(own):
            return self
        kernel_is_open = self.form.is_flat or (set(own[2:]) | set(shape[2:]) <= {1})
        return replace(self, weight_shape=shape) if kernel_is_open else self


@dataclass(frozen=True)
class Plan:
    """A file's modules, in the order of their keys, and everything else that is in it."""

    path: Path
    header: Header
    modules: tuple[PlannedModule, ...]
    namings: frozenset[Naming]
    extras: Mapping[Extra, tuple[str, ...]] = field(default_factory=dict)
    embeddings: tuple[str, ...] = ()

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's own metadata: untrusted text."""
        return self.header.metadata

    @property
    def kinds(self) -> Counter[str]:
        """How many modules there are of each kind."""
        return Counter(
            f"DoRA ({m.form.kind})" if m.is_dora else str(m.form.kind) for m in self.modules
        )

    def on(self, shapes: Mapping[str, Shape]) -> Plan:
        """The same plan with the weight shapes of a base, wherever a module fits it."""
        return replace(self, modules=tuple(m.on(shapes.get(m.key)) for m in self.modules))

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether every module exists in a base with these shapes."""
        return all(shapes.get(m.key) == m.weight_shape for m in self.on(shapes).modules)


def plan(path: Path) -> Plan:
    """What the file at `path` holds. AdapterError says what is wrong, and what would be read."""
    try:
        header = read_header(path)
    except HeaderError as error:
        raise AdapterError(str(error)) from error
    check_limits(path, header)
    keys = {name: parse(name) for name in header.tensors}
    embeddings = tuple(sorted(name for name in keys if name.startswith(EMBEDDINGS)))
    _refuse_unknown([n for n, key in keys.items() if key is None and n not in embeddings])
    known = {name: key for name, key in keys.items() if key is not None}
    groups = _groups(known)
    alphas = peft_alphas(_peft_ranks(known, header), header.metadata)
    modules = []
    extras: dict[Extra, list[str]] = {extra: [] for extra in Extra}
    for (component, module_path), names in sorted(groups.items()):
        rest = _without_extras(names, header, extras)
        if rest:
            made = _module(component, module_path, rest, header)
            modules.append(replace(made, config_alpha=alphas.get((component, module_path))))
    if not modules:
        raise AdapterError(f"The file holds no adapter: there is no LoRA module in it. {READABLE}")
    return Plan(
        path=path,
        header=header,
        modules=tuple(modules),
        namings=frozenset(key.naming for key in known.values()),
        extras={extra: tuple(sorted(names)) for extra, names in extras.items() if names},
        embeddings=embeddings,
    )


def converted_rank(modules: Sequence[PlannedModule]) -> int:
    """The rank above which other forms are cut, so that the whole adapter stays within bounds.

    Plain LoRAs keep their rank. Raises AdapterError when no rank is low enough.
    """
    plain = sum(_bytes(m, m.exact_rank) for m in modules if is_plain(m))
    others = [m for m in modules if not is_plain(m)]
    if plain > MAX_FILE_BYTES:
        raise AdapterError(
            f"The adapter takes {plain / 2**30:.1f} GiB in full precision; at most "
            f"{MAX_FILE_BYTES // 2**30} GiB are kept. Resize it to a lower rank first."
        )
    _check_dense(others)
    for rank in CONVERTED_RANKS:
        size = sum(_bytes(m, min(rank, m.exact_rank)) for m in others)
        if size <= CONVERTED_BYTES and plain + size <= MAX_FILE_BYTES:
            return rank
    raise AdapterError("The adapter changes more layers than any base model has.")


def is_plain(module: PlannedModule) -> bool:
    """Whether the module is a LoRA already, with or without a kernel of its own."""
    return module.form.kind is Kind.LORA and not module.is_dora


def _bytes(module: PlannedModule, rank: int) -> int:
    return 4 * rank * (module.weight_shape[0] + prod(module.weight_shape[1:]))


def _check_dense(modules: Sequence[PlannedModule]) -> None:
    if sum(prod(module.weight_shape) for module in modules) > MAX_DENSE_NUMBERS:
        raise AdapterError(
            "Converting this adapter would take hours: its layers are larger than those of any "
            "base model that Brushwork knows (SD 1.x, SD 2.x, SDXL)."
        )


def _groups(known: Mapping[str, Key]) -> dict[tuple[Component, str], dict[Leaf, str]]:
    groups: dict[tuple[Component, str], dict[Leaf, str]] = {}
    for name, key in known.items():
        group = groups.setdefault(key.module, {})
        if key.leaf in group:
            raise AdapterError(
                f"The file names the module {key.component}.{key.path} twice: "
                f"{group[key.leaf][:80]!r} and {name[:80]!r}."
            )
        group[key.leaf] = name
    return groups


def _peft_ranks(known: Mapping[str, Key], header: Header) -> dict[tuple[Component, str], int]:
    dotted = (Naming.PEFT, Naming.SCRIPT, Naming.OLD)
    return {
        key.module: header.tensors[name].shape[0]
        for name, key in known.items()
        if key.leaf is Leaf.DOWN and key.naming in dotted and header.tensors[name].shape
    }


def _without_extras(
    names: Mapping[Leaf, str], header: Header, extras: Mapping[Extra, list[str]]
) -> dict[Leaf, str]:
    """The tensors that change a weight; the names of the others go to `extras`."""
    rest = dict(names)
    if len(header.tensors[rest.get(Leaf.DIFF, "")].shape if Leaf.DIFF in rest else (1, 1)) == 1:
        extras[Extra.NORMS].append(rest.pop(Leaf.DIFF))  # a norm's weight has one dimension
    for leaf, extra in (
        (Leaf.DIFF_B, Extra.BIASES),
        (Leaf.W_NORM, Extra.NORMS),
        (Leaf.B_NORM, Extra.NORMS),
    ):
        if leaf in rest:
            extras[extra].append(rest.pop(leaf))
    if set(rest) == {Leaf.ALPHA} and len(rest) < len(names):
        return {}  # LyCORIS writes an alpha beside a norm, too
    return rest


def _module(
    component: Component, path: str, names: Mapping[Leaf, str], header: Header
) -> PlannedModule:
    entries: Entries = {leaf: header.tensors[name].shape for leaf, name in names.items()}
    where = f"{component}.{path}"
    form = form_of(entries, where)
    shape = form.shape
    if form.is_flat:
        shape = _with_kernel(path, form.shape)
    if prod(shape) > MAX_WEIGHT_NUMBERS:
        raise AdapterError(
            f"{where} is for a weight of {prod(shape):,} numbers, more than any layer of SD 1.x, "
            "SD 2.x or SDXL has."
        )
    if not 0 < form.rank_of_scale <= MAX_RANK:
        raise AdapterError(
            f"The rank of {where} is {form.rank_of_scale}; 1 to {MAX_RANK} are read."
        )
    return PlannedModule(component, path, form, dict(names), shape)


_KERNELS_OF_3 = (".conv1", ".conv2", "samplers.0.conv", "conv_in", "conv_out")


def _with_kernel(path: str, shape: Shape) -> Shape:
    """(out, in, 3, 3) for (out, in * 9) where every base of these families has such a kernel."""
    if path.endswith(_KERNELS_OF_3) and shape[1] % 9 == 0:
        return shape[0], shape[1] // 9, 3, 3
    return shape


def _refuse_unknown(names: Sequence[str]) -> None:
    if not names:
        return
    kinds = sorted({kind for name in names if (kind := other_kind(name))})
    if kinds:
        raise AdapterError(f"This is an adapter of the kind {' and '.join(kinds)}. {READABLE}")
    listed = ", ".join(repr(name[:80]) for name in sorted(names)[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    raise AdapterError(
        f"{_count(len(names), 'tensor')} of the file {'has' if len(names) == 1 else 'have'} an "
        f"unknown name: {listed}{more}. {READABLE}"
    )


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
