"""The layout of an adapter file: its modules and their tensors, read from the header alone.

All errors in names, shapes and sizes are found here, before any tensor is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from pathlib import Path

from worker.core.families.adapter_files import other_model
from worker.core.families.family import BaseFamily, Component, labels
from worker.core.families.stable_diffusion.names import TEXT_PREFIX
from worker.core.lora_files.canonical import MAX_RANK, check_limits
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_names import config_beside
from worker.core.lora_files.keys import (
    BARE_ENCODER,
    EMBEDDINGS,
    TEXT_PROJECTION,
    WRAPPER,
    Leaf,
    Naming,
    TensorKey,
    parse_tensor_name,
    parse_tensor_names,
    unsupported_kind,
)
from worker.core.lora_files.parametrizations import (
    LeafShapes,
    Parametrization,
    ParametrizationKind,
    detect_parametrization,
)
from worker.core.lora_files.peft_settings import PeftSettings, SettingsOfFile, read_settings
from worker.core.safetensors_header import MAX_ADAPTER_BYTES, Header, HeaderError, read_header
from worker.core.wording import plural, size_text

Shape = tuple[int, ...]

MAX_WEIGHT_NUMBERS = 2**27  # of one layer: more than the largest of any family
MAX_DENSE_NUMBERS = 4_000_000_000  # of all layers that need a full weight change: 10 min on a CPU
CONVERTED_BYTES = 2**30  # largest size of a converted adapter, fp32
CONVERTED_RANKS = (256, 128, 64, 32, 16, 8, 4)
MAX_LISTED_NAMES = 5  # unknown names listed in an error
SECOND_ENCODER_WIDTH = 1280  # of SDXL
SUPPORTED_FILES = (
    "Supported are LoRA, LoCon, LoHa, LoKr, DoRA and full differences for "
    f"{labels(BaseFamily, 'and')}, with the tensor names of kohya, PEFT, diffusers or ComfyUI."
)


class ExtraKind(StrEnum):
    """Parameters other than weights of linear layers and convolutions that a file may change."""

    BIASES = "bias"
    NORMS = "norm"
    PROJECTIONS = "text projection"


@dataclass(frozen=True)
class ModuleLayout:
    """One module of a file: its parametrization, and the names of its tensors by leaf.

    `weight_shape`: that of the base's weight. If `parametrization.is_flat`, the file does not
    contain it; it is guessed from the layer's name until a base is known. `rows`: (part, parts) of
    the rows of a layer that is one with others in the file.
    """

    component: Component
    path: str
    parametrization: Parametrization
    names: Mapping[Leaf, str]
    weight_shape: Shape
    rows: tuple[int, int] | None = None
    config_alpha: float | None = None
    config_rank: int | None = None

    @property
    def key(self) -> str:
        """`<component>.<path>`, unique in a file."""
        return f"{self.component}.{self.path}"

    @property
    def is_dora(self) -> bool:
        """True if the change depends on the base model's weights."""
        return Leaf.MAGNITUDE in self.names or Leaf.DORA_SCALE in self.names

    @property
    def exact_rank(self) -> int:
        """The lowest rank of a LoRA that is always exact."""
        full = min(self.weight_shape[0], prod(self.weight_shape[1:]))
        if self.is_dora:
            return full
        rank = self.parametrization.rank
        return rank if self.parametrization.kind is ParametrizationKind.LORA else min(rank, full)

    def with_shape(self, shape: Shape | None) -> ModuleLayout:
        """The module for a weight of this shape, if it has the same numbers in the same order."""
        own = self.weight_shape
        if shape is None or shape == own or shape[0] != own[0] or prod(shape) != prod(own):
            return self
        is_free = self.parametrization.is_flat or (set(own[2:]) | set(shape[2:]) <= {1})
        return replace(self, weight_shape=shape) if is_free else self


@dataclass(frozen=True)
class FileLayout:
    """The modules of a file in the order of their keys, and its other content.

    `left_out`: modules of layers that an adapter cannot change.
    """

    path: Path
    header: Header
    modules: tuple[ModuleLayout, ...]
    namings: frozenset[Naming]
    extras: Mapping[ExtraKind, tuple[str, ...]] = field(default_factory=dict)
    embeddings: tuple[str, ...] = ()
    left_out: tuple[ModuleLayout, ...] = ()
    settings: SettingsOfFile = field(default_factory=lambda: SettingsOfFile({}))

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the header: untrusted text."""
        return self.header.metadata

    @property
    def kinds(self) -> Counter[str]:
        """The number of modules of each kind."""
        return Counter(
            f"DoRA ({m.parametrization.kind})" if m.is_dora else str(m.parametrization.kind)
            for m in self.modules
        )

    def with_shapes(self, shapes: Mapping[str, Shape]) -> FileLayout:
        """The layout with the weight shapes of a base for all modules that fit them."""
        return replace(self, modules=tuple(m.with_shape(shapes.get(m.key)) for m in self.modules))

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """True if every module exists in a base model with these shapes."""
        return all(shapes.get(m.key) == m.weight_shape for m in self.with_shapes(shapes).modules)


def read_layout(path: Path, config: Path | None = None) -> FileLayout:
    """The layout of the file at `path`; AdapterError says what is wrong, and what is supported.

    `config`: PEFT's `adapter_config.json`, by default the one beside the file.
    """
    try:
        header = read_header(path)
    except HeaderError as error:
        raise AdapterError(str(error)) from error
    _reject_unsupported(header.tensors)
    check_limits(path, header)
    _reject_other_models(header)
    keys = parse_tensor_names(header.tensors)
    embeddings = tuple(sorted(name for name in keys if name.startswith(EMBEDDINGS)))
    counted = len(keys) if any(key and key.parts for key in keys.values()) else None
    _reject_unknown([n for n, key in keys.items() if key is None and n not in embeddings], counted)
    known = _in_their_encoder({n: key for n, key in keys.items() if key is not None}, header)
    settings = _settings_of(path, config, known, header)
    modules: list[ModuleLayout] = []
    left_out: list[ModuleLayout] = []
    extras: dict[ExtraKind, list[str]] = {extra: [] for extra in ExtraKind}
    for (component, module_path), names in sorted(_group_by_module(known).items()):
        rest = _without_extras(names, header, extras)
        if rest:
            module = _module_layout(component, module_path, rest, header)
            is_dotted = all(known[name].has_settings for name in rest.values())
            module = _with_settings(module, settings.of(component)) if is_dotted else module
            parts = known[next(iter(rest.values()))].parts
            where = left_out if module_path == TEXT_PROJECTION else modules
            where += _separated(module, parts) if len(parts) > 1 else [module]
    modules.sort(key=lambda module: (module.component, module.path))
    if not modules:
        raise AdapterError(
            f"The file is not an adapter: it contains no LoRA modules. {SUPPORTED_FILES}"
        )
    return FileLayout(
        path=path,
        header=header,
        modules=tuple(modules),
        namings=frozenset(key.naming for key in known.values()),
        extras={extra: tuple(sorted(names)) for extra, names in extras.items() if names},
        embeddings=embeddings,
        left_out=tuple(left_out),
        settings=settings,
    )


def conversion_rank_limit(modules: Sequence[ModuleLayout]) -> int:
    """The highest rank for converted modules that keeps the adapter within its limits.

    Plain LoRAs keep their rank. Raises AdapterError if no rank is low enough.
    """
    plain = sum(_lora_bytes(m, m.exact_rank) for m in modules if is_plain(m))
    others = [m for m in modules if not is_plain(m)]
    if plain > MAX_ADAPTER_BYTES:
        raise AdapterError(
            f"The adapter needs {size_text(plain)} in fp32; at most "
            f"{size_text(MAX_ADAPTER_BYTES)} are supported. Resize it to a lower rank first."
        )
    _check_dense(others)
    for rank in CONVERTED_RANKS:
        size = sum(_lora_bytes(m, min(rank, m.exact_rank)) for m in others)
        if size <= CONVERTED_BYTES and plain + size <= MAX_ADAPTER_BYTES:
            return rank
    raise AdapterError("The adapter changes more layers than any base model has.")


def is_plain(module: ModuleLayout) -> bool:
    """True if the module is a LoRA or LoCon, which needs no conversion."""
    return module.parametrization.kind is ParametrizationKind.LORA and not module.is_dora


def _lora_bytes(module: ModuleLayout, rank: int) -> int:
    return 4 * rank * (module.weight_shape[0] + prod(module.weight_shape[1:]))


def _check_dense(modules: Sequence[ModuleLayout]) -> None:
    if sum(prod(module.weight_shape) for module in modules) > MAX_DENSE_NUMBERS:
        raise AdapterError(
            "Converting this adapter would take hours: its layers are larger than those of the "
            "supported base models."
        )


def _group_by_module(
    known: Mapping[str, TensorKey],
) -> dict[tuple[Component, str], dict[Leaf, str]]:
    groups: dict[tuple[Component, str], dict[Leaf, str]] = {}
    for name, key in known.items():
        group = groups.setdefault(key.module, {})
        if key.leaf in group:
            raise AdapterError(
                f"The file contains the module {key.component}.{key.path} twice: "
                f"{group[key.leaf][:80]!r} and {name[:80]!r}."
            )
        group[key.leaf] = name
    return groups


def _settings_of(
    path: Path, config: Path | None, known: Mapping[str, TensorKey], header: Header
) -> SettingsOfFile:
    """PEFT's settings; another file's `adapter_config.json` may lie beside one of other names."""
    is_dotted = any(key.has_settings for key in known.values())
    beside = config or config_beside(path)
    return read_settings(header.metadata, beside if is_dotted else None)


def _separated(module: ModuleLayout, parts: Sequence[str]) -> list[ModuleLayout]:
    """The layers of the base whose weights are one below the other in the file."""
    out, *rest = module.weight_shape
    if not is_plain(module) or out % len(parts):
        raise AdapterError(
            f"{module.key} stands for {len(parts)} layers of the base model, which can only be "
            f"separated in a plain LoRA, not in a change of {module.weight_shape} by "
            f"{module.parametrization.kind}."
        )
    shape = (out // len(parts), *rest)
    return [
        replace(module, path=path, weight_shape=shape, rows=(part, len(parts)))
        for part, path in enumerate(parts)
    ]


def _with_settings(module: ModuleLayout, settings: PeftSettings | None) -> ModuleLayout:
    """The module with its alpha and rank by PEFT's settings."""
    if settings is None:
        return module
    paths = (module.path, module.path.removeprefix(TEXT_PREFIX))  # transformers 4 and 5
    form = module.parametrization
    rank = form.rank_of_scale if form.has_scale else None
    return replace(
        module,
        config_alpha=settings.alpha(paths, rank),
        config_rank=settings.rank(paths) if form.has_scale else None,
    )


def _in_their_encoder(known: Mapping[str, TensorKey], header: Header) -> dict[str, TensorKey]:
    """The keys; those of peft's own file of an encoder, which has no name, by its width."""
    bare = [n for n in known if n.startswith(tuple(WRAPPER + root for root in BARE_ENCODER))]
    widths = {
        header.tensors[name].shape[-1]
        for name in bare
        if known[name].leaf is Leaf.DOWN and known[name].path.endswith("q_proj")
    }
    if widths != {SECOND_ENCODER_WIDTH}:
        return dict(known)
    moved = {n: replace(known[n], component=Component.TEXT_ENCODER_2) for n in bare}
    return {**known, **moved}


def _without_extras(
    names: Mapping[Leaf, str], header: Header, extras: Mapping[ExtraKind, list[str]]
) -> dict[Leaf, str]:
    """The tensors that change a weight; the names of the others are added to `extras`."""
    rest = dict(names)
    if len(header.tensors[rest.get(Leaf.DIFF, "")].shape if Leaf.DIFF in rest else (1, 1)) == 1:
        extras[ExtraKind.NORMS].append(rest.pop(Leaf.DIFF))  # a norm's weight has one dimension
    for leaf, extra in (
        (Leaf.DIFF_B, ExtraKind.BIASES),
        (Leaf.UP_BIAS, ExtraKind.BIASES),
        (Leaf.W_NORM, ExtraKind.NORMS),
        (Leaf.B_NORM, ExtraKind.NORMS),
    ):
        if leaf in rest:
            extras[extra].append(rest.pop(leaf))
    if set(rest) == {Leaf.ALPHA} and len(rest) < len(names):
        return {}  # LyCORIS also writes an alpha for a norm
    return rest


def _module_layout(
    component: Component, path: str, names: Mapping[Leaf, str], header: Header
) -> ModuleLayout:
    entries: LeafShapes = {leaf: header.tensors[name].shape for leaf, name in names.items()}
    where = f"{component}.{path}"
    parametrization = detect_parametrization(entries, where)
    shape, rank = parametrization.shape, parametrization.rank_of_scale
    if parametrization.is_flat:
        shape = _with_kernel(path, parametrization.shape)
    if prod(shape) > MAX_WEIGHT_NUMBERS:
        raise AdapterError(
            f"{where} changes a weight of {prod(shape):,} numbers, more than any layer of a "
            "supported base model has."
        )
    if not 0 < rank <= MAX_RANK:
        raise AdapterError(
            f"The rank of {where} is {rank}; ranks from 1 to {MAX_RANK} are supported."
        )
    return ModuleLayout(component, path, parametrization, dict(names), shape)


_KERNELS_OF_3 = (".conv1", ".conv2", "samplers.0.conv", "conv_in", "conv_out")


def _with_kernel(path: str, shape: Shape) -> Shape:
    """(out, in, 3, 3) for (out, in * 9) if all bases of these families have such a kernel here."""
    if path.endswith(_KERNELS_OF_3) and shape[1] % 9 == 0:
        return shape[0], shape[1] // 9, 3, 3
    return shape


def _reject_unsupported(names: Iterable[str]) -> None:
    kinds = sorted({kind for name in names if (kind := unsupported_kind(name))})
    if kinds:
        raise AdapterError(
            f"Adapters of the type {' and '.join(kinds)} are not supported. {SUPPORTED_FILES}"
        )


def _reject_other_models(header: Header) -> None:
    """Raise AdapterError for a file of a model that is known by name and not supported."""
    if model := other_model({name: entry.shape for name, entry in header.tensors.items()}):
        raise AdapterError(
            f"This adapter is for {model}, which is not supported. {SUPPORTED_FILES}"
        )


def _reject_unknown(names: Sequence[str], counted: int | None) -> None:
    """Raise AdapterError if there are any; `counted`: how many tensors there are, to be said."""
    if not names:
        return
    whole = sorted(
        name
        for name in names
        if name.endswith((".weight", ".bias"))
        and (parse_tensor_name(f"{name.rpartition('.')[0]}.alpha") is not None)
    )
    if whole:
        raise AdapterError(
            f"The file contains {plural(len(whole), 'weight or bias', 'weights or biases')} of its "
            f"base model as a whole, such as {whole[0][:80]!r} (PEFT's modules_to_save or bias). "
            "Only changes can be read: train without them, or save the difference."
        )
    listed = ", ".join(repr(name[:80]) for name in sorted(names)[:MAX_LISTED_NAMES])
    more = f" and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else ""
    raise AdapterError(
        f"{_count_of_unknown(len(names), counted)} an unknown name: "
        f"{listed}{more}. {SUPPORTED_FILES}"
    )


def _count_of_unknown(count: int, counted: int | None) -> str:
    if counted is None:
        return f"The file contains {plural(count, 'tensor')} with"
    return f"{count} of the file's {counted} tensors {'has' if count == 1 else 'have'}"
