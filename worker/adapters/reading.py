"""Adapters read from the namings in common use: canonical, kohya, and PEFT or diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from worker.adapters.canonical import (
    Adapter,
    AdapterError,
    Component,
    LoraModule,
    assemble,
    check,
    read_tensors,
)
from worker.adapters.naming import from_kohya_stem, with_text

PEFT_METADATA = "lora_adapter_metadata"
MAX_JSON_CHARACTERS = 1_000_000
_KOHYA_LEAVES = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}
_CANONICAL_LEAVES = {"down": "down", "up": "up", "alpha": "alpha"}
_PEFT_LEAVES = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
}
Stem = tuple[Component, str]


def read_any(path: Path) -> Adapter:
    """The validated adapter in a canonical, kohya-named or PEFT-named safetensors file.

    Raises AdapterError with a sentence for anything else, naming the first key it cannot read.
    """
    header, tensors = read_tensors(path)
    names = list(tensors)
    if any(name.startswith("lora_") for name in names):
        modules = _modules(tensors, _KOHYA_LEAVES, from_kohya_stem, alphas={})
    elif any(name.endswith((".down", ".up")) for name in names):
        modules = _modules(tensors, _CANONICAL_LEAVES, _split_component, alphas={})
    else:
        peft = {_modern(name): tensor for name, tensor in tensors.items()}
        ranks = {name: int(tensor.shape[0]) for name, tensor in peft.items() if tensor.dim()}
        alphas = _peft_alphas(ranks, header.metadata)
        modules = _modules(peft, _PEFT_LEAVES, _split_component, alphas=alphas)
    adapter = Adapter(modules=modules, metadata=header.metadata)
    check(adapter)
    return adapter


def _modules(
    tensors: Mapping[str, Tensor],
    leaves: Mapping[str, str],
    parse: Callable[[str], Stem],
    *,
    alphas: Mapping[Stem, float],
) -> tuple[LoraModule, ...]:
    """The modules of all tensors, in the order of their canonical keys."""
    grouped: dict[Stem, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        leaf = next((leaf for leaf in leaves if name.endswith(f".{leaf}")), None)
        if leaf is None:
            raise AdapterError(
                f"The file has the tensor {name[:80]!r}, which is not a part of a plain LoRA."
            )
        stem = parse(name.removesuffix(f".{leaf}"))
        group = grouped.setdefault(stem, {})
        if leaves[leaf] in group:
            raise AdapterError(f"The file names the module {stem[0]}.{stem[1]} twice.")
        group[leaves[leaf]] = tensor
    return tuple(
        assemble(
            *stem,
            down=group.get("down"),
            up=group.get("up"),
            alpha=group.get("alpha", alphas.get(stem)),
        )
        for stem, group in sorted(grouped.items())
    )


def _split_component(stem: str) -> Stem:
    component, _, path = stem.partition(".")
    if component not in set(Component) or not path:
        raise AdapterError(f"The file has a module with the unknown name {stem[:80]!r}.")
    kind = Component(component)
    return kind, path if kind is Component.UNET else with_text(path)


def _modern(name: str) -> str:
    """A name of old diffusers (`attn1.processor.to_out_lora.down`) as it is called today."""
    for projection in ("to_q", "to_k", "to_v", "to_out"):
        old = f".processor.{projection}_lora."
        if old in name:
            new = "to_out.0" if projection == "to_out" else projection
            return name.replace(old, f".{new}.lora.")
    return name


def _peft_alphas(ranks: Mapping[str, int], metadata: Mapping[str, str]) -> dict[Stem, float]:
    """The alpha of every PEFT module that diffusers' `lora_adapter_metadata` tells; none without.

    PEFT keeps alpha in a config, not in tensors: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
    """
    config = _peft_config(metadata.get(PEFT_METADATA, ""))
    alphas: dict[Stem, float] = {}
    for name, rank in ranks.items():
        stem_name = name.removesuffix(".lora_A.weight")
        component, _, path = stem_name.partition(".")
        alpha = config.get(f"{component}.lora_alpha")
        if stem_name == name or not isinstance(alpha, int | float):
            continue
        pattern = config.get(f"{component}.alpha_pattern")
        if isinstance(pattern, dict):
            alpha = _by_pattern(pattern, path, alpha)
        if config.get(f"{component}.use_rslora") is True:
            alpha = alpha * rank**0.5
        alphas[_split_component(stem_name)] = float(alpha)
    return alphas


def _by_pattern(pattern: Mapping[str, Any], path: str, default: float) -> float:
    """The alpha of the entry that ends `path` (as PEFT matches), else the default."""
    for suffix, value in pattern.items():
        if (path == suffix or path.endswith(f".{suffix}")) and isinstance(value, int | float):
            return float(value)
    return default


def _peft_config(text: str) -> dict[str, Any]:
    if not text:
        return {}
    if len(text) > MAX_JSON_CHARACTERS:
        raise AdapterError("The file's adapter settings are too long to be read.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError("The file's adapter settings are damaged.") from error
    return config if isinstance(config, dict) else {}
