from __future__ import annotations

import numpy as np
import pytest

from worker.core.evaluation.errors import NotMeasured
from worker.core.evaluation.style import StyleScore
from worker.core.evaluation.weights import WeightMeasure, weight_card
from worker.core.lora_files.weights import WeightCard

# an adapter on linocuts: weight, patch score, adherence
LINOCUT = [
    (0.3, 0.25, 0.96),
    (0.5, 0.49, 0.93),
    (0.7, 0.70, 0.89),
    (0.85, 0.82, 0.87),
    (1.0, 0.85, 0.82),
    (1.2, 0.72, 0.73),
    (1.5, 0.44, 0.58),
]


def card(rows: list[tuple[float, float, float | None]]) -> WeightCard:
    style = StyleScore(0.5, np.full(8, 0.5))
    return weight_card(
        [
            WeightMeasure("", style, seen and np.array([seen]), weight=weight, patches=score)
            for weight, score, seen in rows
        ]
    )


def test_a_style_starts_is_best_and_breaks_where_a_reader_saw_it() -> None:
    assert card([*LINOCUT]) == WeightCard(start=0.45, best=1.0, breaks=1.5)


def test_lost_prompts_break_it_before_the_style_is_gone() -> None:
    rows = [(0.5, 0.5, 0.9), (1.0, 0.8, 0.8), (1.2, 0.8, 0.5), (1.5, 0.78, 0.2)]
    assert card([*rows]).breaks == 1.2
    assert card([(weight, score, None) for weight, score, _ in rows]).breaks is None


def test_what_lies_outside_the_weights_tried_is_not_said() -> None:
    found = card([(0.8, 0.7, 0.9), (1.0, 0.8, 0.9)])
    assert found == WeightCard(start=None, best=1.0, breaks=None)
    with pytest.raises(NotMeasured, match="No weight brings"):
        card([(0.5, -0.1, 0.9), (1.0, -0.3, 0.4)])
