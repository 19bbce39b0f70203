"""Counts, sizes, shares and durations as text."""

from __future__ import annotations

import pytest

from worker.core import wording


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 pictures"), (1, "1 picture"), (1200, "1,200 pictures")]
)
def test_a_count_takes_the_right_noun(count: int, text: str) -> None:
    assert wording.plural(count, "picture") == text


def test_a_noun_may_bring_its_own_plural() -> None:
    assert wording.plural(2, "bias") == "2 biases"
    assert wording.plural(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "not known"),
        (512, "512 B"),
        (20_400, "20 KB"),
        (560_000, "0.6 MB"),
        (38_600_000, "38.6 MB"),
        (999_900_000, "1.0 GB"),
        (450_000_000, "450 MB"),
        (60_000_000, "60 MB"),
        (2_000_000_000, "2 GB"),
        (2_147_483_648, "2.1 GB"),
    ],
)
def test_a_size_is_in_the_unit_that_fits(size: int | None, text: str) -> None:
    assert wording.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (6, "6 s"),
        (48, "48 s"),
        (125, "2 min 05 s"),
        (3_900, "1 h 05 min"),
        (None, "not known"),
    ],
)
def test_a_duration_reads_like_a_clock(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.6, "about 42 s"), (170, "about 3 min"), (6_000, "about 1.7 h")]
)
def test_a_guess_is_no_more_exact_than_it_is(seconds: float, text: str) -> None:
    assert wording.about(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(281_000, "281,000"), (19_312_000, "19.3 M"), (None, "not known")]
)
def test_large_counts_stay_readable(count: int | None, text: str) -> None:
    assert wording.count_text(count) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.62, "62 %"),
        (0.0146, "1.5 %"),
        (0.02, "2 %"),
        (0.0003, "0.03 %"),
        (0, "0 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_in_percent(share: float, text: str) -> None:
    assert wording.percent(share) == text
