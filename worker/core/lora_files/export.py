"""Writes downloads from the canonical adapter and checks each before it is offered."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from worker.core.families.adapter_file import UnknownNameError
from worker.core.families.adapter_files import files_of
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.names import TEXT_PREFIX
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, check_adapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.peft_settings import PEFT_METADATA
from worker.core.lora_files.proof.check import prove_file
from worker.core.lora_files.proof.result import Proof
from worker.core.lora_files.write_metadata import (
    common_rank_and_alpha,
    kohya_metadata,
    model_metadata,
    preview,
    sidecar,
)
from worker.core.safetensors_header import replacing, with_metadata
from worker.core.torch_dtypes import TORCH_DTYPES
from worker.core.words import FileFormat, WeightDtype

MAX_HEADER_BYTES = 1024 * 1024 - 1  # ComfyUI shows no metadata of longer headers
LEGACY_HASH_START, LEGACY_HASH_BYTES = 0x100000, 0x10000
DISPENSABLE = (
    "brushwork.train_config",
    "modelspec.thumbnail",
    "ss_tag_frequency",
    "modelspec.description",
)
"""Entries to drop from a header that is too long, in this order."""


class ExportError(AdapterError):
    """The download could not be written exactly."""


_FP16_ERROR = 2**-11  # of rounding to nearest, while numbers are above 2^-14
FP16_MAX = 65_504.0


def export(
    adapter: LoraAdapter,
    path: Path,
    *,
    format: FileFormat,
    dtype: WeightDtype,
    metadata: AdapterMetadata,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Proof:
    """Write a download to `path` and return its proof; deterministic.

    The file is read back under a temporary name, compared module by module with the canonical
    weights and checked with the rule of every program before it is renamed. `shapes` are those of
    the base model's layers, if known. Raises ExportError if a check fails.
    """
    check_adapter(adapter)
    files = files_of(metadata.family)
    adapter = with_whole_layers(adapter, metadata.family)
    if not files.has_alpha:
        written = replace(adapter, modules=tuple(_fold_scale(m) for m in adapter.modules))
    else:
        written = adapter if format is FileFormat.PEFT else with_one_strength(adapter)
    if dtype is WeightDtype.FP16:
        written = replace(written, modules=tuple(_kept_in_fp16(m) for m in written.modules))
    if format is FileFormat.PEFT:
        header, data = _peft_file(written, dtype, metadata)
    else:
        alphas = files.has_alpha and None not in common_rank_and_alpha(adapter)
        header, data = _kohya_file(written, dtype, metadata, alphas=alphas)
    proofs: list[Proof] = []

    def prove(file: Path) -> None:
        proof = prove_file(
            file, adapter, format=format, dtype=dtype, family=metadata.family, shapes=shapes
        )
        if not proof.passed:
            raise ExportError(proof.failures[0])
        proofs.append(proof)

    if format is FileFormat.BUNDLE:
        _write_bundle(path, header + data, metadata, check=prove)
    else:
        with replacing(path, check=prove) as file:
            file.write(header)
            file.write(data)
    return proofs[0]


def with_one_strength(adapter: LoraAdapter) -> LoraAdapter:
    """The adapter itself if all modules share rank and alpha; else one with every scale 1.

    diffusers reads one alpha for all attention modules, so different scales are folded into the
    weights; evenly, because fp16 would lose small numbers in one half.
    """
    if None not in common_rank_and_alpha(adapter):
        return adapter
    return replace(adapter, modules=tuple(_fold_scale(module) for module in adapter.modules))


def _fold_scale(module: LoraModule) -> LoraModule:
    if module.scale == 1:
        return module
    root = abs(module.scale) ** 0.5
    sign = -1.0 if module.scale < 0 else 1.0
    return replace(
        module, down=module.down * root, up=module.up * root * sign, alpha=float(module.rank)
    )


def _kohya_file(
    adapter: LoraAdapter,
    dtype: WeightDtype,
    metadata: AdapterMetadata,
    *,
    alphas: bool,
) -> tuple[bytes, bytes]:
    tensors: dict[str, Tensor] = {}
    down, up = files_of(metadata.family).leaves
    for stem, module in _layers_of_file(adapter, metadata.family):
        tensors[f"{stem}.{down}"] = _cast_tensor(module.down, dtype)
        tensors[f"{stem}.{up}"] = _cast_tensor(module.up, dtype)
        if alphas:
            tensors[f"{stem}.alpha"] = _alpha_tensor(module.alpha, dtype)
    return _with_hashes(serialize(tensors), kohya_metadata(adapter, metadata), kohya=True)


def with_whole_layers(adapter: LoraAdapter, family: BaseFamily) -> LoraAdapter:
    """The adapter with no change, of rank 1, for layers that are one in files with its own."""
    read, keys = files_of(family).read, {module.key for module in adapter.modules}
    added: dict[str, LoraModule] = {}
    for module in adapter.modules:
        try:
            layer = read(_stem(module, family))
        except ExportError:  # its name is missing in one format only
            continue
        for path in layer.parts if layer else ():
            down, up = torch.zeros_like(module.down[:1]), torch.zeros_like(module.up[:, :1])
            part = replace(module, path=path, down=down, up=up, alpha=1.0)
            if part.key not in keys:
                added[part.key] = part
    return replace(adapter, modules=(*adapter.modules, *added.values())) if added else adapter


def _layers_of_file(adapter: LoraAdapter, family: BaseFamily) -> Iterator[tuple[str, LoraModule]]:
    """The layers that a file has, by name; several that are one there have their ranks added up.

    Each has its own rows of the one, unless all read the input alike, whose rank is theirs then.
    """
    read = files_of(family).read
    stems: dict[str, dict[str, LoraModule]] = defaultdict(dict)
    for module in adapter.modules:
        stems[_stem(module, family)][module.path] = module
    for stem, found in stems.items():
        first, *others = found.values()
        if others:
            layer = read(stem)
            assert layer is not None
            parts = [found[path] for path in layer.parts]
            ups, downs = [part.up for part in parts], [part.down for part in parts]
            if all(torch.equal(down, downs[0]) for down in downs):
                first = replace(first, up=torch.cat(ups))
            else:
                first = replace(first, down=torch.cat(downs), up=torch.block_diag(*ups))  # type: ignore[no-untyped-call]
        yield stem, first


def _stem(module: LoraModule, family: BaseFamily) -> str:
    try:
        return files_of(family).stem(module.component, module.path)
    except UnknownNameError as error:
        raise ExportError(str(error)) from error


def _peft_file(
    adapter: LoraAdapter, dtype: WeightDtype, metadata_of_adapter: AdapterMetadata
) -> tuple[bytes, bytes]:
    tensors: dict[str, Tensor] = {}
    files = files_of(metadata_of_adapter.family)
    for module in adapter.modules:
        part = files.denoiser if module.component is Component.DENOISER else module.component
        tensors[f"{part}.{module.path}.lora_A.weight"] = _cast_tensor(module.down, dtype)
        tensors[f"{part}.{module.path}.lora_B.weight"] = _cast_tensor(module.up, dtype)
    settings: dict[str, Any] = {}
    for component in sorted(adapter.components) if files.has_alpha else ():
        modules = [module for module in adapter.modules if module.component is component]
        for name, value in _peft_settings(modules).items():
            settings[f"{component}.{name}"] = value
    metadata = {
        "format": "pt",
        **({PEFT_METADATA: json.dumps(settings, sort_keys=True)} if settings else {}),
        **model_metadata(metadata_of_adapter),
    }
    return _with_hashes(serialize(tensors), metadata, kohya=False)


def _peft_settings(modules: list[LoraModule]) -> dict[str, Any]:
    """The LoraConfig of one component, for diffusers' `lora_adapter_metadata`.

    Paths are without `text_model.`: PEFT compares their ends, so they match with and without it.
    """
    paths = {module.path.removeprefix(TEXT_PREFIX): module for module in modules}
    rank = Counter(module.rank for module in modules).most_common(1)[0][0]
    alpha = Counter(module.alpha for module in modules).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": _plain_number(alpha),
        "target_modules": sorted(paths),
        "rank_pattern": {p: m.rank for p, m in sorted(paths.items()) if m.rank != rank},
        "alpha_pattern": {
            p: _plain_number(m.alpha) for p, m in sorted(paths.items()) if m.alpha != alpha
        },
        "use_rslora": False,
        "bias": "none",
        "lora_dropout": 0.0,
    }


def _with_hashes(
    serialized: bytes, metadata: Mapping[str, str], *, kohya: bool
) -> tuple[bytes, bytes]:
    """(header, tensors) with the tensors' hashes in the header, which is kept below its limit."""
    entries = dict(metadata)
    for dispensable in ("", *DISPENSABLE):
        entries.pop(dispensable, None)
        hashed = entries | _compute_hashes(serialized, entries, kohya=kohya)
        header, data = with_metadata(serialized, hashed)
        if len(header) - 8 <= MAX_HEADER_BYTES:
            return header, data
    raise ExportError("The adapter has more modules than a file header can name.")


def _compute_hashes(
    serialized: bytes, metadata: Mapping[str, str], *, kohya: bool
) -> dict[str, str]:
    """The hashes by which other programs identify a file, defined by kohya and ModelSpec 1.0.1.

    kohya's older one is computed with only the `ss_*` entries in the header, over 64 KiB from
    1 MiB on (kohya-ss/sd-scripts `library/train_util.py` precalculate_safetensors_hashes).
    """
    older = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    header, data = with_metadata(serialized, older)
    digest = hashlib.sha256(data).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}"}
    if kohya:
        start = max(0, LEGACY_HASH_START - len(header))
        piece = data[start : max(0, LEGACY_HASH_START + LEGACY_HASH_BYTES - len(header))]
        hashes["sshs_model_hash"] = digest
        hashes["sshs_legacy_hash"] = hashlib.sha256(piece).hexdigest()[:8]
    return hashes


def _write_bundle(
    path: Path,
    weights: bytes,
    metadata: AdapterMetadata,
    *,
    check: Callable[[Path], None],
) -> None:
    """Write a zip of the kohya file, its sidecar and, if there is a cover, its preview."""
    name = f"{metadata.stem}.safetensors"
    members = {name: weights, f"{metadata.stem}.json": sidecar(metadata)}
    if metadata.cover is not None:
        members[f"{metadata.stem}.png"] = preview(metadata.cover)

    def check_member(bundle: Path) -> None:
        with tempfile.TemporaryDirectory(dir=bundle.parent) as folder:
            with zipfile.ZipFile(bundle) as archive:
                archive.extract(name, folder)
            check(Path(folder) / name)

    when = max(metadata.created.astimezone(UTC).timetuple()[:6], (1980, 1, 1, 0, 0, 0))
    with replacing(path, check=check_member) as file, zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            entry = zipfile.ZipInfo(member, date_time=when)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content, compress_type=zipfile.ZIP_STORED)


def _kept_in_fp16(module: LoraModule) -> LoraModule:
    """The module with its halves scaled to the same size, if fp16 would lose small numbers.

    The factor is a power of two, so the product is unchanged. Numbers too large for fp16 stay as
    they are: such an adapter is broken, and the checks then report it.
    """
    if _rounds_well(module.down) and _rounds_well(module.up):
        return module
    largest_down, largest_up = float(module.down.abs().max()), float(module.up.abs().max())
    if min(largest_down, largest_up) == 0 or max(largest_down, largest_up) > FP16_MAX:
        return module
    factor = 2.0 ** round(math.log2(largest_up / largest_down) / 2)
    return replace(module, down=module.down * factor, up=module.up / factor)


def _rounds_well(half: Tensor) -> bool:
    lost = (half.to(torch.float16).float() - half).norm()
    return bool(lost <= _FP16_ERROR * half.norm())


def _cast_tensor(tensor: Tensor, dtype: WeightDtype) -> Tensor:
    return tensor.detach().to("cpu", TORCH_DTYPES[dtype]).contiguous()


def _alpha_tensor(alpha: float, dtype: WeightDtype) -> Tensor:
    """Alpha in the weights' number type, as loaders expect, or fp32 if that would round it."""
    exact = torch.tensor(alpha, dtype=torch.float32)
    rounded = exact.to(TORCH_DTYPES[dtype])
    return rounded if rounded.float() == exact else exact


def _plain_number(value: float) -> float | int:
    """The number, as an int if it is whole, like in PEFT's configs."""
    return int(value) if value == int(value) else value
