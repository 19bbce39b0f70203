"""Numbered pages of a list."""

from __future__ import annotations


def page_count(total: int, size: int) -> int:
    """The number of pages of `size` rows for so many rows; an empty list has one page."""
    return max(1, -(-total // size))
