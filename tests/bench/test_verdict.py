"""The bench of recommendations: its plans, the truth, and what its table counts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.trainings import ROOT
from bench.verdict import (
    KINDS,
    PLANS,
    STYLES,
    UNSEEN,
    describe,
    distances,
    is_right,
    least_loss,
    main,
    print_table,
    recommended,
    with_choice,
)
from worker.core.starter.examples import CHALKBOARD, LINOCUT
from worker.core.training.data.epochs import held_out_count

WOBBLE = np.array([0.02, -0.02, 0.01, -0.01, 0.03, -0.03, 0.0, 0.0])


def row(
    name: str,
    chosen: str | None,
    *truths: float,
    left_out: dict[str, str] | None = None,
    shift: float = 0.0,
) -> Any:
    points = [
        {
            "step": 50 * (place + 1),
            "style": {"mean": 0.5 + 0.1 * place},
            "copy_ratio": 0.8,
            "held_out_loss": 0.1 * (place + 1),
            "parts": (place + np.roll(WOBBLE, place)).tolist(),
            "other_parts": ((1 + shift) * place - np.roll(WOBBLE, place)).tolist(),
            "truth": (truth + np.roll(WOBBLE, place)).tolist(),
        }
        for place, truth in enumerate(truths)
    ]
    choice = {"name": chosen, "left_out": left_out or {}}
    sheet = {"A": 100, "B": 50, "C": 150}
    return {"name": name, "checkpoints": points, "choice": choice, "sheet": sheet}


def test_the_plans_are_twenty_healthy_five_copying_and_five_ruined_runs_of_five_styles() -> None:
    expected = [kind.expected for _, kind in PLANS.values()]
    assert {word: expected.count(word) for word in set(expected)} == {
        "healthy": 20,
        "copies": 5,
        "ruined": 5,
    }
    assert len(STYLES) == 5
    assert set(UNSEEN) < set(STYLES)
    for kind in KINDS:
        assert held_out_count(kind.share, kind.images + 4) == 4 if kind.share else kind.images == 3


def test_the_truth_is_nearer_for_the_same_subject_and_style() -> None:
    fox, pear = (Image.open(LINOCUT.folder / f"{name}.webp") for name in ("fox", "pear"))
    chalk = Image.open(CHALKBOARD.folder / "fox.webp")
    near = fox.resize((128, 128))
    found = distances([near, pear, chalk], [fox, fox, fox])
    assert found.argmin() == 0
    assert [part.shape for part in describe(fox)] == [(32, 32), (6, 6, 6)]


def test_a_choice_is_right_if_it_cannot_be_told_from_the_best() -> None:
    found = row("glass, usual", "100", 0.9, 0.41, 0.4)
    assert [is_right(found, place) for place in range(3)] == [False, True, True]
    assert (recommended(found), least_loss(found)) == (1, 0)


def test_a_choice_is_made_anew_of_the_measures_of_a_run() -> None:
    found = row("glass, usual", None, 0.9, 0.41, 0.4)
    for one, ratio in zip(found["checkpoints"], (0.9, 0.9, 0.3), strict=True):
        one |= {"adherence_parts": [], "memory": {"distances": [], "ratio": ratio}}
    choice = with_choice(found)["choice"]
    assert (choice["name"], list(choice["left_out"])) == ("100", ["50", "150"])


def test_the_table_counts_each_way_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    copy = {"150": "draws its training images again when asked with their captions"}
    ruined = {"150": "ruined: it draws the same whatever the prompt says"}
    print_table(
        [
            row("glass, usual", "100", 0.9, 0.41, 0.4),
            row("neon, rate ×3", "50", 0.9, 0.4, 0.7, left_out=ruined, shift=0.5),
            row("neon, copy", "50", 0.6, 0.5, 0.4, left_out=copy),
        ],
        {"judge 1": {"glass, usual": "A", "neon, rate ×3": "AC"}},
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("| 150 | 100 |  |")
    assert lines[3].endswith("| 100 | 50 (wrong) | 150: ruined |")
    assert lines[4].endswith("| 150: draws |")
    assert lines[6:17] == [
        "all styles: 2 healthy runs",
        "recommended: right in 1 of 2",
        "the last: right in 1 of 2",
        "lowest held-out loss: right in 0 of 2",
        "a random one: right in 1.0 of 2 on average",
        "rank correlation of style and truth within a run: 0.75 on average",
        "2 of 4 differences of neighbors agree on two halves",
        "judge 1, of 2: recommended 1, the last 1, lowest held-out loss 0, a random one 1.0",
        "a checkpoint left out in 1 of 2 healthy runs",
        "of these, not told from the best by the truth: 0; kept by a judge: 1",
        "copies: 1 of 1 caught",
    ]


def test_the_documented_table_is_that_of_the_recorded_measures_and_todays_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--out", str(ROOT / "bench/recorded/verdict"), "--table"])
    printed = capsys.readouterr().out
    documented = (ROOT / "docs/benchmarks.md").read_text().splitlines()
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(PLANS)
    assert set(rows) < set(documented)
    right = re.findall(r": right in (\S+) of (?:20|8)", printed)
    shown = [
        line.split("|")
        for line in documented
        if re.match(r"\| (recomm|always|lowest h|a rand)", line)
    ]
    assert [row[2].strip() for row in shown] + [row[4].strip() for row in shown] == right
