"""Adapters written into the weights of a base: a diffusers folder or a single file comes out.

W = W0 + Σ wᵢ·scaleᵢ·BᵢAᵢ in fp32 from the pristine weights, cast once at the end; tensor by tensor,
so the memory it takes is that of the largest weight.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.core.bases.family import BaseFamily, BaseModelError
from worker.core.lora_files.compatible import require_fit
from worker.core.lora_files.header import HeaderError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools import folders
from worker.core.lora_files.tools.checkpoint import Checkpoint, Name
from worker.core.lora_files.tools.ldm_names import (
    ENCODERS,
    OPEN_CLIP_ENCODERS,
    LdmTensor,
    ldm_names,
)
from worker.core.lora_files.tools.lowrank import one_thread
from worker.core.lora_files.tools.stack import Layer, ToolError, layers_of
from worker.core.lora_files.tools.stream import DTYPES, Item, check_room, sentence_when_full, write

Progress = Callable[[int, int], None]
OPEN_CLIP_LAYER = re.compile(r"(\.transformer\.resblocks\.)(\d+)(\.)")
PROVENANCE = "brushwork.json"  # in a folder; a single file has it in its header
STALE_METADATA = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


class FuseLayout(StrEnum):
    """DIFFUSERS: a folder. SINGLE: one file with the original names, for all other programs."""

    DIFFUSERS = "diffusers"
    SINGLE = "single"


class FuseDtype(StrEnum):
    """The number type of all weights; KEEP: each as the base has it."""

    KEEP = "keep"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


_TORCH = {
    FuseDtype.FP16: torch.float16,
    FuseDtype.BF16: torch.bfloat16,
    FuseDtype.FP32: torch.float32,
}


@dataclass(frozen=True)
class FuseOptions:
    """What is written."""

    layout: FuseLayout = FuseLayout.DIFFUSERS
    dtype: FuseDtype = FuseDtype.FP16


@dataclass(frozen=True)
class Fused:
    """What was written: bytes, and how many layers were changed."""

    size_bytes: int
    layers: int


def fuse(
    base: Path,
    stack: Sequence[LoadedAdapter],
    out: Path,
    options: FuseOptions,
    *,
    base_name: str = "this base",
    on_tensor: Progress = lambda done, total: None,
) -> Fused:
    """Write `base` with the stack in its weights to `out`, which appears complete or not at all.

    `on_tensor(done, total)` may raise to stop. Raises ToolError, AdapterMismatchError or
    BaseModelError with a sentence, with nothing left behind.
    """
    if out.exists():
        raise ToolError(f"There is already something at {out.name}; choose another name.")
    try:
        with Checkpoint(base) as checkpoint:
            fusing = _Fusing(checkpoint, stack, options, base_name)
            return fusing.write(out, on_tensor)
    except HeaderError as error:
        raise BaseModelError(str(error)) from error


class _Fusing:
    """One base on its way to another file."""

    def __init__(
        self, base: Checkpoint, stack: Sequence[LoadedAdapter], options: FuseOptions, base_name: str
    ) -> None:
        self._base = base
        self._stack = stack
        self._options = options
        found = layers_of(stack)
        for one in stack:
            require_fit(one.adapter, base.target_shapes, base_name=base_name)
        self._layers: dict[Name, Layer] = {base.targets[layer.key]: layer for layer in found}

    def write(self, out: Path, on_tensor: Progress) -> Fused:
        single = self._options.layout is FuseLayout.SINGLE
        plan = {"": self._single_items()} if single else self._folder_items()
        total = sum(len(items) for items in plan.values())
        size = sum(item.size_bytes for items in plan.values() for item in items)
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        check_room(out.parent, size)
        done = 0

        def on_item() -> None:
            nonlocal done
            done += 1
            on_tensor(done, total)

        with sentence_when_full():
            if single:
                write(out, plan[""], metadata=self._metadata(), on_item=on_item)
            else:
                with _appearing(out) as folder:
                    for file, items in plan.items():
                        write(folder / file, items, metadata={"format": "pt"}, on_item=on_item)
                    folders.write_rest(self._base, folder)
                    told = json.dumps(self._told(), ensure_ascii=False, indent=2)
                    (folder / PROVENANCE).write_text(told + "\n", encoding="utf-8")
        return Fused(size, len(self._layers))

    def _folder_items(self) -> dict[str, list[Item]]:
        """The tensors of each file of a diffusers folder, one file a component."""
        if self._base.info.layout == "diffusers":
            return {
                folders.weight_file(component): [i for f in files for i in self._as_stored(f)]
                for component, files in self._base.files.items()
            }
        return {
            folders.weight_file(component): [
                self._item(folders.tensor_name(component, name), (component, name), shape)
                for name, shape in shapes.items()
            ]
            for component, shapes in self._base.modules.items()
        }

    def _single_items(self) -> list[Item]:
        if self._base.info.layout == "single_file":
            return self._as_stored(self._base.info.path)
        return self._renamed()

    def _as_stored(self, file: Path) -> list[Item]:
        """Every tensor of a file under its own name, with what is known of no module, too."""
        owners = self._base.by_stored_name()
        items = []
        for name, entry in self._base.headers[file].tensors.items():
            if entry.dtype not in DTYPES:
                raise ToolError(f"The base has numbers of the type {entry.dtype}, unknown here.")
            stored = DTYPES[entry.dtype]
            changed = [owner for owner in owners.get((file, name), []) if owner in self._layers]
            read = self._reader(file, name, changed)
            items.append(Item(name, self._dtype(stored), entry.shape, read))
        return items

    def _reader(self, file: Path, name: str, changed: Sequence[Name]) -> Callable[[], Tensor]:
        def read() -> Tensor:
            tensor = self._base.read_stored(file, name)
            if not changed:
                return tensor
            tensor = tensor.float().clone()
            for owner in changed:
                third = self._base.tensors[owner].place.third
                rows = tensor if third is None else tensor.chunk(3)[third]
                rows.copy_(_with_change(rows, self._layers[owner]))
            return tensor

        return read

    def _renamed(self) -> list[Item]:
        """The tensors of a folder under the names of a single file."""
        family, base = self._base.info.family, self._base
        folders.require_single_file(base)
        encoders = ENCODERS[family]
        names = ldm_names(base.modules, open_clip=OPEN_CLIP_ENCODERS[family], prefixes=encoders)
        items: list[Item] = []
        thirds: dict[str, dict[int, Name]] = {}
        for (component, name), stored in base.tensors.items():
            place = names.of(component, name)
            if place.third is not None:
                thirds.setdefault(place.name, {})[place.third] = (component, name)
                continue
            shape = _placed_shape(place, stored.shape)
            items.append(self._item(place.name, (component, name), shape, place))
        for fused_name, parts in thirds.items():
            three = [parts[third] for third in range(3)]
            rows, *rest = base.tensors[three[0]].shape
            dtype = self._dtype(self._stored_dtype(three[0]))
            items.append(Item(fused_name, dtype, (3 * rows, *rest), self._side_by_side(three)))
        return items + (_unread_layer(items) if family is BaseFamily.SD2 else [])

    def _side_by_side(self, names: Sequence[Name]) -> Callable[[], Tensor]:
        return lambda: torch.cat([self._fused(name) for name in names])

    def _item(
        self, name: str, source: Name, shape: tuple[int, ...], place: LdmTensor | None = None
    ) -> Item:
        def read() -> Tensor:
            tensor = self._fused(source)
            return tensor.T if place and place.transposed else tensor

        return Item(name, self._dtype(self._stored_dtype(source)), shape, read)

    def _fused(self, name: Name) -> Tensor:
        tensor = self._base.read(name)
        layer = self._layers.get(name)
        return tensor if layer is None else _with_change(tensor, layer)

    def _stored_dtype(self, name: Name) -> torch.dtype:
        stored = self._base.tensors[name]
        return DTYPES[self._base.headers[stored.file].tensors[stored.place.name].dtype]

    def _dtype(self, stored: torch.dtype) -> torch.dtype:
        if not stored.is_floating_point or self._options.dtype is FuseDtype.KEEP:
            return stored
        return _TORCH[self._options.dtype]

    def _told(self) -> dict[str, Any]:
        """What was fused into what."""
        adapters = [
            {"name": one.name, "weight": one.weight, "text_encoder_weight": one.text_encoder_weight}
            for one in self._stack
        ]
        info = self._base.info
        return {"base": info.path.stem, "fingerprint": info.fingerprint, "adapters": adapters}

    def _metadata(self) -> dict[str, str]:
        """What a single file says of itself: the base's own words and what was fused into it."""
        info = self._base.info
        side = info.resolution or info.family.facts.native_side
        known: Mapping[str, str] = {}
        if info.layout == "single_file":
            known = self._base.headers[info.path].metadata
        ours = {
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": info.family.facts.architecture_v,
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
            "modelspec.title": info.path.stem,
            "modelspec.resolution": f"{side}x{side}",
            "modelspec.prediction_type": "v"
            if info.prediction_type == "v_prediction"
            else "epsilon",
        }
        kept = {key: value for key, value in known.items() if key not in STALE_METADATA}
        merged_from = ", ".join([info.path.stem, *(one.name for one in self._stack)])
        return {
            "format": "pt",
            **ours,
            **kept,
            "modelspec.merged_from": merged_from,
            "brushwork.fused": json.dumps(self._told(), ensure_ascii=False),
        }


def _with_change(tensor: Tensor, layer: Layer) -> Tensor:
    """The weight plus the layer's changes, in fp32 and in the order of the stack."""
    total = tensor.float().flatten(1)
    for part in layer.parts:
        up, down = part.module.up.flatten(1).float(), part.module.down.flatten(1).float()
        with one_thread():
            total = torch.addmm(total, up, down, alpha=part.weight * part.module.scale)
    return total.reshape(tensor.shape)


def _unread_layer(items: Sequence[Item]) -> list[Item]:
    """A copy of OpenCLIP's last layer as one more: SD 2 reads the state before the last layer.

    Folders leave that layer out; programs that open single files expect it, whatever is in it.
    """
    found = [(item, OPEN_CLIP_LAYER.search(item.name)) for item in items]
    last = max(int(at[2]) for _, at in found if at)
    return [
        replace(item, name=OPEN_CLIP_LAYER.sub(rf"\g<1>{last + 1}\g<3>", item.name))
        for item, at in found
        if at and int(at[2]) == last
    ]


def _placed_shape(place: LdmTensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    if place.transposed:
        return (shape[1], shape[0])
    return (*shape, 1, 1) if place.square else shape


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill that is renamed to `out` at the end; taken away when anything goes wrong."""
    folder = out.parent / f".{out.name}.{secrets.token_hex(4)}.part"
    folder.mkdir()
    try:
        yield folder
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sweep(out: Path) -> None:
    """Take away what an earlier, killed attempt at this very file left behind."""
    for left in out.parent.iterdir():
        if left.name.startswith(f".{out.name}.") and left.name.endswith(".part"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
