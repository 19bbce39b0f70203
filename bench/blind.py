"""Simulated judges of blind tests: `python -m bench.blind`.

Looks after every vote, as the product does, and counts how often a test is decided: of equal
candidates (with answers of no difference, a judge who leans to one side, votes on a prompt that
resemble each other, few prompts, two equal candidates far above others), and of one candidate that
is preferred to each other one. `--tests` sets how many of each kind are simulated.
"""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from worker.core.evaluation.preferences import (
    FEWEST_PROMPTS,
    FEWEST_VOTES,
    FOUND,
    LEAST_HOPE,
    MOST_CANDIDATES,
    MOST_PROMPTS,
    ROUNDS,
    Estimate,
    boundary,
    estimate,
    planned,
    reaches,
    rivals_in_turn,
)


@dataclass(frozen=True)
class Judges:
    """Who is simulated.

    share: how often the first candidate is chosen over each other one. ties: answers of no
    difference between equal ones. lean: added to the share of the left image. resemblance:
    correlation of answers about the same two candidates on one prompt. far: the first two are
    equal, and chosen over each other one in 9 of 10 pairs.
    """

    name: str
    candidates: int = 2
    share: float = 0.5
    ties: float = 0.0
    lean: float = 0.0
    resemblance: float = 0.0
    prompts: int = MOST_PROMPTS
    far: bool = False

    def shares(self) -> NDArray[np.floating]:
        """candidates × candidates."""
        shares = np.full((self.candidates,) * 2, 0.5)
        if self.far:
            shares[:2, 2:], shares[2:, :2] = 0.9, 0.1
        else:
            shares[0, 1:], shares[1:, 0] = self.share, 1 - self.share
        return shares


@dataclass(frozen=True)
class Outcome:
    """Shares of tests, and the median of their counted votes."""

    decided: float
    first: float
    """Decided for the first candidate."""
    votes: float


def simulate(judges: Judges, tests: int, seed: int = 0) -> Outcome:
    """Many tests by judges of one kind, all of them in step."""
    plan = planned(judges.candidates, controls=True, prompts=judges.prompts)
    generator = np.random.default_rng(seed)
    pairs = np.array(list(combinations(range(judges.candidates), 2)))
    rows = np.zeros((judges.candidates,) * 2, int)
    rows[pairs[:, 0], pairs[:, 1]] = rows[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))
    shares = judges.shares()
    counts = np.zeros((tests, judges.prompts, len(pairs), 3), int)
    common = generator.random((tests, judges.prompts, len(pairs)))
    every, row = np.arange(tests), np.zeros(tests, int)
    end, winner = np.zeros(tests, int), np.full(tests, -1)
    upcoming: Estimate | None = None  # of the votes before the last: others judge, too
    for vote in range(plan.counted):
        if upcoming is None or judges.candidates == 2 or vote < ROUNDS * len(pairs):
            row = np.full(tests, vote % len(pairs))
        else:
            row = rows[upcoming.leader, rivals_in_turn(upcoming)[:, 0]]
        answer = _answers(
            judges,
            generator,
            shares[pairs[row, 0], pairs[row, 1]],
            common[every, vote % judges.prompts, row],
        )
        counts[every, vote % judges.prompts, row, answer] += 1
        seen = min(vote + 1, judges.prompts)
        current = estimate(counts[:, :seen], None if upcoming is None else upcoming.strengths)
        if vote + 1 >= FEWEST_VOTES and seen >= FEWEST_PROMPTS:
            angles, errors = current.of_leader()
            is_clear = angles >= boundary(plan, vote + 1, seen) * errors
            decided = is_clear.all(-1) & (end == 0)
            winner[decided] = current.leader[decided]
            hopeful = reaches(plan, current, vote + 1, plan.counted - vote - 1, slack=LEAST_HOPE)
            end[(end == 0) & (decided | ~hopeful)] = vote + 1
        upcoming = current
    end[end == 0] = plan.counted
    is_decided = winner >= 0
    return Outcome(
        float(is_decided.mean()),
        float((winner == 0).mean()),
        float(np.median(end)),
    )


def _answers(
    judges: Judges,
    generator: np.random.Generator,
    shares: NDArray[np.floating],
    common: NDArray[np.floating],
) -> NDArray[np.integer]:
    """0: the first of the pair, 1: no difference, 2: the second."""
    is_left = generator.random(len(shares)) < 0.5
    leaning = np.clip(shares + np.where(is_left, judges.lean, -judges.lean), 0, 1)
    ties = judges.ties * 2 * np.minimum(leaning, 1 - leaning)
    is_common = generator.random(len(shares)) < math.sqrt(judges.resemblance)
    drawn = np.where(is_common, common, generator.random(len(shares)))
    first = leaning - ties / 2
    return np.where(drawn < first, 0, np.where(drawn < first + ties, 1, 2))


def cases() -> list[Judges]:
    equal = [
        Judges("equal"),
        Judges("equal, no difference in 20 %", ties=0.2),
        Judges("equal, no difference in 40 %", ties=0.4),
        Judges("equal, the left one in 8 of 10", lean=0.3),
        Judges("equal, prompts resemble", resemblance=0.3, ties=0.2),
        Judges("equal, 24 prompts resemble", resemblance=0.3, prompts=24),
        Judges("equal, 12 prompts resemble", resemblance=0.5, prompts=12),
    ]
    preferred = [
        Judges("70 : 30", share=0.7),
        Judges("70 : 30, no difference in 20 %", share=0.7, ties=0.2),
        Judges("70 : 30, prompts resemble", share=0.7, resemblance=0.3),
        *(
            Judges(f"{share:.0%}, {prompts} prompts resemble", 2, share, 0, 0, 0.3, prompts)
            for prompts, share in ((24, 0.75), (16, 0.8), (12, 0.85))
        ),
        Judges("80 : 20", share=0.8),
        Judges("90 : 10", share=0.9),
    ]
    for candidates in range(3, MOST_CANDIDATES + 1):
        share = FOUND[candidates]
        equal += [
            Judges("equal", candidates),
            Judges("two equal ones above others", candidates, far=True),
            Judges("the same, prompts resemble", candidates, far=True, resemblance=0.3, ties=0.2),
        ]
        preferred += [
            Judges("70 : 30 against each", candidates, 0.7),
            Judges(f"{share:.0%} against each", candidates, share),
            Judges(f"{share:.0%}, prompts resemble", candidates, share, resemblance=0.2),
        ]
    return equal + preferred


def main(arguments: list[str]) -> None:
    parser = ArgumentParser(
        prog="python -m bench.blind", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tests", type=int, default=4_000)
    options = parser.parse_args(arguments)
    print("| judges | candidates | most votes | decided | for the first | median votes |")
    print("|---|---|---|---|---|---|")
    for number, judges in enumerate(cases()):
        found = simulate(judges, options.tests, number)
        counted = planned(judges.candidates, controls=True).counted
        print(
            f"| {judges.name} | {judges.candidates} | {counted} | {found.decided:.1%} "
            f"| {found.first:.1%} | {found.votes:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
