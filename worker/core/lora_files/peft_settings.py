"""The alphas of modules with PEFT names, from diffusers' `lora_adapter_metadata`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from worker.core.lora_files.canonical import Component
from worker.core.lora_files.errors import AdapterError

PEFT_METADATA = "lora_adapter_metadata"
MAX_JSON_CHARACTERS = 1_000_000
Module = tuple[Component, str]


def peft_alphas(ranks: Mapping[Module, int], metadata: Mapping[str, str]) -> dict[Module, float]:
    """The alpha of every PEFT module that the settings contain; empty without settings.

    PEFT stores alpha in a config, not in tensors. The scale is alpha / rank, or alpha / sqrt(rank)
    with rsLoRA.
    """
    config = _parse_settings(metadata.get(PEFT_METADATA, ""))
    alphas: dict[Module, float] = {}
    for (component, path), rank in ranks.items():
        setting = config.get(f"{component}.lora_alpha")
        if not _is_number(setting):
            continue
        alpha = float(setting)
        pattern = config.get(f"{component}.alpha_pattern")
        if isinstance(pattern, dict):
            alpha = _alpha_by_pattern(pattern, path, alpha)
        if config.get(f"{component}.use_rslora") is True:
            alpha = alpha * rank**0.5
        alphas[component, path] = alpha
    return alphas


def _alpha_by_pattern(pattern: Mapping[str, Any], path: str, default: float) -> float:
    """The alpha of the entry that is a suffix of `path` (as in PEFT), else the default."""
    for suffix, value in pattern.items():
        if (path == suffix or path.endswith(f".{suffix}")) and _is_number(value):
            return float(value)
    return default


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _parse_settings(text: str) -> dict[str, Any]:
    if not text:
        return {}
    if len(text) > MAX_JSON_CHARACTERS:
        raise AdapterError("The adapter settings in the file's header are too long.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            "The adapter settings in the file's header are damaged: they are not readable JSON."
        ) from error
    return config if isinstance(config, dict) else {}
