"""The settings of files with PEFT names: alphas, and what a LoRA of these base models cannot be.

PEFT stores alpha in no tensor. diffusers writes the settings of every component into the header
(`lora_adapter_metadata`); peft itself writes those of its one model to `adapter_config.json`.

`alpha_pattern` and `rank_pattern` are regular expressions (huggingface/peft 0.21 `utils/other.py`,
get_pattern_key): the first that matches the end of a layer's name, after a dot, gives its value. A
pattern comes from a stranger, so RE2 matches it, in time and memory that grow with its length. That
and the time of all patterns together are limited.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import re2

from worker.core.families.family import Component
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_names import CONFIG_NAME

MAX_PATTERNS = 10_000
MAX_PATTERN = 400  # characters; the longest name of a layer has 90
MAX_BYTES = 1 << 16  # of a compiled pattern with its cache, which are kept for the other layers
TOTAL_SECONDS = 20.0  # of CPU time for a table; 700 patterns for 700 layers take 3 to 6 s
MAX_VALUE = 1e6

_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+")
# What `re`, which peft uses, and RE2 read in the same way.
_SYNTAX = re.compile(
    r"(?:[A-Za-z0-9_.^$|*+?,/ -]|\\[.dDwWsSbB-]|\[\^?(?:[A-Za-z0-9_. -]|\\[.dDwWsS-])+\]"
    r"|\((?!\?)|\(\?:|\)|\{\d{1,3}(?:,\d{0,3})?\})*"
)
PEFT_METADATA = "lora_adapter_metadata"
_TRANSFORMER = "transformer"  # how diffusers calls the denoiser that is no UNet
MAX_JSON_CHARACTERS = 1_000_000

_SUPPORTED_TYPES = ("LORA", "LOHA", "LOKR")
# Ways to begin a training that also change the base model, so that the matrices alone are wrong.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
_OTHER_MEANINGS = {
    "alora_invocation_tokens": "works only after certain words of the prompt (aLoRA)",
    "layer_replication": "repeats layers of its base model",
    "use_qalora": "groups its inputs (QALoRA)",
    "use_bdlora": "divides its matrices into blocks (BD-LoRA)",
    "arrow_config": "chooses among several adapters for every word (Arrow)",
}


class PatternTable:
    """Values by pattern, in the order of the file, which decides if several match."""

    def __init__(self, name: str, values: Mapping[str, float]) -> None:
        if len(values) > MAX_PATTERNS:
            raise AdapterError(
                f"The {name} of the PEFT settings has {len(values):,} entries; at most "
                f"{MAX_PATTERNS:,} are supported."
            )
        self._name = name
        self._values = {pattern: _number(name, value) for pattern, value in values.items()}
        self._compiled: dict[str, Any] = {}
        self._left = TOTAL_SECONDS

    def find(self, names: Sequence[str]) -> float | None:
        """The value of the first pattern that matches one of a layer's names; None without one."""
        until = time.thread_time() + self._left
        try:
            for pattern, value in self._values.items():
                if time.thread_time() > until:
                    raise self._refusal(pattern, "takes too long to match, with the others")
                if any(self._matches(pattern, name) for name in names):
                    return value
            return None
        finally:
            self._left = until - time.thread_time()

    def _matches(self, pattern: str, name: str) -> bool:
        if _PLAIN.fullmatch(pattern):
            return _matches_plain(pattern, name)
        if pattern not in self._compiled:
            self._compiled[pattern] = self._compile(pattern)
        return self._compiled[pattern].match(name) is not None

    def _compile(self, pattern: str) -> Any:
        if len(pattern) > MAX_PATTERN:
            raise self._refusal(pattern, f"is longer than {MAX_PATTERN} characters")
        if _SYNTAX.fullmatch(pattern) is None:
            raise self._refusal(pattern, "has a syntax that is not supported")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MAX_BYTES
        whole = rf"(.*\.)?({pattern})$"
        try:
            re.compile(whole)
            return re2.compile(whole, options)
        except (re.error, re2.error, OverflowError, RecursionError) as error:
            raise self._refusal(pattern, "cannot be used as a regular expression") from error
        finally:
            re2.purge()  # the table keeps its own

    def _refusal(self, pattern: str, why: str) -> AdapterError:
        return AdapterError(
            f"The {self._name} of the PEFT settings contains the pattern {pattern[:60]!r}, which "
            f"{why}. Write the names of the layers there instead."
        )


def _matches_plain(pattern: str, name: str) -> bool:
    """Match a pattern without operators other than `^` and `.`, as nearly every program writes."""
    literal = pattern.removeprefix("^")
    start = len(name) - len(literal)
    if start < 0 or (start > 0 and (literal != pattern or name[start - 1] != ".")):
        return False
    end = name[start:]
    return end == literal or all(a in (".", b) for a, b in zip(literal, end, strict=True))


def _number(name: str, value: object) -> float:
    if not _is_number(value):
        raise AdapterError(
            f"The {name} of the PEFT settings has the value {str(value)[:20]!r}, which is not a "
            "usable number."
        )
    return float(value)


@dataclass(frozen=True, eq=False)
class PeftSettings:
    """The settings of one component, as peft's LoraConfig, LoHaConfig or LoKrConfig."""

    values: Mapping[str, Any]

    @property
    def claims_dora(self) -> bool:
        """True if the tensors should contain magnitudes."""
        return self.values.get("use_dora") is True

    def alpha(self, names: Sequence[str], rank: int | None) -> float | None:
        """The alpha of a layer with these names for the scale alpha / rank; None if unknown.

        `rank`: that of its tensors, or None if they have none, as full matrices of a LoKr: then
        the alpha is that of rank 1. With rsLoRA the scale is alpha / sqrt(rank).
        """
        if self._alpha is None:
            return None
        found = self._alphas.find(names)
        alpha = self._alpha if found is None else found
        if rank is None:
            own = self.rank(names)
            return alpha / own if own else None
        return alpha * rank**0.5 if self.values.get("use_rslora") is True else alpha

    def rank(self, names: Sequence[str]) -> int | None:
        """The rank of a layer with these names; None if the settings do not say it."""
        found = self._ranks.find(names)
        rank = self.values.get("r") if found is None else found
        return int(rank) if _is_number(rank) and rank >= 1 else None

    @property
    def _alpha(self) -> float | None:
        alpha = self.values.get("lora_alpha", self.values.get("alpha"))
        return float(alpha) if _is_number(alpha) else None

    @cached_property
    def _alphas(self) -> PatternTable:
        return self._table("alpha_pattern")

    @cached_property
    def _ranks(self) -> PatternTable:
        return self._table("rank_pattern")

    def _table(self, name: str) -> PatternTable:
        patterns = self.values.get(name)
        return PatternTable(name, patterns if isinstance(patterns, dict) else {})


@dataclass(frozen=True)
class SettingsOfFile:
    """The settings of every component of a file; `config` of all that the header does not name."""

    header: Mapping[Component, PeftSettings]
    config: PeftSettings | None = None

    def of(self, component: Component) -> PeftSettings | None:
        """The settings of a component, if there are any."""
        return self.header.get(component, self.config)


def read_settings(metadata: Mapping[str, str], config: Path | None = None) -> SettingsOfFile:
    """The settings in a header and in an `adapter_config.json`.

    Raises AdapterError if they are damaged, or if the adapter is none that can be read.
    """
    whole = _parse_json(metadata.get(PEFT_METADATA, ""), "the file's header")
    header = {}
    for component in Component:
        names = {component, _TRANSFORMER} if component is Component.DENOISER else {component}
        parts = ((name.partition("."), value) for name, value in whole.items())
        own = {name: value for (start, _, name), value in parts if start in names}
        if own:
            header[component] = _checked(own)
    return SettingsOfFile(header, None if config is None else _read_config(config))


def is_config(content: object) -> TypeGuard[dict[str, Any]]:
    """True for the parsed content of an `adapter_config.json` of any name."""
    return isinstance(content, dict) and isinstance(content.get("peft_type"), str)


def is_config_file(path: Path) -> bool:
    """True for a JSON file that is an `adapter_config.json`, whatever its name."""
    try:
        return path.stat().st_size <= MAX_JSON_CHARACTERS and is_config(
            json.loads(path.read_bytes())
        )
    except (OSError, ValueError, RecursionError):
        return False


def _read_config(path: Path) -> PeftSettings:
    try:
        if path.stat().st_size > MAX_JSON_CHARACTERS:
            raise AdapterError(f"The settings in {CONFIG_NAME} are too long.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"{CONFIG_NAME} cannot be read. Import the file without it.") from error
    values = _parse_json(text, CONFIG_NAME)
    if not is_config(values):
        raise AdapterError(
            f"{CONFIG_NAME} is not a settings file of PEFT: it has no peft_type. Import the file "
            "without it."
        )
    return _checked(values)


def _checked(values: Mapping[str, Any]) -> PeftSettings:
    """The settings, unless the matrices alone are not what they describe."""
    kind = str(values.get("peft_type", "LORA")).rpartition(".")[2].upper()
    if kind not in _SUPPORTED_TYPES:
        raise AdapterError(
            f"Adapters of the PEFT type {kind[:20]} are not supported. Supported are LoRA, LoHa "
            "and LoKr."
        )
    start = str(values.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGED_BASES):
        raise AdapterError(
            f"This adapter was trained with init_lora_weights={start[:20]}, which also changes the "
            "base model, so its matrices alone do not have its effect. Save it with peft's "
            "path_initial_model_for_weight_conversion, which makes an ordinary LoRA of it."
        )
    for name, meaning in _OTHER_MEANINGS.items():
        if values.get(name):
            raise AdapterError(f"This adapter {meaning}, which a LoRA of these bases cannot.")
    return PeftSettings(values)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_VALUE


def _parse_json(text: str, where: str) -> dict[str, Any]:
    if not text:
        return {}
    if len(text) > MAX_JSON_CHARACTERS:
        raise AdapterError(f"The adapter settings in {where} are too long.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            f"The adapter settings in {where} are damaged: they are not readable JSON."
        ) from error
    return values if isinstance(values, dict) else {}
