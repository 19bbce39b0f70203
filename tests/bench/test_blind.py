from __future__ import annotations

import pytest

from bench.blind import Judges, cases, simulate
from worker.core.evaluation.preferences import FOUND, planned

EQUAL = [
    Judges("equal"),
    Judges("ties", ties=0.4),
    Judges("prompts resemble", ties=0.2, resemblance=0.3),
    Judges("one side", lean=0.3),
    Judges("two of three", candidates=3, far=True),
]


@pytest.mark.parametrize("judges", EQUAL, ids=lambda judges: judges.name)
def test_equal_candidates_are_seldom_decided_though_looked_at_after_each_vote(
    judges: Judges,
) -> None:
    assert simulate(judges, 400, seed=11).decided <= 0.05


@pytest.mark.parametrize("candidates", [2, 3])
def test_the_preference_that_a_plan_states_is_found(candidates: int) -> None:
    found = simulate(Judges("preferred", candidates, FOUND[candidates]), 300, seed=12)
    assert found.first >= 0.9
    assert found.decided == found.first


def test_with_few_prompts_that_resemble_a_plan_states_a_greater_preference() -> None:
    share = planned(2, controls=True, prompts=12).found
    judges = Judges("preferred", 2, share, resemblance=0.3, prompts=12)
    assert share == pytest.approx(0.85)
    assert simulate(judges, 300, seed=13).first >= 0.9


def test_the_table_has_all_numbers_of_candidates() -> None:
    assert {judges.candidates for judges in cases()} == set(FOUND)
