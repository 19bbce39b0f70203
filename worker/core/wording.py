"""Format counts, sizes, shares and durations as text; used by pages, command lines and errors."""

from __future__ import annotations

from collections.abc import Iterable

KILO = 1_000
MINUTE, HOUR = 60, 3_600
UNKNOWN = "not known"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """The count with its noun: 1 image, 24 images, 1,200 images, 2 biases."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {many or noun + ('es' if noun.endswith('s') else 's')}"


def join_words(words: Iterable[str]) -> str:
    """“a, b and c”; empty without words."""
    *first, last = (*words,) or ("",)
    return f"{', '.join(first)} and {last}" if first else last


def capitalized(text: str) -> str:
    """The text with its first letter as a capital, the rest as it is."""
    return text[:1].upper() + text[1:]


def shortened(text: str, most: int) -> str:
    """The text, or as much of it as fits into `most` characters and ends in “…”."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def count_text(count: float | None) -> str:
    """A readable count, shortened from a million up: 281,000, then 19.3 M."""
    if count is None:
        return UNKNOWN
    for limit, unit in ((KILO**3, "G"), (KILO**2, "M")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:,.0f}"


def size_text(size: float | None) -> str:
    """A number of bytes in decimal units: 512 B, 20 KB, 0.6 MB, 50 MB, 1.4 GB."""
    if size is None:
        return UNKNOWN
    if size < KILO:
        return f"{size:.0f} B"
    if size < 100 * KILO:
        return f"{size / KILO:.0f} KB"
    unit, name = (KILO**3, "GB") if size >= KILO**3 * 0.95 else (KILO**2, "MB")
    value = size / unit
    is_exact = size % unit == 0
    return f"{value:,.0f} {name}" if is_exact or value >= 100 else f"{value:.1f} {name}"


def duration(seconds: float | None) -> str:
    """An exact duration: 0.8 s, 6 s, 48 s, 2 min 05 s, 1 h 05 min."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10 and seconds % 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    return f"{whole // HOUR} h {whole % HOUR // MINUTE:02d} min"


def about(seconds: float | None) -> str:
    """An estimated duration, rounded: about 40 s, about 3 min."""
    if seconds is None:
        return "not known yet"
    if seconds < MINUTE:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * MINUTE:
        return f"about {round(seconds / MINUTE)} min"
    return f"about {seconds / HOUR:.1f} h"


def epochs_text(epochs: float) -> str:
    """A number of epochs: 0.04, 4.6, 12, 340."""
    if epochs < 0.1:
        return f"{epochs:.1g}"
    return f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.1f}".removesuffix(".0")


def percent(share: float | None) -> str:
    """A fraction as a percentage: 62 %, 1.5 %, 0.03 %."""
    if share is None:
        return UNKNOWN
    value = share * 100
    if 1e-4 <= value < 0.05:
        return f"{value:.1g} %"
    return f"{value:.1f} %" if 0 < value < 10 and round(value, 1) % 1 else f"{value:.0f} %"


def rate_text(rate: float) -> str:
    """A learning rate as trainers write it: 0.002, 0.00153, 1e-4."""
    if rate and rate < 1e-3:
        digits, exponent = f"{rate:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{rate:.3g}"
