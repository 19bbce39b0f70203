"""Format numbers, sizes and times as text; used as filters in every template."""

from __future__ import annotations

from datetime import UTC, datetime

from app.registry.db import utcnow

KILO = 1_000
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def plural(count: int, noun: str, many: str | None = None) -> str:
    """The count with its noun: 1 image, 24 images, 1,200 images."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def count_text(count: float | None) -> str:
    """A readable count, shortened from a million up: 281,000, then 19.3 M."""
    if count is None:
        return "not known"
    for limit, unit in ((1e9, "G"), (1e6, "M")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:,.0f}"


def size_text(size: float | None) -> str:
    """A number of bytes with a suitable unit: 512 B, 20 KB, 0.6 MB, 1.4 GB."""
    if size is None:
        return "not known"
    if size < KILO:
        return f"{size:.0f} B"
    if size < 100 * KILO:
        return f"{size / KILO:.0f} KB"
    unit, name = (KILO**3, "GB") if size >= KILO**3 * 0.95 else (KILO**2, "MB")
    value = size / unit
    return f"{value:.1f} {name}" if value < 100 else f"{value:,.0f} {name}"


def duration(seconds: float | None) -> str:
    """An exact duration: 0.8 s, 48 s, 2 min 05 s, 1 h 05 min."""
    if seconds is None:
        return "not known"
    if seconds < 10:
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


def ago(moment: datetime | None) -> str:
    """Time since this moment: just now, 2 min ago, yesterday, 5 March 2026."""
    if moment is None:
        return "not yet"
    then = aware(moment)
    seconds = (utcnow() - then).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < HOUR:
        return f"{max(1, round(seconds / MINUTE))} min ago"
    if seconds < DAY:
        return f"{round(seconds / HOUR)} h ago"
    if seconds < 2 * DAY:
        return "yesterday"
    if seconds < 14 * DAY:
        return f"{round(seconds / DAY)} days ago"
    return f"{then.day} {then:%B %Y}"


def aware(moment: datetime) -> datetime:
    """The moment with a time zone; naive times are taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def percent(share: float | None) -> str:
    """A fraction as a percentage: 62 %, 1.5 %."""
    if share is None:
        return "not known"
    value = share * 100
    return f"{value:.1f} %" if 0 < value < 10 and round(value, 1) % 1 else f"{value:.0f} %"
