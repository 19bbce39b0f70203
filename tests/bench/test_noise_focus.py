"""The table of the shares of noise levels, from what was recorded."""

from __future__ import annotations

import pytest

from bench.noise_focus import PLANS, main
from bench.trainings import ROOT


def test_the_recorded_trainings_are_compared_in_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(ROOT / "bench/recorded/noise_focus"), "--table"])
    table = capsys.readouterr().out
    assert "| chalkboard, seed 0 | 0.778, 0.764, 0.769 |" in table
    assert "focus 0.5 against 0 in 10 trainings" in table
    assert table.count("held-out loss: ") == 2


def test_each_style_and_seed_is_trained_with_every_share() -> None:
    kinds = {(kind.changes["noise_focus"], kind.changes["seed"]) for _, kind in PLANS.values()}
    assert kinds == {(focus, seed) for focus in (-0.5, 0.0, 0.5) for seed in (0, 1)}
    assert len(PLANS) == 30
