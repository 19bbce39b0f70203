"""REST: blind tests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.registry.actor import current_actor
from app.registry.blind_tests import images, judging, plan, results, service
from app.registry.blind_tests.judging import Turn
from app.registry.blind_tests.plan import BlindRequest
from app.registry.blind_tests.results import BlindResult
from app.registry.db import MAX_ID
from app.registry.tables.blind_tests import BlindTest, Choice, Question
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer
from app.web.openapi import file_docs
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, State, Writing

router = Router(tags=["blind-tests"])

ENDED = problems({409: "It has ended or was deleted, or the pair was not shown."})
NOT_ENDED = problems({409: "It has not ended: until then nothing tells who is who."})
ADDRESS = "/api/v1/blind-tests"
Number = Annotated[int, Path(ge=1, le=1_000)]


class BlindTestIn(BlindRequest):
    """A blind test to start."""

    model_config = example(
        question="closer",
        candidates=[{"run_id": 1, "step": 20}, {"run_id": 1, "step": 40}],
    )


class BlindEstimate(Answer):
    """The cost of a test, and what it can find."""

    labels: list[str] = Field(description="Names of the candidates.")
    pairs: int = Field(description="Most pairs that a judge sees, hidden ones included.")
    found: float
    """The share of pairs from which on a preference is found in 90 % of tests."""
    images: int = Field(description="Number of its images, if all pairs are judged.")
    new_images: int = Field(description="Those of them that are not there yet.")
    seconds: float | None = Field(description="To draw them, about; null: not known yet.")
    notes: list[str] = Field(description="What is unlike between candidates, as sentences.")


class BlindTestOut(OwnedAnswer):
    """A blind test."""

    address: ClassVar[str] = "/api/v1/blind-tests/{id}"
    id: int = Field(description="Id of the test.")
    title: str = Field(description="Its title.")
    question: Question = Field(description="What each pair asks.")
    run_id: int | None = Field(description="The run that it is about.")
    adapter_id: int | None = Field(description="The adapter that it is about.")
    labels: list[str] | None = Field(description="Its candidates; null while it is judged.")
    grid_id: int | None = Field(description="Grid of its images; null while it is judged.")
    created_at: datetime = Field(description="When it was started.")
    ended_at: datetime | None = Field(description="When it ended; null while it is judged.")


class BlindPairOut(Turn):
    """The pair that waits for an answer of this judge; addresses and fields tell nothing else."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)
    question: Question = Field(description="What it asks.")
    left_url: str | None = Field(description="Address of the left image.")
    right_url: str | None = Field(description="Address of the right image.")
    reference_urls: list[str] = Field(description="Addresses of the images of the style.")


class BlindVoteIn(BaseModel):
    """The answer of a judge to a pair."""

    model_config = example(number=1, answer="left")
    number: int = Field(ge=1, le=1_000, description="Number of the pair.")
    answer: Choice = Field(description="The chosen side; `tie`: no difference.")


class BlindUseIn(BaseModel):
    """The candidate to put into use."""

    model_config = example(candidate=0)
    candidate: int = Field(ge=0, le=9, description="Its number, from 0.")


class BlindUsedOut(BaseModel):
    """What was put into use."""

    told: str = Field(description="What was changed, as a sentence.")


def judge() -> str:
    """Who judges: each login session; programs together; whoever needs no login on this machine."""
    return current_actor() or "loopback"


def blind_test_out(test: BlindTest) -> BlindTestOut:
    """A test as the API shows it: who is who only once it has ended."""
    shown = {} if test.ended_at else {"labels": None, "grid_id": None}
    return BlindTestOut.of(test, **shown)


def pair_out(turn: Turn) -> BlindPairOut:
    """A turn as the API shows it."""
    own = f"{ADDRESS}/{turn.test.key}"
    is_pair = turn.state == "pair"
    left, right = (
        f"{own}/pairs/{turn.number}/{side}" if is_pair else None for side in ("left", "right")
    )
    return BlindPairOut(
        **dict(turn),
        question=Question(turn.test.question),
        left_url=left,
        right_url=right,
        reference_urls=[f"{own}/references/{k}" for k, _ in enumerate(turn.test.references, 1)],
    )


@router.post("/blind-tests/estimate", Action.LOOK)
def estimate_blind_test(body: BlindTestIn, session: Reading) -> BlindEstimate:
    """Estimate a blind test.

    Nothing is stored or queued; what is wrong is said as for starting it.
    """
    planned = plan.plan_blind_test(session, body)
    return BlindEstimate.of(planned.test, planned.statistics, planned)


@router.post("/blind-tests", Action.DRAW, status_code=202)
def start_blind_test(body: BlindTestIn, state: State, session: Writing) -> BlindTestOut:
    """Start a blind test: its images are drawn in the order in which they are judged.

    Until it ends, nothing tells which candidate an image is of.
    """
    with state.database.read() as reading:
        planned = plan.plan_blind_test(reading, body)
    return blind_test_out(service.start(session, planned, state.store))


@router.get("/blind-tests", Action.LOOK)
def list_blind_tests(
    session: Reading,
    part: Part,
    run_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Only those about this run.")
    ] = None,
    adapter_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Only those about this adapter.")
    ] = None,
) -> list[BlindTestOut]:
    """List blind tests, newest first."""
    found = service.list_blind_tests(
        session, run_id=run_id, adapter_id=adapter_id, size=part.size, before=part.after
    )
    rows = part.cut(found.items, lambda test: test.key, total=found.total)
    return [blind_test_out(test) for test in rows]


@router.get("/blind-tests/{test_id}", Action.LOOK)
def get_blind_test(test_id: Id, session: Reading) -> BlindTestOut:
    """Get a blind test."""
    return blind_test_out(service.get_blind_test(session, test_id))


@router.post("/blind-tests/{test_id}/pairs", Action.VOTE, responses=ENDED)
def next_blind_pair(test_id: Id, state: State) -> BlindPairOut:
    """Get the pair that waits for an answer, else the next one.

    Each login session is a judge; so are programs together. A test that is decided ends.
    """
    return pair_out(judging.take_turn(state.database, test_id, judge()))


@router.post("/blind-tests/{test_id}/votes", Action.VOTE, responses=ENDED)
def vote_blind_pair(test_id: Id, body: BlindVoteIn, state: State) -> BlindPairOut:
    """Answer a pair; the answer is the next one. The same answer twice is no error."""
    with state.database.write() as session:
        judging.vote(session, test_id, judge(), body.number, body.answer)
    return pair_out(judging.take_turn(state.database, test_id, judge()))


@router.post("/blind-tests/{test_id}/undo", Action.VOTE, responses=ENDED)
def undo_blind_vote(test_id: Id, state: State) -> BlindPairOut:
    """Take the last answer of this judge back: its pair waits for another one."""
    with state.database.write() as session:
        judging.undo(session, test_id, judge())
    return pair_out(judging.take_turn(state.database, test_id, judge()))


@router.post("/blind-tests/{test_id}/end", Action.CONTROL)
def end_blind_test(test_id: Id, session: Writing) -> BlindTestOut:
    """End a blind test with what is judged: undecided is a result, too.

    Images that are still to come are canceled. Ending twice is no error.
    """
    return blind_test_out(service.end(session, test_id))


@router.post(
    "/blind-tests/{test_id}/continue",
    Action.CONTROL,
    status_code=202,
    responses=problems({409: "It was deleted."}),
)
def continue_blind_test(test_id: Id, state: State) -> BlindTestOut:
    """Open a blind test again, and draw the images that are missing."""
    with state.database.read() as session:
        missing = service.plan_missing(session, test_id)
    with state.database.write() as session:
        return blind_test_out(service.go_on(session, test_id, missing, state.store))


@router.get("/blind-tests/{test_id}/result", Action.LOOK, responses=NOT_ENDED)
def get_blind_result(test_id: Id, session: Reading) -> BlindResult:
    """Get what a blind test found."""
    test = service.get_blind_test(session, test_id)
    service.require_ended(test)
    return results.view(session, test)


@router.post("/blind-tests/{test_id}/use", Action.EDIT, responses=NOT_ENDED)
def use_blind_candidate(test_id: Id, body: BlindUseIn, session: Writing) -> BlindUsedOut:
    """Put a candidate into use, at the weight that it had.

    A checkpoint becomes a version first, as by `POST /runs/{id}/checkpoints/{step}/use`.
    """
    return BlindUsedOut(told=service.use_candidate(session, test_id, body.candidate))


@router.get(
    "/blind-tests/{test_id}/pairs/{number}/{side}",
    Action.LOOK,
    response_class=Response,
    responses=file_docs("image/png") | problems({409: "The pair was not shown."}),
)
def get_blind_image(
    test_id: Id, number: Number, side: Literal["left", "right"], state: State
) -> Response:
    """Download a side of a pair.

    Both sides are equal in size and format.
    """
    with state.database.read() as session:
        pair = images.find_pair(session, test_id, judge(), number)
    return _png(images.draw_side(state.store, pair, Choice(side)))


@router.get(
    "/blind-tests/{test_id}/references/{shown}",
    Action.LOOK,
    response_class=Response,
    responses=file_docs("image/png"),
)
def get_blind_reference(
    test_id: Id, shown: Annotated[int, Path(ge=1, le=9)], state: State
) -> Response:
    """Download an image of the style that pairs are compared with."""
    with state.database.read() as session:
        sha256 = images.find_reference(session, test_id, shown)
    return _png(images.draw_reference(state.store, sha256))


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png", headers={"cache-control": "no-store"})
