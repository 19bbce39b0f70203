"""What a LoRA file is, in numbers: base, ranks, strength by block, dead layers, hashes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from worker.core.lora_files.algebra import squared_norm_of_product
from worker.core.lora_files.canonical import AdapterError, Component, LoraModule
from worker.core.lora_files.families import family_shapes
from worker.core.lora_files.file_layout import Plan, PlannedModule, plan
from worker.core.lora_files.read_metadata import About, about
from worker.core.lora_files.reading import BaseWeights, convert, families_of, told_family

Number = TypeVar("Number", int, float)

CHUNK = 2**20
EMPTY_HASH = "e3b0c44298fc"  # SHA-256 of nothing: sites take it as no hash
_TARGETS = (
    ("attention", ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")),
    ("feed-forward", ("ff.net.0.proj", "ff.net.2", "mlp.fc1", "mlp.fc2")),
    ("projection", ("proj_in", "proj_out")),
    ("sampler", ("samplers.0.conv",)),
    ("time embedding", ("time_emb_proj", "time_embedding.linear_1", "time_embedding.linear_2")),
    ("size embedding", ("add_embedding.linear_1", "add_embedding.linear_2")),
    ("convolution", ("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out")),
)


@dataclass(frozen=True)
class Hashes:
    """The names by which sites and programs know a file, in lower case hex.

    `tensors` is of the bytes after the header (kohya's `sshs_model_hash`), `autov2` the first 10
    digits of `sha256`, `autov3` the first 12 of `tensors`.
    """

    sha256: str
    autov2: str
    tensors: str
    autov3: str


@dataclass(frozen=True)
class Block:
    """A part of the base: how many of its layers change, and by how much.

    `norm` is the Frobenius norm of all changes together at weight 1.
    """

    name: str
    modules: int
    norm: float


@dataclass(frozen=True)
class Inspection:
    """Everything that can be told of a file; `unreadable` says why numbers are missing."""

    size_bytes: int
    bases: tuple[str, ...]
    namings: tuple[str, ...]
    kinds: Mapping[str, int]
    components: Mapping[str, int]
    targets: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    parameters: int
    hashes: Hashes
    told: About
    metadata: Mapping[str, str]
    blocks: Sequence[Block] = ()
    dead: Sequence[str] = ()
    notes: Sequence[str] = ()
    unreadable: str | None = None
    strengths: Mapping[float, int] = field(default_factory=dict)


def inspect(path: Path, weights: BaseWeights | None = None) -> Inspection:
    """What the LoRA file at `path` is. Raises AdapterError when it is none, or damaged.

    `weights` are the base's, which only a DoRA needs.
    """
    found = plan(path)
    families = families_of(found)
    if families:
        told = told_family(found.metadata)
        found = found.on(family_shapes(told if told in families else families[0]))
    modules: Sequence[LoraModule] = ()
    notes: list[str] = []
    unreadable = None
    try:
        reading = convert(found, weights)
        modules, notes = reading.adapter.modules, list(reading.notes)
    except AdapterError as error:
        unreadable = str(error)
    hashes = hashes_of(path, found.header.data_offset)
    return Inspection(
        size_bytes=path.stat().st_size,
        bases=tuple(family.label for family in families),
        namings=tuple(sorted(found.namings)),
        kinds=dict(found.kinds),
        components=dict(Counter(str(module.component) for module in found.modules)),
        targets=dict(Counter(target_of(module.path) for module in found.modules)),
        ranks=_counted(module.form.rank_of_scale for module in found.modules),
        alphas=_counted(map(_alpha, found.modules, modules)),
        strengths=_counted(round(module.scale, 6) for module in modules),
        parameters=sum(module.down.numel() + module.up.numel() for module in modules),
        hashes=hashes,
        told=about(found.metadata, (), path.name),
        metadata=found.metadata,
        blocks=_blocks(modules),
        dead=tuple(module.key for module in modules if _is_dead(module)),
        notes=tuple(notes + _hash_notes(found, hashes)),
        unreadable=unreadable,
    )


def target_of(path: str) -> str:
    """What kind of layer a module changes, as people call it."""
    return next((name for name, ends in _TARGETS if path.endswith(ends)), "other")


def block_of(module: LoraModule) -> str:
    """The part of the base that a module lies in: `unet.down_blocks.1`, `text_encoder.layer.3`."""
    parts = module.path.split(".")
    if module.component is not Component.UNET:
        number = parts[parts.index("layers") + 1] if "layers" in parts[:-1] else "other"
        return f"{module.component}.layer.{number}"
    if parts[0] in ("down_blocks", "up_blocks") and len(parts) > 1:
        return f"unet.{parts[0]}.{parts[1]}"
    return f"unet.{parts[0]}"


def hashes_of(path: Path, data_offset: int) -> Hashes:
    """All hashes of a file, in one reading."""
    whole, tensors = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        whole.update(file.read(data_offset))
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            tensors.update(chunk)
    sha256, after = whole.hexdigest(), tensors.hexdigest()
    return Hashes(sha256, sha256[:10], after, after[:12])


def _alpha(planned: PlannedModule, module: LoraModule) -> float:
    """The file's own alpha: that of a converted module is of another rank."""
    return round(module.scale * planned.form.rank_of_scale, 6)


def _counted(values: Iterable[Number]) -> dict[Number, int]:
    return dict(sorted(Counter(values).items()))


def _blocks(modules: Sequence[LoraModule]) -> tuple[Block, ...]:
    squares: dict[str, list[float]] = defaultdict(list)
    for module in modules:
        squared = squared_norm_of_product(module.down, module.up) * module.scale**2
        squares[block_of(module)].append(squared)
    return tuple(
        Block(name, len(found), math.sqrt(sum(found)))
        for name, found in sorted(squares.items(), key=lambda item: _order(item[0]))
    )


def _order(name: str) -> tuple[str, int, int]:
    _, _, number = name.rpartition(".")
    places = ("conv_in", "time_embedding", "add_embedding", "down", "mid", "up", "conv_out")
    place = next((i for i, word in enumerate(places) if word in name), len(places))
    component = name.partition(".")[0]
    return component, place, int(number) if number.isdigit() else 0


def _is_dead(module: LoraModule) -> bool:
    return not bool(module.up.any()) or not bool(module.down.any()) or module.scale == 0


def _hash_notes(found: Plan, hashes: Hashes) -> list[str]:
    told = found.metadata.get("sshs_model_hash", "").lower()
    if not told or told == hashes.tensors:
        return []
    if told.startswith(EMPTY_HASH):
        return ["The header's sshs_model_hash is that of nothing; sites take it as no hash."]
    return [
        "The header's sshs_model_hash is not that of the tensors: they were changed after it was "
        "written, and programs that trust it take this for another file. Convert the file anew."
    ]
