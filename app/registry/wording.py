"""Format numbers, sizes and times as text; used as filters in every template."""

from __future__ import annotations

from datetime import UTC, datetime

from app.registry.db import utcnow
from worker.core.wording import (
    HOUR,
    MINUTE,
    about,
    capitalized,
    count_text,
    duration,
    epochs_text,
    join_words,
    percent,
    plural,
    rate_text,
    shortened,
    size_text,
)

__all__ = [
    "about",
    "ago",
    "aware",
    "capitalized",
    "clock",
    "count_text",
    "duration",
    "epochs_text",
    "join_words",
    "percent",
    "plural",
    "rate_text",
    "shortened",
    "size_text",
]

DAY = 24 * HOUR


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


def clock(moment: datetime, *, now: datetime) -> str:
    """The time of day of a moment, with its date unless it is today; both in one zone."""
    time = f"{moment:%H:%M}"
    if moment.date() == now.date():
        return time
    year = "" if moment.year == now.year else f" {moment.year}"
    return f"{moment.day} {moment:%b}{year}, {time}"


def aware(moment: datetime) -> datetime:
    """The moment with a time zone; naive times are taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
