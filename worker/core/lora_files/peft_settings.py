"""The alphas of PEFT-named modules, which lie in diffusers' `lora_adapter_metadata`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from worker.core.lora_files.canonical import AdapterError, Component

PEFT_METADATA = "lora_adapter_metadata"
MAX_JSON_CHARACTERS = 1_000_000
Module = tuple[Component, str]


def peft_alphas(ranks: Mapping[Module, int], metadata: Mapping[str, str]) -> dict[Module, float]:
    """The alpha of every PEFT module that the settings tell; none without settings.

    PEFT keeps alpha in a config, not in tensors: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
    """
    config = _settings(metadata.get(PEFT_METADATA, ""))
    alphas: dict[Module, float] = {}
    for (component, path), rank in ranks.items():
        told = config.get(f"{component}.lora_alpha")
        if not _is_number(told):
            continue
        alpha = float(told)
        pattern = config.get(f"{component}.alpha_pattern")
        if isinstance(pattern, dict):
            alpha = _by_pattern(pattern, path, alpha)
        if config.get(f"{component}.use_rslora") is True:
            alpha = alpha * rank**0.5
        alphas[component, path] = alpha
    return alphas


def _by_pattern(pattern: Mapping[str, Any], path: str, default: float) -> float:
    """The alpha of the entry that ends `path` (as PEFT matches), else the default."""
    for suffix, value in pattern.items():
        if (path == suffix or path.endswith(f".{suffix}")) and _is_number(value):
            return float(value)
    return default


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _settings(text: str) -> dict[str, Any]:
    if not text:
        return {}
    if len(text) > MAX_JSON_CHARACTERS:
        raise AdapterError("The file's adapter settings are too long to be read.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError("The file's adapter settings are damaged.") from error
    return config if isinstance(config, dict) else {}
