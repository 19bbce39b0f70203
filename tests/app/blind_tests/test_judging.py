"""Blind tests in the registry: candidates, judging, hidden pairs, what goes wrong."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlmodel import select

from app.registry import evaluations, prompt_sets
from app.registry.base_models import service as base_models
from app.registry.blind_tests import images, judging, plan, results, service
from app.registry.blind_tests.images import BASE, REAL
from app.registry.blind_tests.judging import Turn
from app.registry.blind_tests.plan import BlindRequest, CandidateRequest
from app.registry.blobs.subjects import Subject, list_references
from app.registry.deletion.lists import restore
from app.registry.deletion.runs import discard_checkpoint
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import service as renders
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.axes import AxisRequest
from app.registry.renders.grids.plan import GridRequest, plan_grid
from app.registry.renders.grids.views import list_grids
from app.registry.renders.recipes.service import save_recipe
from app.registry.renders.requests import RenderRequest
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.axes import AxisKind
from app.registry.tables.blind_tests import BlindTest, BlindVote, Choice, PairKind, Question
from app.registry.tables.renders import Render
from tests import fake_workers

ME = "session:1"
SCENES = 24  # of the conftest
Answer = Callable[[BlindVote], Choice]


def step(run: int, number: int, weight: float | None = None) -> CandidateRequest:
    return CandidateRequest(run_id=run, step=number, weight=weight)


def request(run: int, question: Question = Question.CLOSER, **values: object) -> BlindRequest:
    return BlindRequest(question=question, candidates=[step(run, 20), step(run, 40)], **values)  # type: ignore[arg-type]


def started(state: AppState, wanted: BlindRequest) -> BlindTest:
    with state.database.read() as session:
        made = plan.plan_blind_test(session, wanted)
    with state.database.write() as session:
        return service.start(session, made, state.store)


def pair_of(state: AppState, turn: Turn, judge: str = ME) -> BlindVote:
    with state.database.read() as session:
        return service.pair_of(session, turn.test.key, judge, turn.number)


def better(candidate: int) -> Answer:
    """Who prefers one candidate, and knows real images."""

    def answer(vote: BlindVote) -> Choice:
        wanted = REAL if vote.kind == PairKind.CONTROL else candidate
        return Choice.LEFT if vote.left == wanted else Choice.RIGHT

    return answer


def judge(
    state: AppState, test: BlindTest, answer: Answer, name: str = ME, most: int = 130
) -> Turn:
    """Answer pairs until there is none."""
    for _ in range(most):
        turn = judging.take_turn(state.database, test.key, name)
        if turn.state != "pair":
            break
        choice = answer(pair_of(state, turn, name))
        with state.database.write() as session:
            judging.vote(session, test.key, name, turn.number, choice)
    return judging.take_turn(state.database, test.key, name)


def view(state: AppState, test: BlindTest) -> results.BlindResult:
    with state.database.read() as session:
        return results.view(session, service.get_blind_test(session, test.key))


def test_a_clear_preference_ends_the_test_and_is_found(state: AppState, run: int) -> None:
    with state.database.read() as session:
        made = plan.plan_blind_test(session, request(run))
    assert (made.test.labels, made.notes, made.test.run_id) == (["Step 20", "Step 40"], [], run)
    assert made.statistics.pairs <= 120
    assert made.images == made.new_images == 2 * SCENES + 6
    assert not set(made.test.references) & set(made.test.controls)
    with state.database.write() as session:
        test = service.start(session, made, state.store)
        needed = [one for one in list_references(session) if one.subject is Subject.BLIND_TEST]
        assert {one.sha256 for one in needed} == {*test.references, *test.controls}
    turn = judging.take_turn(state.database, test.key, ME)
    assert (turn.state, turn.drawn, turn.images) == ("waiting", 0, made.images)
    fake_workers.draw(state)
    turn = judge(state, test, better(1))
    assert turn.state == "ended"
    found = view(state, test)
    assert found.winner == 1
    assert found.sentence.startswith("Step 40 is preferred")
    check = found.judges[0]
    assert (check.repeats, check.alike, check.controls, check.right) == (4, 4, 4, 4)
    kinds = [one.kind for one in found.pairs]
    assert kinds.count(PairKind.COUNTED) == 20
    assert all(one.chosen == 1 for one in found.pairs if one.kind is not PairKind.CONTROL)
    sides = {one.left for one in votes(state, test) if one.kind == PairKind.COUNTED}
    assert sides == {0, 1}
    scenes = [one.scene for one in votes(state, test) if one.kind == PairKind.COUNTED]
    assert len(set(scenes)) == 20

    with state.database.write() as session:
        told = service.use_candidate(session, test.key, 1)
    assert told == "Version 1 of “Chalk” is in use now."


def votes(state: AppState, test: BlindTest) -> list[BlindVote]:
    with state.database.read() as session:
        return service.all_votes(session, test.key)


def test_who_always_presses_one_is_found_and_left_out(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    fake_workers.draw(state)
    turn = judge(state, test, lambda _: Choice.LEFT)
    assert turn.state == "finished"
    assert "whatever it showed" in turn.reason or "sides swapped" in turn.reason
    turn = judge(state, test, better(0), "session:2")  # another one is not held up
    assert turn.state == "ended"
    found = view(state, test)
    assert found.winner == 0
    assert [one.counts for one in found.judges] == [False, True]
    assert "session 1 left out" in found.notes[0]


def test_equal_candidates_are_undecided(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    fake_workers.draw(state)
    coin = random.Random(3)
    turn = judge(state, test, lambda _: coin.choice([Choice.LEFT, Choice.RIGHT]))
    assert turn.state in ("ended", "finished")
    with state.database.write() as session:
        service.end(session, test.key)
    found = view(state, test)
    assert found.winner is None


def test_an_answer_is_taken_once_and_back(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    fake_workers.draw(state)
    with state.database.write() as session, pytest.raises(Conflict, match="no answer to take back"):
        judging.undo(session, test.key, ME)
    first = judging.take_turn(state.database, test.key, ME)
    assert first.number == 1
    assert judging.take_turn(state.database, test.key, ME) == first
    with state.database.write() as session:
        judging.vote(session, test.key, ME, 1, Choice.LEFT)
        judging.vote(session, test.key, ME, 1, Choice.LEFT)  # sent twice
        with pytest.raises(Conflict, match="Undo that answer"):
            judging.vote(session, test.key, ME, 1, Choice.RIGHT)
        with pytest.raises(Conflict, match="not shown to you yet"):
            judging.vote(session, test.key, ME, 9, Choice.RIGHT)
    assert judging.take_turn(state.database, test.key, ME).number == 2
    with state.database.write() as session:
        judging.undo(session, test.key, ME)
    again = judging.take_turn(state.database, test.key, ME)
    assert (again.number, again.subject, again.judged) == (1, first.subject, 0)
    with state.database.write() as session:
        judging.vote(session, test.key, ME, 1, Choice.RIGHT)
    other = judging.take_turn(state.database, test.key, "session:2")  # from another device
    assert (other.number, other.judged) == (1, 0)
    assert other.subject != first.subject
    with state.database.write() as session:
        service.end(session, test.key)
        with pytest.raises(Conflict, match="has ended"):
            judging.vote(session, test.key, "session:2", 1, Choice.RIGHT)
    assert [one.answer for one in votes(state, test)] == ["right"]
    assert view(state, test).counted == 1
    assert "nothing is decided" in view(state, test).notes[0]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"candidates": 1}, "candidates", "at least two"),
        ({"candidates": 60}, "candidates", "at most 6"),
        ({"equal": True}, "candidates", "draw the same images, so nobody can tell them apart"),
        ({"step": 30}, "candidates", "Candidate 2: "),
        ({"prompt_set": "few"}, "prompt_set", "at least 12 different prompts; found: 6"),
        ({"prompt_set": "none"}, "prompt_set", "no such prompt set"),
        ({"dataset_id": 99}, "dataset_id", "no such dataset"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    state: AppState, run: int, change: dict[str, object], field: str, words: str
) -> None:
    candidates = [step(run, 20), step(run, 40)]
    if count := change.pop("candidates", None):
        candidates = [step(run, 20, 0.01 * k) for k in range(1, int(str(count)) + 1)]
    if change.pop("equal", None):
        candidates[1] = step(run, 20)
    if number := change.pop("step", None):
        candidates[1] = step(run, int(str(number)))
    wanted = BlindRequest(question=Question.KEEP, candidates=candidates, **change)  # type: ignore[arg-type]
    with state.database.write() as session:
        prompt_sets.create_set(session, "Few", list("abcdef"))
    with state.database.read() as session, pytest.raises(InvalidInput) as error:
        plan.plan_blind_test(session, wanted)
    assert words in error.value.fields[field]


def test_a_run_without_images_is_asked_which_to_keep(state: AppState) -> None:
    adapter = fake_workers.adapter(state)  # of three images
    one = {"adapter_id": adapter.key, "version": 1}
    candidates = [CandidateRequest(adapters=[one | {"weight": w}]) for w in (0.5, 1.0)]  # type: ignore[list-item]
    candidates.append(CandidateRequest())
    with state.database.read() as session:
        with pytest.raises(InvalidInput, match="ask “Which would you keep"):
            plan.plan_blind_test(
                session, BlindRequest(question=Question.CLOSER, candidates=candidates)
            )
        made = plan.plan_blind_test(
            session, BlindRequest(question=Question.KEEP, candidates=candidates)
        )
    assert made.test.labels == ["Chalk, version 1 at 0.50", "Chalk, version 1", "Without adapters"]
    assert (made.test.adapter_id, made.test.references) == (adapter.key, [])
    prompts = [made.grids["grid_id"].planned[place].prompt for place in range(3)]
    assert prompts == ["cat, chalkboard style", "cat, chalkboard style", "cat"]


def test_what_cannot_be_drawn_is_said_and_skipped(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    with state.database.write() as session:
        while claimed := jobs.claim_next(session, Render, lease_seconds=60):
            values = {"error": "The adapter was deleted.", "error_code": "gone"}
            jobs.finish(session, Render, claimed[1], JobStatus.FAILED, **values)
    turn = judging.take_turn(state.database, test.key, ME)
    assert (turn.state, turn.judged) == ("failed", 0)
    assert "The adapter was deleted." in turn.reason
    with state.database.read() as session:
        missing = service.plan_missing(session, test.key)
    with state.database.write() as session:
        service.go_on(session, test.key, missing, state.store)
        renders = session.exec(select(Render).where(Render.status == JobStatus.QUEUED)).all()
        for render in renders[16:]:
            jobs.request_cancel(session, Render, render)
    fake_workers.draw(state)
    turn = judge(state, test, better(0))
    assert turn.state == "finished"
    assert turn.judged > 3
    assert "of its images are missing" in turn.reason


def test_its_grid_is_hidden_until_it_ends(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    drawn = fake_workers.draw(state)
    grid_id = test.grid_id or 0
    with state.database.write() as session:
        with pytest.raises(Conflict, match="once its blind test has ended"):
            grids.require_shown(session, grid_id)
        with pytest.raises(Conflict, match="once its blind test has ended"):
            renders.get_render(session, drawn[0].key)
        with pytest.raises(Conflict, match="deleted with it"):
            grids.delete_grid(session, grid_id)
        with pytest.raises(Conflict, match="has not ended"):
            service.use_candidate(session, test.key, 0)
        assert list_grids(session).total == 0
        service.end(session, test.key)
        grids.require_shown(session, grid_id)
        assert grids.get_grid(session, grid_id).varied[0].labels == ["Step 20", "Step 40"]


def test_a_deleted_test_cannot_be_judged(state: AppState, run: int) -> None:
    test = started(state, request(run, Question.KEEP))
    with state.database.write() as session:
        service.delete_blind_test(session, test.key)
        waiting = select(Render).where(Render.status == JobStatus.QUEUED)
        assert session.exec(waiting).all() == []
    with pytest.raises(Conflict, match="was deleted"):
        judging.take_turn(state.database, test.key, ME)
    with state.database.write() as session:
        restore(session, BlindTest, test.key)
    assert judging.take_turn(state.database, test.key, ME).state == "failed"


def test_a_candidate_deleted_in_mid_test_is_judged_on_what_is_drawn(
    state: AppState, run: int
) -> None:
    test = started(state, request(run, Question.KEEP))
    fake_workers.draw(state, most=12)  # renders of two images each
    assert judge(state, test, better(1), most=5).judged == 5
    with state.database.write() as session:
        with pytest.raises(Conflict, match="is used by 12 renders"):
            discard_checkpoint(session, run, 20)
        for render in session.exec(select(Render).where(Render.status == JobStatus.QUEUED)).all():
            jobs.request_cancel(session, Render, render)
        discard_checkpoint(session, run, 20)
    turn = judge(state, test, better(1))
    assert (turn.state, turn.judged >= 12) == ("finished", True)
    assert turn.reason.startswith("24 of its images are missing. They were canceled")
    with state.database.read() as session:
        (missing,) = service.plan_missing(session, test.key).values()
    assert len(missing.refused) == len(missing.planned) == 12
    with state.database.write() as session:
        service.end(session, test.key)
        with pytest.raises(NotFound):
            service.use_candidate(session, test.key, 0)
    found = view(state, test)
    assert found.counted == 12
    assert found.test.labels == ["Step 20", "Step 40"]


def test_without_its_base_model_what_is_drawn_is_judged(state: AppState, run: int) -> None:
    test = started(state, request(run))
    fake_workers.draw(state, most=6 + 6)
    with state.database.write() as session:
        for render in session.exec(select(Render).where(Render.status == JobStatus.QUEUED)).all():
            jobs.request_cancel(session, Render, render)
        base = base_models.find_base_model(session, None)
        base.status = ModelStatus.REMOVED
        session.add(base)
    turn = judge(state, test, better(0))
    assert (turn.state, turn.judged >= 6) == ("finished", True)
    with state.database.write() as session:
        service.end(session, test.key)
        assert service.plan_missing(session, test.key) == {}
        service.go_on(session, test.key, {}, state.store)
    assert judging.take_turn(state.database, test.key, ME).reason == turn.reason


def test_candidates_of_unlike_size_are_shown_alike(state: AppState, run: int) -> None:
    wanted = RenderRequest(prompt="a mill", adapters=[], width=128, height=192, steps=7)
    with state.database.write() as session:
        recipe = save_recipe(session, "Tall", wanted)
    candidates = [step(run, 20), CandidateRequest(recipe=recipe.slug)]
    with state.database.read() as session:
        made = plan.plan_blind_test(
            session, BlindRequest(question=Question.KEEP, candidates=candidates)
        )
    assert made.test.labels == ["Step 20", "Tall"]
    (note,) = made.notes
    assert "“Step 20” by starter, 128 × 128, 12 steps" in note.replace("Starter", "starter")
    assert "“Tall” by starter, 128 × 192, 7 steps" in note.replace("Starter", "starter")
    test = started(state, BlindRequest(question=Question.KEEP, candidates=candidates))
    fake_workers.draw(state)
    turn = judging.take_turn(state.database, test.key, ME)
    with state.database.read() as session:
        pair = images.find_pair(session, test.key, ME, turn.number)
    shown = [images.draw_side(state.store, pair, side) for side in (Choice.LEFT, Choice.RIGHT)]
    assert len({Image.open(io.BytesIO(content)).size for content in shown}) == 1
    assert shown[0] != shown[1]


def test_a_file_has_pixels_alone(state: AppState) -> None:
    text = PngInfo()
    text.add_text("parameters", "Chalk, step 20")
    hashes = []
    for mode, size in (("RGB", (64, 64)), ("P", (90, 60))):
        target = io.BytesIO()
        Image.new(mode, size).save(target, "PNG", pnginfo=text, dpi=(300, 300), icc_profile=b"hi")
        hashes.append(fake_workers.blob(state, target.getvalue()))
    left, right = hashes
    real = BlindVote(test_id=1, judge=ME, number=1, kind="control", scene=0, left=REAL, right=BASE)
    for vote, size in ((real, (90, 60)), (real.model_copy(update={"kind": "counted"}), (90, 64))):
        for side in (Choice.LEFT, Choice.RIGHT):
            content = images.draw_side(state.store, (vote, left, right), side)
            shown = Image.open(io.BytesIO(content))
            assert (shown.size, shown.mode, shown.info) == (size, "RGB", {})
            assert b"Chalk" not in content


def test_a_grid_is_judged_with_its_prompts_and_seeds(state: AppState, run: int) -> None:
    prompts = "\n".join(f"subject {number}" for number in range(12))
    axes = [AxisRequest(AxisKind.CHECKPOINT, f"{run}"), AxisRequest(AxisKind.PROMPT, prompts)]
    wanted = RenderRequest(prompt="", seed=77, steps=12)
    with state.database.read() as session:
        planned = plan_grid(session, GridRequest(wanted, axes))
    with state.database.write() as session:
        grid = grids.create_grid(session, planned, state.store)
    fake_workers.draw(state)
    with state.database.read() as session:
        candidates = plan.candidates_of_grid(session, grid.key)
        made = plan.plan_blind_test(
            session, BlindRequest(question=Question.KEEP, candidates=candidates, grid_id=grid.key)
        )
    assert made.test.labels == ["Step 20", "Step 40"]
    assert (made.images, made.new_images) == (2 * SCENES, 2 * SCENES - 24)


def test_images_of_an_evaluation_are_used_again(state: AppState, run: int) -> None:
    with state.database.read() as session:
        wanted = evaluations.EvaluationRequest(subjects=6, captions=2, plain=0)
        planned = evaluations.plan_evaluation(session, run, wanted)
    with state.database.write() as session:
        evaluations.start_evaluation(session, planned, state.store)
    fake_workers.draw(state)
    with state.database.read() as session:
        made = plan.plan_blind_test(session, request(run, Question.KEEP))
    assert (made.images, made.new_images) == (2 * SCENES, 2 * SCENES - 2 * 6)
