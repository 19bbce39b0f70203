"""Moments as text, relative to now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.registry import wording
from app.registry.db import utcnow

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (timedelta(seconds=5), "just now"),
        (timedelta(minutes=2), "2 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(hours=30), "yesterday"),
        (timedelta(days=5), "5 days ago"),
    ],
)
def test_a_moment_is_told_from_now(before: timedelta, text: str) -> None:
    assert wording.ago(utcnow() - before) == text
    assert wording.ago((utcnow() - before).replace(tzinfo=None)) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 28, 3, 5, tzinfo=UTC), "03:05"),
        (datetime(2026, 11, 27, 23, 59, tzinfo=UTC), "27 Nov, 23:59"),
        (datetime(2025, 11, 28, 18, 20, tzinfo=UTC), "28 Nov 2025, 18:20"),
    ],
)
def test_the_clock_names_the_day_unless_it_is_today(moment: datetime, text: str) -> None:
    assert wording.clock(moment, now=NOON) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.002, "0.002"), (0.0015275, "0.00153"), (1e-4, "1e-4"), (1.5e-5, "1.5e-5"), (0.0, "0")],
)
def test_a_learning_rate_is_written_as_trainers_write_it(rate: float, text: str) -> None:
    assert wording.rate_text(rate) == text


@pytest.mark.parametrize(
    ("epochs", "text"), [(0, "0"), (0.042, "0.04"), (4.56, "4.6"), (12.0, "12"), (1234.5, "1,234")]
)
def test_epochs_are_rounded(epochs: float, text: str) -> None:
    assert wording.epochs_text(epochs) == text


@pytest.mark.parametrize(
    ("words", "text"), [("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")]
)
def test_words_are_joined_as_in_a_sentence(words: str, text: str) -> None:
    assert wording.join_words(words) == text
