"""The canonical file in which the registry stores an adapter: fp32, by component and module path.

Keys are `<component>.<path>.down`, `.up` and `.alpha`. Paths are those of diffusers' modules. Those
of text encoders always begin with `text_model.`, whatever the installed transformers uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.core.families.family import Component
from worker.core.lora_files.errors import AdapterError
from worker.core.safetensors_header import (
    DTYPE_BYTES,
    MAX_ADAPTER_BYTES,
    Header,
    HeaderError,
    fp32_header,
    read_header,
    replacing,
)
from worker.core.wording import size_text

MAX_TENSORS = 10_000
MAX_DIMENSION = 65_536
MAX_RANK = 1_024
WEIGHT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
ALPHA_DTYPES = WEIGHT_DTYPES | {"I64", "I32"}


_COMPONENTS = {component.value: component for component in Component}


@dataclass(frozen=True, eq=False)
class LoraModule:
    """One low-rank weight change: dW = alpha / rank * up @ down.

    `down` is (rank, in) or (rank, in, kh, kw); `up` is (out, rank) or (out, rank, 1, 1); fp32.
    """

    component: Component
    path: str
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of directions, read from the shape."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """The factor of the product: alpha / rank."""
        return self.alpha / self.rank

    @property
    def key(self) -> str:
        """`<component>.<path>`, unique in an adapter."""
        return f"{self.component}.{self.path}"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the base weight that this module changes."""
        return (int(self.up.shape[0]), *(int(size) for size in self.down.shape[1:]))

    def delta(self) -> Tensor:
        """The weight change in fp32, of the shape of the base weight."""
        flat = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return (flat * self.scale).reshape(self.weight_shape)


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """All modules of an adapter and the metadata of its header."""

    modules: tuple[LoraModule, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def components(self) -> frozenset[Component]:
        """The parts of the base that this adapter changes."""
        return frozenset(module.component for module in self.modules)

    @property
    def parameters(self) -> int:
        """The number of parameters, without alphas."""
        return sum(module.down.numel() + module.up.numel() for module in self.modules)


def save_adapter(adapter: LoraAdapter, path: Path) -> None:
    """Write the canonical file atomically; the same adapter gives the same bytes.

    Raises AdapterError if a module is not finite or its shapes do not match.
    """
    check_adapter(adapter)
    tensors: dict[str, Tensor] = {}
    for module in adapter.modules:
        tensors[f"{module.key}.down"] = module.down
        tensors[f"{module.key}.up"] = module.up
        tensors[f"{module.key}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
    ordered = dict(sorted(tensors.items()))
    with replacing(path) as file:
        file.write(fp32_header({n: tuple(t.shape) for n, t in ordered.items()}, adapter.metadata))
        for tensor in ordered.values():  # one at a time, so that a gigabyte is not in memory twice
            stored = tensor.detach().to("cpu", torch.float32).contiguous()
            file.write(stored.numpy().tobytes())


def load_adapter(path: Path) -> LoraAdapter:
    """The validated adapter of a canonical file; raises AdapterError for an invalid file.

    Its tensors are parts of one block of memory.
    """
    header, tensors = read_tensors(path)
    modules = []
    for stem in sorted({name.rpartition(".")[0] for name in tensors}):
        component, _, module_path = stem.partition(".")
        if component not in _COMPONENTS or not module_path:
            raise AdapterError(
                f"The file is not a Brushwork adapter: it has the key {stem[:80]!r}."
            )
        down, up, alpha = (tensors.pop(f"{stem}.{leaf}", None) for leaf in ("down", "up", "alpha"))
        modules.append(
            build_module(_COMPONENTS[component], module_path, down=down, up=up, alpha=alpha)
        )
    if tensors:
        raise AdapterError(
            f"The file is not a Brushwork adapter: it has the key {min(tensors)[:80]!r}."
        )
    adapter = LoraAdapter(modules=tuple(modules), metadata=header.metadata)
    check_adapter(adapter)
    return adapter


def build_module(
    component: Component,
    path: str,
    *,
    down: Tensor | None,
    up: Tensor | None,
    alpha: Tensor | float | None,
) -> LoraModule:
    """A module in fp32; a missing alpha means the rank, as in every loader."""
    if down is None or up is None:
        raise AdapterError(
            f"The adapter is incomplete: one of the two matrices of {component}.{path} is missing."
        )
    if isinstance(alpha, Tensor) and alpha.numel() != 1:
        raise AdapterError(f"The alpha of {component}.{path} is not a single number.")
    if down.dim() not in (2, 4):
        raise AdapterError(f"The tensors of {component}.{path} have an unknown shape.")
    value = float(down.shape[0]) if alpha is None else float(alpha)
    return LoraModule(component, path, down.float(), up.float(), value)


def read_tensors(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and tensors of an adapter file, after a check of all limits."""
    try:
        header = read_header(path)
        check_limits(path, header)
        if all(entry.dtype == "F32" for entry in header.tensors.values()):
            return header, _read_fp32(path, header)
        with safe_open(path, framework="pt", device="cpu") as file:
            return header, {name: file.get_tensor(name) for name in header.tensors}
    except HeaderError as error:
        raise AdapterError(str(error)) from error
    except (SafetensorError, OSError) as error:
        raise AdapterError("The file is damaged: its tensors cannot be read.") from error


def _read_fp32(path: Path, header: Header) -> dict[str, Tensor]:
    """The tensors of a file of fp32 alone, read in one pass: parts of one block of memory.

    For a file of many small tensors the library takes most of its time for each of them.
    """
    if not header.tensors:
        return {}
    ordered = sorted(header.tensors.items(), key=lambda named: named[1].start)  # no holes: checked
    numbers = [prod(entry.shape) for _, entry in ordered]
    block = bytearray(sum(numbers) * DTYPE_BYTES["F32"])
    with path.open("rb") as file:
        file.seek(header.data_offset)
        if file.readinto(block) != len(block):
            raise HeaderError("The file is cut off: tensors are missing at its end.")
    parts = torch.split_with_sizes(torch.frombuffer(block, dtype=torch.float32), numbers)
    return {
        name: part.view(entry.shape) for (name, entry), part in zip(ordered, parts, strict=True)
    }


def check_adapter(adapter: LoraAdapter) -> None:
    """Raise AdapterError unless all shapes match and all values are finite."""
    if not adapter.modules:
        raise AdapterError("The file is not an adapter: it contains no LoRA modules.")
    seen: set[str] = set()
    for module in adapter.modules:
        if module.key in seen:
            raise AdapterError(f"The module {module.key} occurs twice.")
        seen.add(module.key)
        _check_module(module)


def _check_module(module: LoraModule) -> None:
    down, up = module.down, module.up
    fits = down.dim() in (2, 4) and up.dim() == down.dim() and up.shape[1] == down.shape[0]
    if not fits or (up.dim() == 4 and tuple(up.shape[2:]) != (1, 1)):
        raise AdapterError(
            f"The shapes of {module.key} do not match: down {tuple(down.shape)}, "
            f"up {tuple(up.shape)}."
        )
    if not 0 < module.rank <= MAX_RANK:
        raise AdapterError(
            f"The rank of {module.key} is {module.rank}; ranks from 1 to {MAX_RANK} are supported."
        )
    if not (_is_finite(down) and _is_finite(up) and math.isfinite(module.alpha)):
        raise AdapterError(f"The weights of {module.key} contain NaN or infinity.")


def _is_finite(tensor: Tensor) -> bool:
    """True if all values are finite. If their sum is, each of them is: that is a quick check."""
    return math.isfinite(tensor.sum()) or bool(torch.isfinite(tensor).all())


def check_limits(path: Path, header: Header) -> None:
    """Raise AdapterError if sizes, types or shapes exceed the limits; needs only the header."""
    if path.stat().st_size > MAX_ADAPTER_BYTES:
        raise AdapterError(
            f"The file is larger than {size_text(MAX_ADAPTER_BYTES)}, the largest supported size."
        )
    if len(header.tensors) > MAX_TENSORS:
        raise AdapterError(
            f"The file has {len(header.tensors):,} tensors; at most {MAX_TENSORS:,} are supported."
        )
    for name, entry in header.tensors.items():
        allowed = ALPHA_DTYPES if name.endswith("alpha") else WEIGHT_DTYPES
        if entry.dtype not in allowed:
            raise AdapterError(
                f"The tensor {name[:80]!r} has the number type {entry.dtype}; F64, F32, F16, BF16 "
                "and F8 are supported."
            )
        if len(entry.shape) > 4 or any(not 0 < size <= MAX_DIMENSION for size in entry.shape):
            raise AdapterError(
                f"The tensor {name[:80]!r} has the shape {_shape_text(entry.shape)}; up to 4 "
                f"dimensions of 1 to {MAX_DIMENSION:,} are supported."
            )


def _shape_text(shape: tuple[int, ...]) -> str:
    listed = ", ".join(f"{size:.3g}" if size >= 10**9 else str(size) for size in shape[:6])
    return f"({listed}{', …' if len(shape) > 6 else ''})"
