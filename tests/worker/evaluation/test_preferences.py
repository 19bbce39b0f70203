from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.preferences import (
    FEWEST_CHECKS,
    PRIOR,
    Pair,
    Plan,
    Vote,
    judge_check,
    next_pairs,
    places,
    planned,
    standing,
)

TWO = planned(2, controls=True)


def votes(wins: int, ties: int, losses: int, prompts: int = 48) -> list[Vote]:
    points = [1.0] * wins + [0.5] * ties + [0.0] * losses
    order = np.random.default_rng(1).permutation(len(points))
    return [Vote(0, 1, place % prompts, points[each]) for place, each in enumerate(order)]


def judged(plan: Plan, strengths: list[float], seed: int) -> tuple[list[Pair], list[Vote]]:
    """A whole test; the next pair is chosen before the last one is answered."""
    rng = np.random.default_rng(seed)
    prompts = [scene % 24 for scene in range(plan.scenes)]
    asked: list[Pair] = []
    answers: list[Vote] = []
    while pair := next(next_pairs(plan, answers[:-1], asked, prompts, seed), None):
        asked.append(pair)
        share = 1 / (1 + math.exp(strengths[pair.right] - strengths[pair.left]))
        points = float(rng.random() < share)
        answers.append(Vote(pair.left, pair.right, prompts[pair.scene], points))
    return asked, answers


def test_of_two_candidates_the_share_is_that_of_the_votes_and_a_weak_prior() -> None:
    found = standing(TWO, votes(40, 10, 14))
    expected = (40 + 10 / 2 + PRIOR * 1.5) / (64 + PRIOR * 3)
    assert found.shares[0][1].mean == pytest.approx(expected)
    assert found.shares[1][0].mean == pytest.approx(1 - expected)
    assert found.shares[0][0].mean == 0.5
    low, high = found.shares[0][1].low, found.shares[0][1].high
    assert (low, high) == (
        pytest.approx(1 - found.shares[1][0].high),
        pytest.approx(1 - found.shares[1][0].low),
    )


def test_the_interval_at_the_end_of_the_plan_is_about_that_of_the_binomial() -> None:
    found = standing(TWO, votes(58, 0, 38, prompts=96)).shares[0][1]
    error = math.sqrt(58 * 38 / 96**3)
    assert found.low is not None
    assert found.mean - found.low == pytest.approx(2.2 * error, rel=0.06)


def test_votes_that_resemble_each_other_on_a_prompt_widen_the_interval() -> None:
    alike = [Vote(0, 1, prompt, float(prompt % 3 > 0)) for prompt in range(24) for _ in range(4)]
    mixed = [vote for number in range(4) for vote in alike[number::4]]
    spread = [
        Vote(0, 1, place % 24, vote.points)
        for place, vote in enumerate(sorted(mixed, key=lambda each: each.points))
    ]
    clustered, independent = (standing(TWO, each).shares[0][1] for each in (alike, spread))
    assert clustered.mean == pytest.approx(independent.mean)
    assert clustered.low is not None
    assert independent.low is not None
    assert clustered.mean - clustered.low > 1.7 * (independent.mean - independent.low)


def test_ten_to_nothing_is_finite_and_not_yet_decided() -> None:
    found = standing(TWO, votes(10, 0, 0))
    assert 0.9 < found.shares[0][1].mean < 1
    assert (found.winner, found.over, found.leader) == (None, False, 0)
    assert found.fewest_left >= 10
    assert found.most_left == 86


def test_before_the_first_vote_nothing_is_said() -> None:
    found = standing(TWO, [])
    assert (found.winner, found.over, found.most_left) == (None, False, 96)
    assert 40 < found.fewest_left < 60  # as of a preference that the plan finds
    assert (found.shares[0][1].low, found.shares[0][1].high) == (0, 1)


def test_a_clear_preference_is_decided_early_and_its_interval_excludes_one_half() -> None:
    found = standing(TWO, votes(22, 2, 0))
    assert (found.winner, found.over, found.fewest_left, found.most_left) == (0, True, 0, 0)
    assert found.shares[0][1].low is not None
    assert found.shares[0][1].low > 0.5
    assert standing(TWO, votes(0, 2, 22)).winner == 1


def test_few_prompts_decide_nothing() -> None:
    assert standing(TWO, votes(40, 0, 0, prompts=11)).winner is None
    assert standing(TWO, votes(40, 0, 0, prompts=12)).winner == 0


def test_a_test_ends_undecided_when_what_is_left_would_not_decide_it() -> None:
    found = standing(TWO, votes(42, 0, 42))
    assert (found.winner, found.over, found.most_left) == (None, True, 0)
    assert standing(TWO, votes(0, 96, 0)).over
    assert not standing(TWO, votes(26, 0, 20)).over


def test_of_more_candidates_one_must_be_above_each_other_one() -> None:
    plan = planned(3, controls=False)
    clear = [Vote(0, 2, each % 30, 1.0) for each in range(40)]
    alike = [Vote(1, 0, each % 30, float(each % 2)) for each in range(40)]
    found = standing(plan, clear + alike)
    assert found.winner is None
    assert found.shares[0][2].low is not None
    assert found.shares[0][2].low > 0.5
    assert found.shares[1][2].mean > 0.7, "by way of candidate 0"
    first = [Vote(1, 0, each % 30, 0.0) for each in range(40)]
    assert standing(plan, clear + first).winner == 0


@pytest.mark.parametrize("candidates", [2, 3, 6])
def test_a_plan_has_at_most_120_pairs(candidates: int) -> None:
    assert planned(candidates, controls=True).pairs <= 120


@pytest.mark.parametrize(("candidates", "said"), [(1, "at least two"), (60, "at most 6")])
def test_other_numbers_of_candidates_are_refused(candidates: int, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        planned(candidates, controls=True)


@pytest.mark.parametrize("strengths", [[0.0, 0.0], [1.5, 0.0, 0.0, -2.0]])
def test_pairs_are_balanced_over_prompts_and_sides_and_never_asked_twice(
    strengths: list[float],
) -> None:
    plan = planned(len(strengths), controls=True)
    asked, answers = judged(plan, strengths, 5)
    assert len(asked) == plan.counted
    assert asked == judged(plan, strengths, 5)[0]
    kinds = [(min(pair.left, pair.right), max(pair.left, pair.right), pair.scene) for pair in asked]
    assert len(set(kinds)) == len(kinds)
    by_prompt = Counter(vote.prompt for vote in answers)
    assert max(by_prompt.values()) - min(by_prompt.values()) <= 2
    lefts = Counter(pair.left < pair.right for pair in asked)
    assert abs(lefts[True] - lefts[False]) <= 2 * math.comb(len(strengths), 2)


def test_the_leader_is_asked_about_most() -> None:
    asked, answers = judged(planned(4, controls=True), [1.2, 0.0, 0.0, 0.0], 3)
    uses = Counter(each for pair in asked for each in (pair.left, pair.right))
    assert uses.most_common(1)[0][0] == 0
    assert uses[0] > 80
    assert standing(planned(4, controls=True), answers).winner == 0


def test_the_next_pair_stops_with_the_plan_or_the_scenes() -> None:
    asked = [Pair(0, 1, scene) for scene in range(10)]
    assert not list(next_pairs(TWO, [], asked, list(range(10)), 1))
    assert [pair.scene for pair in next_pairs(TWO, [], asked, list(range(11)), 1)] == [10]


@pytest.mark.parametrize("seed", range(20))
def test_hidden_pairs_are_spread_and_soon_enough(seed: int) -> None:
    found = places(TWO, seed)
    assert len(found) == TWO.pairs
    assert found == places(TWO, seed)
    kinds = [place.kind for place in found]
    assert kinds[:4] == ["pair"] * 4
    early = Counter(kinds[:28])
    assert (early["repeat"], early["control"]) == (FEWEST_CHECKS, TWO.controls)
    assert [place.number for place in found if place.kind == "pair"] == list(range(TWO.counted))
    controls = [place for place in found if place.kind == "control"]
    assert sorted(place.swapped for place in controls) == [False, False, True, True]
    repeats = [place.number for place in found if place.kind == "repeat"]
    assert len(set(repeats)) == len(repeats) == TWO.repeats
    for place, one in enumerate(found):
        if one.kind == "repeat":
            assert one.number < sum(each.kind == "pair" for each in found[:place]) - 1


def test_sequences_of_judges_differ() -> None:
    found = [places(TWO, seed) for seed in range(5)]
    assert all(one != other for one, other in pairwise(found))


SIDES = ["left", "right", "tie"] * 10
STEADY = [(1.0, 1.0)] * 5 + [(1.0, 0.0)]


def test_a_steady_judge_is_usable() -> None:
    found = judge_check(SIDES, STEADY, [True] * 4)
    assert (found.left, found.sided, found.alike, found.repeats) == (10, 20, 5, 6)
    assert (found.right, found.controls, found.complete, found.usable) == (4, 4, True, True)
    assert found.reason == ""


@pytest.mark.parametrize("side", ["left", "right"])
def test_who_always_presses_one_key_is_found(side: str) -> None:
    found = judge_check([side] * 24, [(1.0, 0.0)] * 4, None)
    assert not found.usable
    assert found.reason == f"The {side} image was chosen in 24 of 24 pairs, whatever it showed."


def test_who_does_not_know_real_images_or_answers_by_side_is_found() -> None:
    wrong = judge_check(SIDES, STEADY, [True, False, False, True])
    assert not wrong.usable
    assert "only 2 of 4" in wrong.reason
    contrary = judge_check(SIDES, [(1.0, 0.0)] * 4, [True] * 4)
    assert not contrary.usable
    assert "None of 4" in contrary.reason


def test_repeats_at_chance_are_said_and_leave_votes_usable() -> None:
    found = judge_check(SIDES, [(1.0, 1.0)] * 3 + [(0.0, 1.0)] * 3, [True] * 4)
    assert found.usable
    assert "3 of 6" in found.reason


def test_a_judge_with_few_hidden_pairs_is_not_checked_yet() -> None:
    assert not judge_check(SIDES, STEADY[:3], [True] * 4).complete
    assert not judge_check(SIDES, STEADY, [True] * 3).complete
    assert judge_check(SIDES, STEADY, None).complete
    assert judge_check([], [], None).usable
