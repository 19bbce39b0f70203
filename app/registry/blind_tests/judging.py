"""Judging of blind tests: the next pair of a judge, the answer to it, and taking that back.

Each judge has a sequence of pairs with hidden ones between them; all answers that count are one
pool. All of it is rows of the database, so that a test goes on where it was left.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

from pydantic import Field
from sqlmodel import Session, col, func, select

from app.registry.blind_tests import service
from app.registry.blind_tests.images import BASE, REAL, TestImages
from app.registry.db import Database, utcnow
from app.registry.errors import Conflict
from app.registry.tables.blind_tests import BlindTest, BlindVote, Choice, PairKind, Question
from worker.core.documented import DocumentedModel
from worker.core.evaluation import preferences
from worker.core.evaluation.preferences import FEWEST_CHECKS, Check, Pair, Place, Vote

TRIES = 8  # while others answer at the same moment
State = Literal["pair", "waiting", "finished", "failed", "ended"]


class Turn(DocumentedModel):
    """What a judge meets next; nothing in it tells which candidates a pair has."""

    test: BlindTest = Field(exclude=True)
    state: State
    """`waiting`: for images; `finished`: no pair is left for this judge; `failed`: no image can be
    drawn; `ended`: read the result."""
    number: int = Field(0, description="Number of the pair; 0 without one.")
    subject: str = Field("", description="What both images show.")
    judged: int = Field(0, description="Answers of this judge.")
    fewest_left: int = Field(0, description="Pairs until it is decided, at least about.")
    most_left: int = Field(0, description="At most.")
    drawn: int = Field(0, description="Images that are there.")
    images: int = Field(0, description="All its images.")
    reason: str = Field("", description="Why no pair is left, as a sentence; else empty.")


class Sheet:
    """The answers of a test, and what they say."""

    def __init__(self, session: Session, test: BlindTest) -> None:
        self.test, self.images = test, TestImages(session, test)
        self.votes = service.all_votes(session, test.key)
        is_closer = test.question == Question.CLOSER
        places: dict[str, int] = {}
        subjects = self.images.drawn.subjects
        self.prompts = [places.setdefault(one, len(places)) for one in subjects]
        self.plan = preferences.planned(
            len(test.candidates), controls=is_closer, prompts=len(places)
        )

    @cached_property
    def checks(self) -> dict[str, Check]:
        """How steady each judge is who has answered."""
        answered = dict.fromkeys(vote.judge for vote in self.votes if vote.answer)
        return {judge: self.check_of(judge) for judge in answered}

    def check_of(self, judge: str) -> Check:
        """How steady a judge is."""
        counted, repeats, controls = _by_kind(
            one for one in self.votes if one.judge == judge and one.answer
        )
        first = {_shown(one): one for one in counted}
        known = [(first[_shown(one)], one) for one in repeats if _shown(one) in first]
        return preferences.judge_check(
            [one.answer or "" for one in counted],
            [(one.points(one.left), again.points(one.left)) for one, again in known],
            [one.chosen == REAL for one in controls] if self.plan.controls else None,
        )

    def pool(self, judge: str | None = None) -> set[str]:
        """The judges whose answers count: those whose check is complete, and this one.

        All whose check did not fail, as long as nobody's is complete.
        """
        usable = {name for name, check in self.checks.items() if check.usable}
        checked = {name for name in usable if self.checks[name].complete}
        return checked | (usable & {judge}) if checked else usable

    def counted(self, judges: set[str]) -> list[Vote]:
        """The answers of these judges that count."""
        return [
            Vote(one.left, one.right, self.prompts[one.scene], one.points(one.left))
            for one in self.votes
            if one.kind == PairKind.COUNTED and one.answer and one.judge in judges
        ]


def _by_kind(votes: Iterable[BlindVote]) -> list[list[BlindVote]]:
    """Those that count, repeats and controls."""
    found = list(votes)
    return [[one for one in found if one.kind == kind] for kind in PairKind]


def _shown(vote: BlindVote) -> tuple[int, frozenset[int]]:
    """Equal for a pair and its repeat: no two candidates are compared twice on a scene."""
    return vote.scene, frozenset((vote.left, vote.right))


def take_turn(database: Database, test_id: int, judge: str) -> Turn:
    """The pair that waits for an answer of this judge, else the next one.

    A test that is decided, or that nothing would decide any more, ends. Raises NotFound, and
    Conflict for a deleted test.
    """
    for _ in range(TRIES):
        with database.read() as session:
            test = service.get_blind_test(session, test_id)
            if test.ended_at is not None:
                return Turn(test=test, state="ended")
            service.require_open(test)
            look = _Look(session, test, judge)
            found = look.turn("pair") if look.open else look.next_pair()
        if isinstance(found, Turn):
            return found
        with database.write() as session:
            test = service.get_blind_test(session, test_id, lock=True)
            known = session.exec(select(func.count()).where(BlindVote.test_id == test_id)).one()
            if test.ended_at is not None or known != len(look.votes):
                continue  # somebody was quicker
            if found is None:
                return Turn(test=service.end(session, test_id), state="ended")
            for gone in look.gone:
                session.delete(session.get_one(BlindVote, gone.key))
            session.flush()
            session.add(found)
    raise Conflict("Others judge this test at this moment. Try again.")


class _Look(Sheet):
    """What a judge can be shown at this moment; `gone`: pairs in view whose images are gone."""

    def __init__(self, session: Session, test: BlindTest, judge: str) -> None:
        super().__init__(session, test)
        self.judge, self.check, self.judges = judge, self.check_of(judge), self.pool(judge)
        own = [one for one in self.votes if one.judge == judge]
        self.gone = [one for one in own if one.answer is None and None in self.images.sides(one)]
        self.own = [one for one in own if one not in self.gone]
        self.open = [one for one in self.own if one.answer is None]
        self.answers = self.counted(self.judges)
        self.standing = preferences.standing(self.plan, self.answers)

    def next_pair(self) -> BlindVote | Turn | None:
        """The next pair, or a turn without one; None: the test is over."""
        own_seed = zlib.crc32(f"{self.test.seed}:{self.judge}".encode())
        places, is_over = preferences.places(self.plan, own_seed), self.standing.over
        is_found_out = self.check.complete and not self.check.usable
        if is_found_out or len(self.own) >= len(places):
            return self.turn("finished", self.check.reason)
        if is_over and self.check.complete:
            return None
        hidden = self._hidden(places[len(self.own)], check_now=is_over)
        return hidden if hidden is not None or is_over else self._counted()

    def _hidden(self, place: Place, *, check_now: bool) -> BlindVote | Turn | None:
        """A pair that checks the judge; None if none belongs to this place."""
        counted, repeats, controls = _by_kind(self.own)
        is_repeat = len(repeats) < FEWEST_CHECKS if check_now else place.kind == "repeat"
        if is_repeat:
            done = {_shown(one) for one in repeats}
            first = counted[place.number :] if place.kind == "repeat" else []
            for one in [*first, *counted]:
                if _shown(one) not in done and None not in self.images.sides(one):
                    return self._vote(PairKind.REPEAT, one.scene, one.right, one.left)
        if place.kind == "control" or check_now:
            if len(controls) >= self.plan.controls:
                return None
            scenes = {*range(len(self.test.controls))} - {one.scene for one in controls}
            sides = (BASE, REAL) if place.swapped else (REAL, BASE)
            for scene in sorted(scenes):
                if self.images.base.image(scene, 0):
                    return self._vote(PairKind.CONTROL, scene, *sides)
            if any(self.images.base.is_coming(scene, 0) for scene in scenes):
                return self.turn("waiting")
        return None

    def _counted(self) -> BlindVote | Turn:
        """A pair that counts, on images that are there or come."""
        drawn = self.images.drawn
        asked = [
            Pair(one.left, one.right, one.scene)
            for one in self.votes
            if one.kind == PairKind.COUNTED and one.judge in {*self.judges, self.judge}
            if one not in self.gone
        ]
        prompts = self.prompts[: self.plan.scenes]
        for pair in preferences.next_pairs(self.plan, self.answers, asked, prompts, self.test.seed):
            sides = pair.left, pair.right
            if all(drawn.image(pair.scene, side) for side in sides):
                return self._vote(PairKind.COUNTED, pair.scene, *sides)
            if all(drawn.is_coming(pair.scene, side) for side in sides):
                return self.turn("waiting")
        lacking = len(drawn.cells) - drawn.images
        if not lacking:
            return self.turn("finished", self.check.reason)
        error = drawn.error or "They were canceled, or a candidate was deleted."
        reason = f"{lacking:,} of its images are missing. {error}"
        return self.turn("finished" if self.votes else "failed", reason)

    def _vote(self, kind: PairKind, scene: int, left: int, right: int) -> BlindVote:
        return BlindVote(
            test_id=self.test.key,
            judge=self.judge,
            number=self.own[-1].number + 1 if self.own else 1,
            kind=kind.value,
            scene=scene,
            left=left,
            right=right,
        )

    def turn(self, state: State, reason: str = "") -> Turn:
        """A turn with the pair in view, and what is judged, to come and drawn."""
        answered, plan, check = len(self.own) - len(self.open), self.plan, self.check
        hidden = max(FEWEST_CHECKS - check.repeats, 0) + max(plan.controls - check.controls, 0)
        fewest = self.standing.fewest_left + hidden
        grids = self.images.drawn, self.images.base
        return Turn(
            test=self.test,
            state=state,
            number=self.open[0].number if self.open else 0,
            subject=self.images.subject(self.open[0]) if self.open else "",
            judged=answered,
            fewest_left=fewest,
            most_left=max(fewest, min(plan.pairs - answered, self.standing.most_left + hidden + 2)),
            drawn=sum(grid.images for grid in grids),
            images=sum(len(grid.cells) for grid in grids),
            reason=reason,
        )


def vote(session: Session, test_id: int, judge: str, number: int, answer: Choice) -> BlindVote:
    """Answer a pair; the same answer twice is no error.

    Raises Conflict if it was answered otherwise, was not shown, or the test has ended.
    """
    service.require_open(service.get_blind_test(session, test_id, lock=True))
    row = service.pair_of(session, test_id, judge, number)
    if row.answer not in (None, answer.value):
        raise Conflict(f"Pair {number:,} was answered before. Undo that answer to change it.")
    if row.answer is None:
        row.answer, row.answered_at = answer.value, utcnow()
        session.add(row)
        session.flush()
    return row


def undo(session: Session, test_id: int, judge: str) -> BlindVote:
    """Take back the last answer of a judge: its pair is shown again. Raises Conflict."""
    service.require_open(service.get_blind_test(session, test_id, lock=True))
    answered = select(BlindVote).where(
        BlindVote.test_id == test_id, BlindVote.judge == judge, col(BlindVote.answer).is_not(None)
    )
    row = session.exec(answered.order_by(col(BlindVote.number).desc())).first()
    if row is None:
        raise Conflict("There is no answer to take back.")
    row.answer = row.answered_at = None
    session.add(row)
    session.flush()
    return row
