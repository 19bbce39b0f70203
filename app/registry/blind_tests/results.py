"""What a blind test found: who is preferred, how steady its judges were, what the measures said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Annotated

from pydantic import BaseModel, Field, PlainSerializer
from sqlmodel import Session, col, select

from app.registry import evaluations
from app.registry.actor import actor_text
from app.registry.blind_tests import service
from app.registry.blind_tests.judging import Sheet
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.blind_tests import BlindTest, PairKind
from app.registry.wording import percent, plural
from worker.core.documented import DocumentedModel
from worker.core.evaluation import preferences
from worker.core.evaluation.preferences import Plan, Standing

NOT_CHECKED = (
    "No judge has answered enough hidden pairs to be checked, so nothing is decided. Go on judging."
)
Shown = Annotated[str | None, PlainSerializer(lambda sha256: sha256 and f"/media/{sha256}")]
"""The hash of an image, its address in an answer; None once it was deleted."""


class BlindShare(BaseModel):
    """How often a candidate would be chosen over another one, with its interval of 95 %."""

    candidate: str = Field(description="Its name.")
    over: str = Field(description="The other one.")
    share: float = Field(description="0 to 1; no difference counts one half.")
    low: float | None = Field(description="Low end, valid however often it is looked at.")
    high: float | None = Field(description="High end.")


class BlindJudge(BaseModel):
    """How steady a judge was; `left` of `sided`: answers left, and left or right."""

    name: str = Field(description="A session, a program, or a number.")
    answers: int = Field(description="Answers to pairs that count.")
    counts: bool = Field(description="True if they are in the result.")
    repeats: int = Field(description="Hidden repeats with the sides swapped that were answered.")
    alike: int = Field(description="Those of them that were answered as before.")
    controls: int = Field(description="Real images against the base model's.")
    right: int = Field(description="Those of them in which the real one was chosen.")
    reason: str = Field(description="What is wrong, as a sentence; else empty.")
    left: int = Field(exclude=True)
    sided: int = Field(exclude=True)


class BlindPair(DocumentedModel):
    """An answered pair, the candidate of the lower number first."""

    number: int = Field(description="Its number in the sequence of the judge.")
    judge: str = Field(description="Name of the judge.")
    kind: PairKind = Field(description="`counted`, or hidden: `repeat` or `control`.")
    subject: str = Field(description="What both images show.")
    one: int = Field(description="Candidate, from 0; of a control 0: real, 1: the base model's.")
    other: int = Field(description="The other candidate.")
    chosen: int | None = Field(description="One of the two; null: no difference.")
    one_image: Shown = Field(serialization_alias="one_url")
    """Address of its image; null once it was deleted."""
    other_image: Shown = Field(serialization_alias="other_url")
    """Address of the other image."""


class BlindResult(DocumentedModel):
    """What a test found."""

    test: BlindTest = Field(exclude=True)
    plan: Plan = Field(exclude=True)
    standing: Standing = Field(exclude=True)
    winner: int | None = Field(description="The preferred candidate, from 0; null: undecided.")
    sentence: str = Field(description="What was found, as a sentence.")
    counted: int = Field(description="Answers in the result.")
    shares: list[BlindShare] = Field(description="Of each candidate against each other one.")
    judges: list[BlindJudge] = Field(description="How steady the judges were.")
    measured: str
    """The answers beside the recommended checkpoint or best weight; else empty."""
    agrees: bool | None = Field(description="Whether judges prefer that, too; null: not known.")
    notes: list[str] = Field(description="What was left out, and why, as sentences.")
    pairs: list[BlindPair] = Field(description="Pair by pair.")


@dataclass(frozen=True)
class OwnEyes:
    """The newest blind tests of a run or an adapter; `newest`: what the last ended one found."""

    tests: Sequence[BlindTest] = ()
    newest: BlindResult | None = None


def own_eyes(
    session: Session, *, run_id: int | None = None, adapter_id: int | None = None
) -> OwnEyes:
    """The blind tests to show beside a verdict."""
    found = service.list_blind_tests(session, run_id=run_id, adapter_id=adapter_id, size=5)
    ended = next((test for test in found.items if test.ended_at), None)
    return OwnEyes(found.items, view(session, ended) if ended else None)


def view(session: Session, test: BlindTest) -> BlindResult:
    """What a test found. It tells who is who: for tests that have ended."""
    sheet = Sheet(session, test)
    pool = sheet.pool()
    votes = sheet.counted(pool)
    standing, counted = preferences.standing(sheet.plan, votes), len(votes)
    judges = _judges(sheet, pool)
    notes = [
        f"{plural(one.answers, 'answer')} of {one.name} left out: "
        + (one.reason or "too few hidden pairs were answered.")
        for one in judges.values()
        if not one.counts
    ]
    is_checked = any(sheet.checks[judge].complete for judge in pool)
    winner = standing.winner if is_checked else None
    if pool and not is_checked:
        notes.append(NOT_CHECKED)
    agrees, measured = _agreement(session, test, winner)
    return BlindResult(
        test=test,
        plan=sheet.plan,
        standing=standing,
        winner=winner,
        sentence=_sentence(test, standing, winner, counted),
        counted=counted,
        shares=[
            BlindShare(
                candidate=test.labels[one],
                over=test.labels[other],
                share=standing.shares[one][other].mean,
                low=standing.shares[one][other].low,
                high=standing.shares[one][other].high,
            )
            for one, other in permutations(range(len(test.labels)), 2)
        ],
        judges=list(judges.values()),
        measured=measured,
        agrees=agrees,
        notes=notes,
        pairs=_pairs(sheet, judges),
    )


def _sentence(test: BlindTest, standing: Standing, winner: int | None, votes: int) -> str:
    if not votes:
        return "No answers count, so nothing is known."
    after = f"after {plural(votes, 'pair')} that count"
    if winner is None:
        return f"Undecided: no candidate is clearly preferred {after}."
    shares = {other: one for other, one in enumerate(standing.shares[winner]) if other != winner}
    closest = min(shares, key=lambda other: shares[other].mean)
    share = shares[closest]
    return (
        f"{test.labels[winner]} is preferred {after}: it would be chosen over "
        f"{test.labels[closest]} in {percent(share.mean)} of pairs, between "
        f"{percent(share.low or 0.0)} and {percent(share.high or 1.0)}."
    )


def _judges(sheet: Sheet, pool: set[str]) -> dict[str, BlindJudge]:
    """The judges by what they are in rows; named “session 3”, “a program”, or by their order."""
    found = {}
    for number, (judge, check) in enumerate(sheet.checks.items(), 1):
        name = actor_text(judge) or f"judge {number}"
        found[judge] = BlindJudge(name=name, counts=judge in pool, **asdict(check))
    return found


def _pairs(sheet: Sheet, judges: Mapping[str, BlindJudge]) -> list[BlindPair]:
    found = []
    for vote in filter(lambda one: one.answer, sheet.votes):
        one, other = sorted(zip((vote.left, vote.right), sheet.images.sides(vote), strict=True))
        found.append(
            BlindPair(
                number=vote.number,
                judge=judges[vote.judge].name,
                kind=PairKind(vote.kind),
                subject=sheet.images.subject(vote),
                one=one[0],
                other=other[0],
                chosen=vote.chosen,
                one_image=one[1],
                other_image=other[1],
            )
        )
    return found


def _agreement(session: Session, test: BlindTest, winner: int | None) -> tuple[bool | None, str]:
    """Beside the checkpoint that was recommended, or the weight that was measured best."""
    named = [one for one in test.candidates if "version" in one]
    versions = {(one["adapter_id"], one["version"]) for one in named}
    best: float | None = None
    equal: set[float] = set()
    key, words = "version", "Step {:,}"
    if test.run_id is not None:
        if (result := evaluations.recommendation(session, test.run_id)) is not None:
            best = result.recommended
            equal = {one.step for one in result.steps if one.is_equal}
    elif len(versions) == 1:
        key, words = "weight", "Weight {:g}"
        ((adapter_id, number),) = versions
        query = select(AdapterVersion).join(Adapter).where(col(Adapter.deleted_at).is_(None))
        query = query.where(AdapterVersion.adapter_id == adapter_id)
        version = session.exec(query.where(AdapterVersion.version == number)).first()
        best = (
            next((card.best for card in version.weight_cards.values()), None) if version else None
        )
    if best is None:
        return None, ""
    measured, candidates = words.format(best), [one.get(key) for one in test.candidates]
    if best not in candidates or winner is None:
        why = "judges are undecided" if best in candidates else "it was no candidate"
        return None, f"{measured} was measured best; {why}."
    if candidates[winner] == best:
        return True, f"The measures agree: {measured} is best."
    if candidates[winner] in equal:
        return True, f"The measures could not tell the chosen one from {measured}."
    return False, f"The measures disagree: {measured} was measured best."
