"""Preferences from votes on pairs of images: who is preferred, how sure that is, what to ask next.

The model is that of Bradley and Terry with ties after Davidson (1970, Journal of the American
Statistical Association 65, 317): with d the difference of two log strengths, the odds of one, no
difference and the other are exp(d/2) : ν : exp(-d/2). The share of one over the other is how often
it would be chosen, no difference counting one half for each. A weak prior, half an answer of each
kind, keeps 10 : 0 finite.

Votes on one prompt resemble each other, so standard errors are clustered by prompt (the sandwich
of Huber and White with G / (G - 1), t quantiles with G - 1 degrees of freedom) and never below
those of the model. Intervals are made on the scale of arcsin √share, which stays within 0 and 1.

Whoever looks after every vote finds a difference in the end. So the intervals are repeated ones
(Jennison and Turnbull 1989, Journal of the Royal Statistical Society B 51, 305) by the boundary of
O'Brien and Fleming (1979, Biometrics 35, 549) for the most votes that the plan allows: they hold
together at every look. A test is decided once the interval of the leader against each other
candidate stays clear of one half. `python -m bench.blind` checks the limits by simulated judges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.intervals import CONFIDENCE, Interval, t_quantile

MOST_CANDIDATES = 6
FEWEST_PROMPTS = 12
"""Prompts with votes below which nothing is decided."""
FEWEST_VOTES = 20
"""Votes below which nothing is decided: by then each judge has seen the first hidden pairs."""
FEWEST_CHECKS = 4
"""Hidden repeats, and controls, below which a judge is not checked."""
FOUND = {2: 0.70, 3: 0.75, 4: 0.75, 5: 0.80, 6: 0.80}
"""By number of candidates, the share against each other one that is found in 90 % of tests."""
MOST_PROMPTS = 48
FEWER_PROMPTS = (40, 24, 16)
"""Below each of these numbers of prompts the share that is found is greater by 0.05."""

Values = NDArray[np.floating]
Counts = NDArray[np.integer]

# By number of candidates: standard errors that equal ones pass in at most 5 % of tests, looking
# after every vote (bench/blind.py). Of more, two equal ones above others are asked about most.
BOUNDARY = {2: 2.2, 3: 2.3, 4: 2.3, 5: 2.4, 6: 2.4}
LEAST_HOPE = 1.645  # standard errors: what is left decides in 5 % of tests at most
PRIOR = 0.5
ROUNDS = 2  # that each pair of candidates is asked before the leader is compared with its rivals
CHECKED_BY = 28  # the place by which a judge has seen the fewest hidden pairs
REPEATS_LATER = (48, 64)
ONE_SIDED = 0.85
LEAST_RIGHT = 0.75


@dataclass(frozen=True, slots=True)
class Plan:
    """What a test asks for, known before it begins."""

    candidates: int
    counted: int
    """Most votes that count."""
    repeats: int
    controls: int
    found: float
    scenes: int
    """Prompts with a seed that each candidate is drawn for."""

    @property
    def pairs(self) -> int:
        """Most pairs that a judge sees, hidden ones included."""
        return self.counted + self.repeats + self.controls


@dataclass(frozen=True, slots=True)
class Vote:
    """An answer about two candidates on a prompt; points of `one`: 1, 0.5 (no difference) or 0."""

    one: int
    other: int
    prompt: int
    points: float


@dataclass(frozen=True, slots=True)
class Pair:
    left: int
    right: int
    scene: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the sequence of a judge.

    A repeat shows the judge's counted pair of this number again, sides swapped. A control shows the
    real image of this number on the left, on the right if swapped.
    """

    kind: Literal["pair", "repeat", "control"]
    number: int
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What the votes say so far."""

    winner: int | None
    """The candidate that is preferred to each other one; None if undecided."""
    over: bool
    """Decided, no votes left, or what is left would not decide it."""
    leader: int
    shares: tuple[tuple[Interval, ...], ...]
    """How often one would be chosen over the other: shares[one][other]."""
    fewest_left: int
    most_left: int


@dataclass(frozen=True, slots=True)
class Check:
    """How steady a judge is; `reason`: why the votes are not used, or what to know about them."""

    answers: int
    left: int
    sided: int
    """Answers left or right."""
    alike: int
    repeats: int
    right: int
    controls: int
    complete: bool
    usable: bool
    reason: str


def planned(candidates: int, *, controls: bool, prompts: int = MOST_PROMPTS) -> Plan:
    """The plan of a test of 2 to 6 candidates on so many prompts; at most 120 pairs.

    Raises EvaluationError for another number.
    """
    if candidates < 2:
        raise EvaluationError("A blind test compares at least two candidates: choose another one.")
    if candidates > MOST_CANDIDATES:
        raise EvaluationError(
            f"A blind test tells at most {MOST_CANDIDATES} candidates apart within 120 pairs, not "
            f"{candidates}: choose those that you would use."
        )
    counted, scenes = {2: (96, 96), 3: (110, 60)}.get(candidates, (110, 48))
    hidden = FEWEST_CHECKS + len(REPEATS_LATER)
    found = FOUND[candidates] + 0.05 * sum(prompts < each for each in FEWER_PROMPTS)
    return Plan(candidates, counted, hidden, FEWEST_CHECKS if controls else 0, found, scenes)


# Estimates of many tests at once: the leading axes of every array are those of the tests.


@dataclass(frozen=True, slots=True)
class Estimate:
    """`strengths`: logs with mean 0, the last column log ν.

    Of each candidate over each other one (tests × one × other): `shares`, how often it would be
    chosen, `angles`, 2 arcsin √share − π/2, infinite over itself, and their standard `errors`.
    """

    strengths: Values
    prompts: Counts
    shares: Values
    angles: Values
    errors: Values

    @property
    def leader(self) -> Counts:
        """The strongest candidate of each test."""
        return np.asarray(self.strengths[..., :-1].argmax(-1))

    def of_leader(self) -> tuple[Values, Values]:
        """The angles of the leader of each test over each candidate, and their errors."""
        row = self.leader[..., None, None]
        angles, errors = (
            np.take_along_axis(each, row, -2)[..., 0, :] for each in (self.angles, self.errors)
        )
        return angles, errors


def estimate(counts: Counts, start: Values | None = None) -> Estimate:
    """The strengths most likely by votes and prior, by Newton's method.

    counts: tests × prompts × pairs of candidates (0 1, 0 2 … 1 2 …) × (one, no difference, other).
    start: strengths of a similar estimate.
    """
    pairs = counts.shape[-2]
    candidates = math.isqrt(2 * pairs) + 1
    features = _features(candidates)
    prior = np.full((pairs, 3), PRIOR / (candidates - 1))
    totals = counts.sum(-3) + prior
    asked, observed = totals.sum(-1), np.einsum("...po,pok->...k", totals, features)
    together = np.ones((candidates + 1,) * 2)  # only differences of strengths are known
    together[-1], together[:, -1] = 0, 0
    strengths = np.zeros_like(observed) if start is None else start
    for _ in range(50):
        odds = np.exp(features @ strengths[..., None, :, None])[..., 0]
        shares = odds / odds.sum(-1, keepdims=True)
        mean = np.einsum("...po,pok->...pk", shares, features)
        squares = np.einsum("...po,pok,pol->...pkl", shares, features, features)
        spread = squares - mean[..., :, None] * mean[..., None, :]
        bread = np.einsum("...p,...pkl->...kl", asked, spread) + together
        slope = observed - np.einsum("...p,...pk->...k", asked, mean)
        step = np.linalg.solve(bread, slope[..., None])[..., 0]
        strengths = strengths + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-7:
            break
    residuals = features - mean[..., None, :]
    scores = np.einsum("...gpo,...pok->...gk", counts, residuals)
    prompts = (counts.sum((-1, -2)) > 0).sum(-1)
    enlarged = (prompts / np.maximum(prompts - 1, 1))[..., None, None]
    meat = enlarged * (scores.swapaxes(-1, -2) @ scores)
    meat = meat + np.einsum("po,...pok,...pol->...kl", prior, residuals, residuals)
    of_model = np.linalg.inv(bread)
    one, other = strengths[..., :-1, None], strengths[..., None, :-1]
    shares, spreads = _shares(one - other, strengths[..., -1:, None])
    variances = np.maximum(*map(_variances, (of_model @ meat @ of_model, of_model)))
    errors = np.sqrt(variances) * spreads / np.sqrt(shares * (1 - shares))
    angles = 2 * np.arcsin(np.sqrt(shares)) - math.pi / 2
    np.einsum("...oo->...o", angles)[:] = np.inf
    return Estimate(strengths, prompts, shares, angles, np.maximum(errors, 1e-9))


def boundary(plan: Plan, votes: int, prompts: int) -> float:
    """Standard errors that a difference must pass after so many votes on so many prompts."""
    standard = BOUNDARY[plan.candidates] * _small_sample(max(prompts - 1, 1))
    return standard * math.sqrt(plan.counted / max(votes, 1))


def reaches(
    plan: Plan, estimated: Estimate, votes: int, more: int, *, slack: float = 0
) -> NDArray[np.bool_]:
    """Which tests would be decided after `more` votes, given to the rivals not yet told apart.

    The leader is taken to be preferred by the share that the plan finds; slack: standard errors of
    luck on top.
    """
    angles, errors = estimated.of_leader()
    prompts = np.maximum(estimated.prompts, min(votes + more, 2 * FEWEST_PROMPTS))
    limits = np.array([boundary(plan, votes + more, int(each)) for each in prompts])[..., None]
    is_open = angles < limits * errors
    ties = np.exp(estimated.strengths[..., -1:])
    tie_share = ties / (ties + 2 * np.cosh(_distance(plan.found, ties) / 2))
    chance = plan.found * (1 - plan.found)
    each = is_open * (more / np.maximum(is_open.sum(-1, keepdims=True), 1))
    added = each * chance / np.maximum(chance - tie_share / 4, 0.01)
    known = errors**-2.0
    aim = 2 * math.asin(math.sqrt(plan.found)) - math.pi / 2
    reached = (angles * known + aim * added + slack * np.sqrt(added)) / np.sqrt(known + added)
    return np.asarray((reached >= limits).all(-1))


def rivals_in_turn(estimated: Estimate) -> Counts:
    """The other candidates, the one least told apart from the leader first; the leader is last."""
    angles, errors = estimated.of_leader()
    return np.asarray((angles / errors).argsort(-1, kind="stable"))


# One test.


def standing(plan: Plan, votes: Sequence[Vote]) -> Standing:
    """What the votes say; it may be asked after every vote."""
    estimated, count = estimate(_counts(plan, votes)[None]), len(votes)
    prompts, left = int(estimated.prompts[0]), max(plan.counted - count, 0)
    limit = boundary(plan, count, prompts)
    angles, errors = estimated.of_leader()
    enough = count >= FEWEST_VOTES and prompts >= FEWEST_PROMPTS
    decided = enough and bool((angles >= limit * errors).all())
    hopeless = enough and not reaches(plan, estimated, count, left, slack=LEAST_HOPE)[0]
    short = max(FEWEST_VOTES - count, 1)
    fewest = next(
        (more for more in range(short, left) if reaches(plan, estimated, count, more)[0]), left
    )
    (leader,) = estimated.leader.tolist()
    over = decided or left == 0 or hopeless
    return Standing(
        winner=leader if decided else None,
        over=over,
        leader=leader,
        shares=_intervals(estimated, limit),
        fewest_left=0 if over else fewest,
        most_left=0 if over else left,
    )


def next_pairs(
    plan: Plan, votes: Sequence[Vote], asked: Sequence[Pair], prompts: Sequence[int], seed: int
) -> Iterator[Pair]:
    """The pairs to ask next, the best one first; none if the plan is used up.

    Each pair of candidates comes twice, then the leader against the rival least told apart from it.
    No two candidates are compared twice on a scene; prompts that were shown least come first; of
    four pairs of the same candidates, each stands on the left twice.

    asked: pairs handed out before, of all judges; votes may lag behind. prompts: of each scene.
    """
    if len(asked) >= plan.counted:
        return
    shown = [(_sorted(pair), pair.scene) for pair in asked]
    uses = Counter(candidates for candidates, _ in shown)
    by_prompt = Counter(prompts[scene] for _, scene in shown)
    by_scene = Counter(scene for _, scene in shown)
    scenes = sorted(
        range(len(prompts)), key=lambda each: (by_prompt[prompts[each]], by_scene[each], each)
    )
    for candidates in _worthwhile(plan, votes, uses):
        block, within = divmod(uses[candidates], 4)
        order = np.random.default_rng([seed, *candidates, block]).permutation([0, 0, 1, 1])
        left, right = candidates[:: -1 if order[within] else 1]
        for scene in scenes:
            if (candidates, scene) not in shown:
                yield Pair(left, right, scene)


def places(plan: Plan, seed: int) -> tuple[Place, ...]:
    """The sequence of one judge: its counted pairs with repeats and controls between them.

    The first four repeats and all controls come within the first 28 places, never the first three.
    """
    generator = np.random.default_rng(seed)
    early = sorted(
        generator.choice(np.arange(4, CHECKED_BY), 4 + plan.controls, replace=False).tolist()
    )
    kinds = ["repeat"] * FEWEST_CHECKS + ["control"] * plan.controls
    hidden: dict[int, str] = dict(zip(early, generator.permutation(kinds).tolist(), strict=True))
    for place in REPEATS_LATER:
        hidden[int(generator.integers(place - 6, place + 6))] = "repeat"
    real_right = generator.permutation([number % 2 == 1 for number in range(plan.controls)])
    found: list[Place] = []
    repeated: set[int] = set()
    pairs = controls = 0
    for number in range(plan.pairs):
        match hidden.get(number):
            case "repeat":
                fresh = [each for each in range(max(pairs - 2, 1)) if each not in repeated]
                again = int(generator.choice(fresh or [0]))
                repeated.add(again)
                found.append(Place("repeat", again, swapped=True))
            case "control":
                found.append(Place("control", controls, bool(real_right[controls])))
                controls += 1
            case _:
                found.append(Place("pair", pairs))
                pairs += 1
    return tuple(found)


def judge_check(
    sides: Sequence[str],
    repeats: Sequence[tuple[float, float]],
    controls: Sequence[bool] | None,
) -> Check:
    """How steady a judge is, and whether the votes can be used.

    sides: the counted answers, left, right or tie. repeats: points of the same candidate at first
    and again. controls: whether the real image was chosen over the one of the base; None if the
    question has no controls. Repeats that agree as often as by chance leave the votes usable: of
    candidates that look alike, nobody's agree, and such votes decide nothing.
    """
    left, sided = sides.count("left"), len(sides) - sides.count("tie")
    alike = sum(first == again for first, again in repeats)
    right, shown = sum(controls or ()), len(controls or ())
    complete = len(repeats) >= FEWEST_CHECKS and (controls is None or shown >= FEWEST_CHECKS)
    most = max(left, sided - left)
    chance = 2 * sum(math.comb(sided, each) for each in range(most, sided + 1)) / 2**sided
    usable, reason = True, ""
    if sided and most >= ONE_SIDED * sided and chance < 0.001:
        side = "left" if left == most else "right"
        reason = f"The {side} image was chosen in {most} of {sided} pairs, whatever it showed."
        usable = False
    elif shown >= FEWEST_CHECKS and right < LEAST_RIGHT * shown:
        reason = (
            f"The real image was chosen over the base's in only {right} of {shown} hidden pairs."
        )
        usable = False
    elif len(repeats) >= FEWEST_CHECKS and not alike:
        reason = f"None of {len(repeats)} hidden pairs with the sides swapped was answered alike."
        usable = False
    elif len(repeats) >= FEWEST_CHECKS and 2 * alike <= len(repeats):
        reason = f"Repeats were answered alike in {alike} of {len(repeats)}, as often as by chance."
    return Check(
        len(sides), left, sided, alike, len(repeats), right, shown, complete, usable, reason
    )


def _counts(plan: Plan, votes: Sequence[Vote]) -> Counts:
    rows = {pair: row for row, pair in enumerate(combinations(range(plan.candidates), 2))}
    groups = {prompt: row for row, prompt in enumerate(sorted({vote.prompt for vote in votes}))}
    counts = np.zeros((max(len(groups), 1), len(rows), 3), int)
    for vote in votes:
        points = vote.points if vote.one < vote.other else 1 - vote.points
        pair = min(vote.one, vote.other), max(vote.one, vote.other)
        counts[groups[vote.prompt], rows[pair], round(2 - 2 * points)] += 1
    return counts


def _worthwhile(
    plan: Plan, votes: Sequence[Vote], uses: Counter[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Pairs of candidates, those that tell most first."""
    fewest = sorted(combinations(range(plan.candidates), 2), key=lambda pair: (uses[pair], pair))
    if plan.candidates == 2 or uses[fewest[0]] < ROUNDS:
        return fewest
    estimated = estimate(_counts(plan, votes)[None])
    *rivals, first = rivals_in_turn(estimated)[0].tolist()
    return [(min(first, rival), max(first, rival)) for rival in rivals] + fewest


def _sorted(pair: Pair) -> tuple[int, int]:
    return min(pair.left, pair.right), max(pair.left, pair.right)


def _intervals(estimated: Estimate, limit: float) -> tuple[tuple[Interval, ...], ...]:
    half = limit * estimated.errors[0]
    ends = np.clip(estimated.angles[0] + np.array([-half, half]), -math.pi / 2, math.pi / 2)
    low, high = np.sin((ends + math.pi / 2) / 2) ** 2
    each = np.stack([estimated.shares[0], low, high], -1).tolist()
    return tuple(
        tuple(Interval(*one) if row != column else Interval(0.5) for column, one in enumerate(line))
        for row, line in enumerate(each)
    )


def _variances(covariance: Values) -> Values:
    """Of the difference of each two candidates."""
    strengths = covariance[..., :-1, :-1]
    own = np.diagonal(strengths, axis1=-2, axis2=-1)
    return np.asarray(np.maximum(own[..., :, None] + own[..., None, :] - 2 * strengths, 0))


def _shares(distances: Values, log_ties: Values) -> tuple[Values, Values]:
    """The share of one over the other, and its slope by the distance: the points' variance."""
    one, other, ties = np.exp(distances / 2), np.exp(-distances / 2), np.exp(log_ties)
    total = one + ties + other
    share = (one + ties / 2) / total
    return share, share * (1 - share) - ties / total / 4


def _distance(share: float, ties: Values) -> Values:
    """The distance of two strengths at which one is chosen over the other by this share."""
    lean = ties * (share - 0.5)
    root = np.sqrt(lean**2 + 4 * share * (1 - share))
    return np.asarray(2 * np.log((lean + root) / (2 * (1 - share))))


@cache
def _features(candidates: int) -> Values:
    """What an answer adds to its log odds: pairs × answers × (strengths, log ν)."""
    features = np.zeros((math.comb(candidates, 2), 3, candidates + 1))
    for row, (one, other) in enumerate(combinations(range(candidates), 2)):
        features[row, 0, [one, other]] = 0.5, -0.5
        features[row, 1, -1] = 1
        features[row, 2, [one, other]] = -0.5, 0.5
    return features


@cache
def _small_sample(freedom: int) -> float:
    """By how much t quantiles are wider than normal ones."""
    return t_quantile(CONFIDENCE, freedom) / t_quantile(CONFIDENCE, 10_000)
