"""Fusing adapters into the weights of a base: writes a diffusers folder or a single file.

W = W0 + Σ wᵢ·scaleᵢ·BᵢAᵢ in fp32 from the original weights, cast once at the end. Tensors are
written one at a time, so the memory needed is that of the largest weight.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.core.bases.family import BaseModelError
from worker.core.families.adapter_files import files_of
from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.compatible import require_fit
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools import folders
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint, TensorName
from worker.core.lora_files.tools.combine import Progress
from worker.core.lora_files.tools.ldm_names import LdmTensor, ldm_names
from worker.core.lora_files.tools.stack import Layer, ToolError, layers_of
from worker.core.lora_files.tools.stream import (
    TensorItem,
    check_disk_space,
    translate_full_disk,
    write_tensors,
)
from worker.core.safetensors_header import HeaderError
from worker.core.torch_dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES
from worker.core.words import FusedDtype, FuseLayout

OPEN_CLIP_LAYER = re.compile(r"(\.transformer\.resblocks\.)(\d+)(\.)")
PROVENANCE = "brushwork.json"  # in a folder; a single file has it in its header
NO_SINGLE_FILE = "{family} bases are only written as folders. Choose a diffusers folder."
STALE_METADATA = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


@dataclass(frozen=True)
class FuseOptions:
    """Layout and number type of the result."""

    layout: FuseLayout = FuseLayout.DIFFUSERS
    dtype: FusedDtype = FusedDtype.FP16


@dataclass(frozen=True)
class FuseResult:
    """The size of the result, and how many layers were changed."""

    size_bytes: int
    layers: int


def fuse_adapters(
    base: Path,
    stack: Sequence[LoadedAdapter],
    out: Path,
    options: FuseOptions,
    *,
    base_name: str = "this base",
    on_tensor: Progress = lambda done, total: None,
) -> FuseResult:
    """Write `base` with the stack fused into its weights to `out`, atomically.

    `on_tensor(done, total)` may raise to stop. Raises ToolError, AdapterMismatchError or
    BaseModelError with a sentence; no partial file remains.
    """
    if out.exists():
        raise ToolError(f"{out.name} already exists. Choose another name.")
    try:
        with BaseCheckpoint(base) as checkpoint:
            fuser = _BaseFuser(checkpoint, stack, options, base_name)
            return fuser.write(out, on_tensor)
    except HeaderError as error:
        raise BaseModelError(str(error)) from error


class _BaseFuser:
    """Writes one base with a stack of adapters fused into it."""

    def __init__(
        self,
        base: BaseCheckpoint,
        stack: Sequence[LoadedAdapter],
        options: FuseOptions,
        base_name: str,
    ) -> None:
        self._base = base
        self._stack = stack
        self._options = options
        found = layers_of(stack)
        for one in stack:
            require_fit(one.adapter, base.target_shapes, base_name=base_name)
        self._layers: dict[TensorName, Layer] = {base.targets[layer.key]: layer for layer in found}

    def write(self, out: Path, on_tensor: Progress) -> FuseResult:
        single = self._options.layout is FuseLayout.SINGLE
        files = {"": self._single_items()} if single else self._folder_items()
        total = sum(len(items) for items in files.values())
        size = sum(item.size_bytes for items in files.values() for item in items)
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        check_disk_space(out.parent, size)
        done = 0

        def on_item() -> None:
            nonlocal done
            done += 1
            on_tensor(done, total)

        with translate_full_disk():
            if single:
                write_tensors(out, files[""], metadata=self._file_metadata(), on_item=on_item)
            else:
                with _replacing_folder(out) as folder:
                    for file, items in files.items():
                        write_tensors(
                            folder / file, items, metadata={"format": "pt"}, on_item=on_item
                        )
                    folders.write_other_files(self._base, folder)
                    provenance = json.dumps(self._list_sources(), ensure_ascii=False, indent=2)
                    (folder / PROVENANCE).write_text(provenance + "\n", encoding="utf-8")
        return FuseResult(size, len(self._layers))

    def _folder_items(self) -> dict[str, list[TensorItem]]:
        """The tensors of each file of a diffusers folder, one file per component."""
        if self._base.info.layout == "diffusers":
            return {
                folders.weight_file(self._base, component): [
                    i for f in files for i in self._stored_items(f)
                ]
                for component, files in self._base.files.items()
            }
        return {
            folders.weight_file(self._base, component): [
                self._make_item(folders.tensor_name(component, name), (component, name), shape)
                for name, shape in shapes.items()
            ]
            for component, shapes in self._base.modules.items()
        }

    def _single_items(self) -> list[TensorItem]:
        if self._base.info.layout == "single_file":
            return self._stored_items(self._base.info.path)
        return self._renamed_items()

    def _stored_items(self, file: Path) -> list[TensorItem]:
        """Every tensor of a file under its own name, including those that belong to no module."""
        owners = self._base.by_stored_name()
        items = []
        for name, entry in self._base.headers[file].tensors.items():
            if entry.dtype not in SAFETENSORS_DTYPES:
                raise ToolError(
                    f"The base has the unsupported number type {entry.dtype}. Choose another file "
                    "of it."
                )
            stored = SAFETENSORS_DTYPES[entry.dtype]
            changed = [owner for owner in owners.get((file, name), []) if owner in self._layers]
            read = self._make_reader(file, name, changed)
            items.append(TensorItem(name, self._target_dtype(stored), entry.shape, read))
        return items

    def _make_reader(
        self, file: Path, name: str, changed: Sequence[TensorName]
    ) -> Callable[[], Tensor]:
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

    def _renamed_items(self) -> list[TensorItem]:
        """The tensors of a folder under the names of a single file."""
        base, single = self._base, files_of(self._base.info.family).single_file
        if single is None:
            raise ToolError(NO_SINGLE_FILE.format(family=base.info.family.label))
        folders.require_single_file(base)
        names = ldm_names(base.modules, open_clip=single.open_clip, prefixes=single.encoders)
        items: list[TensorItem] = []
        thirds: dict[str, dict[int, TensorName]] = {}
        for (component, name), stored in base.tensors.items():
            place = names.of(component, name)
            if place.third is not None:
                thirds.setdefault(place.name, {})[place.third] = (component, name)
                continue
            shape = _placed_shape(place, stored.shape)
            items.append(self._make_item(place.name, (component, name), shape, place))
        for fused_name, parts in thirds.items():
            three = [parts[third] for third in range(3)]
            rows, *rest = base.tensors[three[0]].shape
            dtype = self._target_dtype(self._stored_dtype(three[0]))
            items.append(
                TensorItem(fused_name, dtype, (3 * rows, *rest), self._read_concatenated(three))
            )
        return items + (_unused_last_layer(items) if single.repeats_last_layer else [])

    def _read_concatenated(self, names: Sequence[TensorName]) -> Callable[[], Tensor]:
        return lambda: torch.cat([self._fused_tensor(name) for name in names])

    def _make_item(
        self, name: str, source: TensorName, shape: tuple[int, ...], place: LdmTensor | None = None
    ) -> TensorItem:
        def read() -> Tensor:
            tensor = self._fused_tensor(source)
            return tensor.T if place and place.transposed else tensor

        return TensorItem(name, self._target_dtype(self._stored_dtype(source)), shape, read)

    def _fused_tensor(self, name: TensorName) -> Tensor:
        tensor = self._base.read(name)
        layer = self._layers.get(name)
        return tensor if layer is None else _with_change(tensor, layer)

    def _stored_dtype(self, name: TensorName) -> torch.dtype:
        stored = self._base.tensors[name]
        return SAFETENSORS_DTYPES[self._base.headers[stored.file].tensors[stored.place.name].dtype]

    def _target_dtype(self, stored: torch.dtype) -> torch.dtype:
        if not stored.is_floating_point or self._options.dtype is FusedDtype.KEEP:
            return stored
        return TORCH_DTYPES[self._options.dtype]

    def _list_sources(self) -> dict[str, Any]:
        """The base and the adapters with their weights."""
        adapters = [
            {"name": one.name, "weight": one.weight, "text_encoder_weight": one.text_encoder_weight}
            | ({"block_weights": dict(one.block_weights)} if one.block_weights else {})
            for one in self._stack
        ]
        info = self._base.info
        return {"base": info.path.stem, "fingerprint": info.fingerprint, "adapters": adapters}

    def _file_metadata(self) -> dict[str, str]:
        """The metadata of a single file: that of the base, and what was fused into it."""
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
            "brushwork.fused": json.dumps(self._list_sources(), ensure_ascii=False),
        }


def _with_change(tensor: Tensor, layer: Layer) -> Tensor:
    """The weight plus the changes of the layer, in fp32 and in the order of the stack."""
    total = tensor.float().flatten(1)
    for change in layer.changes:
        up, down = change.module.up.flatten(1).float(), change.module.down.flatten(1).float()
        with one_thread():
            total = torch.addmm(total, up, down, alpha=change.weight * change.module.scale)
    return total.reshape(tensor.shape)


def _unused_last_layer(items: Sequence[TensorItem]) -> list[TensorItem]:
    """A copy of OpenCLIP's last layer as an extra one: SD 2 reads the state before the last layer.

    Folders omit that layer. Programs that load single files require it, but do not use it.
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
def _replacing_folder(out: Path) -> Iterator[Path]:
    """A new folder that is renamed to `out` at the end, and removed after an error."""
    folder = out.parent / f".{out.name}.{secrets.token_hex(4)}.part"
    folder.mkdir()
    try:
        yield folder
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_leftovers(out: Path) -> None:
    """Remove the partial files of an earlier, killed attempt to write `out`."""
    for left in out.parent.iterdir():
        if left.name.startswith(f".{out.name}.") and left.name.endswith(".part"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
