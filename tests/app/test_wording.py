"""Moments as text, relative to now."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.registry import wording
from app.registry.db import utcnow


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
