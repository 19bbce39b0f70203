"""Inspecting a LoRA file: base, ranks, strength by block, dead layers, hashes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from worker.core.families.adapter_files import family_of_header, family_shapes
from worker.core.families.family import Component
from worker.core.lora_files.algebra import squared_norm_of_product
from worker.core.lora_files.canonical import LoraModule
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_layout import FileLayout, ModuleLayout, read_layout
from worker.core.lora_files.read_metadata import SourceMetadata, read_source_metadata
from worker.core.lora_files.reading import BaseWeights, convert_layout, matching_families

Number = TypeVar("Number", int, float)

_NUMBERED = (
    *("down_blocks", "up_blocks", "noise_refiner", "context_refiner", "layers"),
    *("transformer_blocks", "single_transformer_blocks"),
)
_PLACES = ("conv_in", "time_embedding", "add_embedding", "down", "mid", "up", "conv_out")
CHUNK = 2**20
EMPTY_HASH = "e3b0c44298fc"  # SHA-256 of empty data: model sites ignore it
_TARGETS = (
    ("attention", ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")),
    ("attention", ("attn.to_out", "to_add_out", "to_qkv_mlp_proj")),  # the last with feed-forward
    ("feed-forward", ("ff.net.0.proj", "ff.net.2", "mlp.fc1", "mlp.fc2", "w1", "w2", "w3")),
    ("feed-forward", ("linear_in", "linear_out")),
    ("projection", ("proj_in", "proj_out")),
    ("sampler", ("samplers.0.conv",)),
    ("time embedding", ("time_emb_proj", "time_embedding.linear_1", "time_embedding.linear_2")),
    ("size embedding", ("add_embedding.linear_1", "add_embedding.linear_2")),
    ("modulation", ("adaLN_modulation.0", "adaLN_modulation.1")),
    ("convolution", ("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out")),
)


@dataclass(frozen=True)
class FileHashes:
    """The hashes by which sites and programs identify a file, in lower case hex.

    `tensors`: that of the bytes after the header (kohya's `sshs_model_hash`), `autov2` the first 10
    digits of `sha256`, `autov3` the first 12 of `tensors`.
    """

    sha256: str
    autov2: str
    tensors: str
    autov3: str


@dataclass(frozen=True)
class BlockStrength:
    """A block of the base: how many of its layers change, and by how much.

    `norm`: the Frobenius norm of all changes together at weight 1.
    """

    name: str
    modules: int
    norm: float


@dataclass(frozen=True)
class Inspection:
    """Everything known about a file; `unreadable` says why figures of its tensors are missing."""

    size_bytes: int
    bases: tuple[str, ...]
    namings: tuple[str, ...]
    kinds: Mapping[str, int]
    components: Mapping[str, int]
    targets: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    parameters: int
    hashes: FileHashes
    about: SourceMetadata
    metadata: Mapping[str, str]
    blocks: Sequence[BlockStrength] = ()
    dead: Sequence[str] = ()
    notes: Sequence[str] = ()
    unreadable: str | None = None
    strengths: Mapping[float, int] = field(default_factory=dict)


def inspect_file(
    path: Path,
    weights: BaseWeights | None = None,
    *,
    on_module: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """The inspection of the LoRA file at `path`; raises AdapterError if it cannot be read.

    `weights`: those of the base, which only a DoRA needs. `on_module(done, total)` is called before
    each module.
    """
    layout = read_layout(path)
    families = matching_families(layout)
    if families:
        named = family_of_header(layout.metadata)
        layout = layout.with_shapes(family_shapes(named if named in families else families[0]))
    modules: Sequence[LoraModule] = ()
    notes: list[str] = []
    unreadable = None
    try:
        reading = convert_layout(layout, weights, on_module=on_module, allow_loss=True)
        modules, notes = reading.adapter.modules, list(reading.notes)
    except AdapterError as error:
        unreadable = str(error)
    hashes = hash_file(path, layout.header.data_offset)
    return Inspection(
        size_bytes=path.stat().st_size,
        bases=tuple(family.label for family in families),
        namings=tuple(sorted(layout.namings)),
        kinds=dict(layout.kinds),
        components=dict(Counter(str(module.component) for module in layout.modules)),
        targets=dict(Counter(layer_kind(module.path) for module in layout.modules)),
        ranks=_sorted_counts(module.parametrization.rank_of_scale for module in layout.modules),
        alphas=_sorted_counts(map(_file_alpha, layout.modules, modules)),
        strengths=_sorted_counts(round(module.scale, 6) for module in modules),
        parameters=sum(module.down.numel() + module.up.numel() for module in modules),
        hashes=hashes,
        about=read_source_metadata(layout.metadata, (), path.name),
        metadata=layout.metadata,
        blocks=_block_strengths(modules),
        dead=tuple(module.key for module in modules if _is_dead(module)),
        notes=tuple(notes + _hash_notes(layout, hashes)),
        unreadable=unreadable,
    )


def layer_kind(path: str) -> str:
    """The usual name of the kind of layer that a module changes."""
    return next((name for name, ends in _TARGETS if path.endswith(ends)), "other")


def block_name(module: LoraModule) -> str:
    """The block of the base that a module belongs to, such as `unet.down_blocks.1`."""
    parts = module.path.split(".")
    if module.component is not Component.DENOISER:
        number = parts[parts.index("layers") + 1] if "layers" in parts[:-1] else "other"
        return f"{module.component}.layer.{number}"
    if parts[0] in _NUMBERED and len(parts) > 1:
        return f"unet.{parts[0]}.{parts[1]}"
    return f"unet.{parts[0]}"


def hash_file(path: Path, data_offset: int) -> FileHashes:
    """All hashes of a file, from one pass over it."""
    whole, tensors = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        whole.update(file.read(data_offset))
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            tensors.update(chunk)
    sha256, after = whole.hexdigest(), tensors.hexdigest()
    return FileHashes(sha256, sha256[:10], after, after[:12])


def _file_alpha(planned: ModuleLayout, module: LoraModule) -> float:
    """The alpha in the file; that of a converted module belongs to another rank."""
    return round(module.scale * planned.parametrization.rank_of_scale, 6)


def _sorted_counts(values: Iterable[Number]) -> dict[Number, int]:
    return dict(sorted(Counter(values).items()))


def _block_strengths(modules: Sequence[LoraModule]) -> tuple[BlockStrength, ...]:
    squares: dict[str, list[float]] = defaultdict(list)
    for module in modules:
        squared = squared_norm_of_product(module.down, module.up) * module.scale**2
        squares[block_name(module)].append(squared)
    return tuple(
        BlockStrength(name, len(found), math.sqrt(sum(found)))
        for name, found in sorted(squares.items(), key=lambda item: _block_order(item[0]))
    )


def _block_order(name: str) -> tuple[str, int, int]:
    _, _, number = name.rpartition(".")
    places = (*_PLACES, *_NUMBERED[2:])
    place = next((i for i, word in enumerate(places) if f".{word}" in name), len(places))
    component = name.partition(".")[0]
    return component, place, int(number) if number.isdigit() else 0


def _is_dead(module: LoraModule) -> bool:
    return not bool(module.up.any()) or not bool(module.down.any()) or module.scale == 0


def _hash_notes(layout: FileLayout, hashes: FileHashes) -> list[str]:
    model_hash = layout.metadata.get("sshs_model_hash", "").lower()
    if not model_hash or model_hash == hashes.tensors:
        return []
    if model_hash.startswith(EMPTY_HASH):
        return ["sshs_model_hash is the hash of empty data, so model sites ignore it."]
    return [
        "sshs_model_hash does not match the tensors, which were changed after it was written. "
        "Programs that rely on it identify this as another file. Convert the file to correct it."
    ]
