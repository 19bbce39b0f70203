"""The patterns of PEFT's `alpha_pattern` and `rank_pattern`: regular expressions from a file.

huggingface/peft 0.21 `utils/other.py` (get_pattern_key): the first pattern that matches the end of
a layer's name, after a dot, gives its value. A pattern comes from a stranger, so RE2 matches it, in
time and memory that grow with its length. That and the time of all patterns together are limited.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import re2

from worker.core.lora_files.errors import AdapterError

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
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < MAX_VALUE:
        raise AdapterError(
            f"The {name} of the PEFT settings has the value {str(value)[:20]!r}, which is not a "
            "usable number."
        )
    return float(value)
