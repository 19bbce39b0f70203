"""Every pair of states: which moves exist, and that only those are made."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from app.registry.db import Database
from app.registry.job_kinds.states import ALLOWED_MOVES, JobStatus, can_move
from app.registry.jobs import service as jobs
from app.registry.tables.jobs import Event, IoJob

PAIRS = list(itertools.product(JobStatus, JobStatus))
EXPECTED = {
    ("queued", "running"),
    ("queued", "canceled"),
    ("queued", "paused"),
    ("paused", "queued"),
    ("paused", "canceled"),
    ("paused", "succeeded"),
    ("running", "queued"),
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "canceled"),
}


def stored(database: Database, status: JobStatus) -> IoJob:
    with database.write() as session:
        job = IoJob(kind="test", status=status)
        session.add(job)
    return job


def status_of(database: Database, job: IoJob) -> str:
    with database.read() as session:
        return session.exec(select(IoJob.status).where(IoJob.id == job.id)).one()


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_pair_of_states_has_a_move_exactly_when_the_design_says_so(
    old: JobStatus, new: JobStatus
) -> None:
    assert can_move(old, new) == ((old, new) in EXPECTED)


def test_final_states_have_no_way_out() -> None:
    assert {status for status in JobStatus if status.is_final} == {
        JobStatus.SUCCEEDED,
        JobStatus.FAILED,
        JobStatus.CANCELED,
    }
    assert set(ALLOWED_MOVES) == set(JobStatus)


def test_only_allowed_moves_change_a_row(database: Database) -> None:
    for old, new in PAIRS:
        job = stored(database, old)
        with database.write() as session:
            if can_move(old, new):
                assert jobs.transition(session, IoJob, job.key, old=old, new=new)
            else:
                with pytest.raises(ValueError, match="cannot change from"):
                    jobs.transition(session, IoJob, job.key, old=old, new=new)
        assert status_of(database, job) == (new if can_move(old, new) else old)


def test_a_move_from_a_state_the_row_left_changes_nothing(database: Database) -> None:
    job = stored(database, JobStatus.CANCELED)
    with database.write() as session:
        assert not jobs.transition(
            session, IoJob, job.key, old=JobStatus.QUEUED, new=JobStatus.RUNNING
        )
    assert status_of(database, job) == JobStatus.CANCELED
    with database.read() as session:
        assert not session.exec(select(Event).where(Event.subject_id == job.key)).all()


def test_the_database_refuses_a_state_that_does_not_exist(database: Database) -> None:
    job = stored(database, JobStatus.QUEUED)
    with pytest.raises(sa.exc.IntegrityError), database.write() as session:
        session.connection().execute(
            sa.update(IoJob).where(IoJob.id == job.key).values(status="exploded")
        )
    assert status_of(database, job) == JobStatus.QUEUED


MOVES = st.lists(
    st.sampled_from(["claim", "finish", "fail", "retry", "give_back", "cancel", "reap"]),
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=MOVES)
def test_no_sequence_of_calls_leaves_the_table_of_moves(
    sqlite_database: Database, moves: list[str]
) -> None:
    with sqlite_database.write() as session:
        session.connection().execute(sa.delete(IoJob))
    job = stored(sqlite_database, JobStatus.QUEUED)
    claim = None
    before = JobStatus.QUEUED
    for move in moves:
        with sqlite_database.write() as session:
            row = session.get_one(IoJob, job.key)
            try:
                if move == "claim":
                    claimed = jobs.claim_next(session, IoJob, lease_seconds=-1)
                    claim = claimed[1] if claimed else claim
                elif move == "cancel":
                    jobs.request_cancel(session, IoJob, row)
                elif move == "reap":
                    held = {"token": row.owner_token or "", "lease_was": row.lease_until}
                    jobs.release(session, IoJob, row.key, **held)
                elif claim is not None:
                    act(session, move, claim)
            except (jobs.LostLease, jobs.Conflict):
                pass
        after = JobStatus(status_of(sqlite_database, job))
        assert after == before or can_move(before, after)
        with sqlite_database.read() as session:
            row = session.get_one(IoJob, job.key)
            assert (row.owner_token is not None) == (after is JobStatus.RUNNING)
            assert (row.lease_until is not None) == (after is JobStatus.RUNNING)
            assert (row.finished_at is not None) == after.is_final
            assert row.attempt <= row.max_attempts
        before = after


def act(session: jobs.Session, move: str, claim: jobs.Claim) -> None:
    if move == "finish":
        jobs.finish(session, IoJob, claim, JobStatus.SUCCEEDED)
    elif move == "fail":
        jobs.finish(session, IoJob, claim, JobStatus.FAILED, error="It broke.")
    elif move == "retry":
        jobs.give_up_or_retry(session, IoJob, claim, code="crash", error="It crashed.")
    elif move == "give_back":
        jobs.give_back(session, IoJob, claim)
