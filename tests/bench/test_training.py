"""The benchmark of training: its own sums, and that it runs; no time is asserted."""

from __future__ import annotations

import pytest

from bench import training


def test_a_ratio_is_our_share_of_the_plain_cost() -> None:
    assert training.ratio(130, 200) == 0.65


def test_first_steps_do_not_count() -> None:
    few = [{"cpu": float(number)} for number in range(5)]
    many = [{"cpu": float(number)} for number in range(20)]
    assert training.counted(few) == few[1:]
    assert training.counted(many) == many[training.WARM_UP :]


def test_a_side_is_the_median_over_all_its_runs() -> None:
    side = training.Side(
        [{"cpu": 0.1, "wall": 0.3}, {"cpu": 0.5, "wall": 0.4}, {"cpu": 0.2, "wall": 0.2}],
        [{"peak_mib": 500}, {"peak_mib": 520}],
    )
    assert side.median("cpu") == pytest.approx(200)
    assert side.least("wall") == pytest.approx(200)
    assert side.ending("peak_mib") == 510


def test_it_compares_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    training.main(["--part", "tiny", "--steps", "2", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "torch" in printed
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert rows["plain (fp32)"].split()[3] == "1.00"
    assert "held-out loss, ours" in rows
