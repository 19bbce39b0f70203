"""The patterns of PEFT's `alpha_pattern` and `rank_pattern`: regular expressions from a file.

huggingface/peft 0.21 `utils/other.py` (get_pattern_key): the first pattern that matches the end of
a layer's name, after a dot, gives its value. A pattern comes from a stranger, so its length, its
syntax, the time of each match and that of all are limited: a slow one is an error, and stops
nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import regex

from worker.core.lora_files.errors import AdapterError

MAX_PATTERNS = 10_000
MAX_PATTERN = 400  # characters; the longest name of a layer has 90
MAX_REPEATS = 1_000  # the product of all {n} of a pattern, which are stored n times
MATCH_SECONDS = 0.25
TOTAL_SECONDS = 10.0  # of CPU time for a table; 700 patterns for 700 layers take 1 to 2 s
MAX_VALUE = 1e6

_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+")
# What `re`, which peft uses, and `regex`, which can be stopped, read in the same way.
_SYNTAX = re.compile(
    r"(?:[A-Za-z0-9_.^$|*+?,/ -]|\\[.dDwWsSbB-]|\[\^?(?:[A-Za-z0-9_. -]|\\[.dDwWsS-])+\]"
    r"|\((?!\?)|\(\?(?::|=|!|<=|<!)|\)|\{\d{1,3}(?:,\d{0,3})?\})*"
)
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


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
        try:
            return self._compiled[pattern].match(name, timeout=MATCH_SECONDS) is not None
        except TimeoutError as error:
            raise self._refusal(pattern, "takes too long to match") from error

    def _compile(self, pattern: str) -> Any:
        if len(pattern) > MAX_PATTERN:
            raise self._refusal(pattern, f"is longer than {MAX_PATTERN} characters")
        if _SYNTAX.fullmatch(pattern) is None:
            raise self._refusal(pattern, "has a syntax that is not supported")
        if prod(max(map(int, filter(None, found))) for found in _REPEAT.findall(pattern)) > (
            MAX_REPEATS
        ):
            raise self._refusal(pattern, "repeats too often")
        try:
            re.compile(rf"(.*\.)?({pattern})$")
            return regex.compile(rf"(.*\.)?({pattern})$")
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise self._refusal(pattern, "is not a regular expression") from error

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
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MAX_VALUE:
        raise AdapterError(
            f"The {name} of the PEFT settings has the value {str(value)[:20]!r}, which is not a "
            "usable number."
        )
    return float(value)
