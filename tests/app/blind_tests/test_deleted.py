"""Blind tests that are deleted for good, and things that they need."""

from __future__ import annotations

from sqlmodel import select

from app.registry.blind_tests import judging, plan, service
from app.registry.blind_tests.plan import BlindRequest, CandidateRequest
from app.registry.blobs import deletion as freeing
from app.registry.deletion.renders import delete_blind_test, delete_deleted_renders
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.state import AppState
from app.registry.tables.blind_tests import BlindTest, BlindVote, Choice, Question
from app.registry.tables.renders import Grid, Render
from tests import fake_workers

ME = "loopback"


def test_it_is_deleted_for_good_with_its_answers_and_images(state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    one = {"adapter_id": adapter.key, "version": 1}
    both = [CandidateRequest(adapters=[one]), CandidateRequest()]  # type: ignore[list-item]
    with state.database.read() as session:
        made = plan.plan_blind_test(session, BlindRequest(question=Question.KEEP, candidates=both))
    assert made.test.title == "Blind test of Chalk"
    with state.database.write() as session:
        test = service.start(session, made, state.store)
    drawn = len(fake_workers.draw(state))
    turn = judging.take_turn(state.database, test.key, ME)
    with state.database.write() as session:
        judging.vote(session, test.key, ME, turn.number, Choice.TIE)
        service.delete_blind_test(session, test.key)
        (thing,) = list_things(session, DeletedKind.BLIND_TESTS).items
        assert (thing.name, thing.place) == (test.title, f"/blind-tests/{test.key}")
    with state.database.write() as session:  # its grid is not deleted with other grids
        delete_deleted_renders(session)
        assert session.get(Grid, test.grid_id) is not None
    freed = freeing.delete(state, lambda session: delete_blind_test(session, test.key))
    assert list(freed.goes) == [f"{drawn} renders", "1 grid", "1 answer"]
    with state.database.read() as session:
        for table in (BlindTest, BlindVote, Grid, Render):
            assert session.exec(select(table)).all() == []
