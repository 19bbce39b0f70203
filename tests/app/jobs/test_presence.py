"""Which workers are there."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from app.registry.db import Database
from app.registry.jobs.presence import Presence, present_workers
from app.registry.tables.jobs import WorkerPresence


def test_a_worker_is_seen_until_it_leaves(database: Database) -> None:
    me = Presence("train")
    me.announce(database, device="")
    me.announce(database, device="CPU, 2 threads")
    with database.read() as session:
        (seen,) = present_workers(session, queue="train")
        assert seen.device == "CPU, 2 threads"
        assert present_workers(session, queue="render") == []
    me.leave(database)
    with database.read() as session:
        assert present_workers(session) == []


def test_a_problem_with_the_device_is_told_until_it_is_solved(database: Database) -> None:
    me = Presence("train")
    me.announce(database, device="CPU", problem="The GPU is not used.", remedy="make it so")
    with database.read() as session:
        (seen,) = present_workers(session)
        assert (seen.problem, seen.remedy) == ("The GPU is not used.", "make it so")
    me.announce(database, device="CPU")
    with database.read() as session:
        assert present_workers(session)[0].problem == ""


def test_a_worker_that_fell_silent_is_not_shown_and_is_forgotten_after_a_day(
    database: Database,
) -> None:
    silent = Presence("io")
    silent.announce(database, device="CPU")
    for age, kept in ((timedelta(minutes=1), True), (timedelta(days=2), False)):
        with database.write() as session:
            row = session.get_one(WorkerPresence, silent.id)
            row.seen_at -= age
            session.add(row)
        with database.read() as session:
            assert present_workers(session) == []
        Presence("io").announce(database, device="CPU")
        with database.read() as session:
            assert (session.get(WorkerPresence, silent.id) is not None) == kept
        with database.write() as session:
            others = sa.delete(WorkerPresence).where(WorkerPresence.id != silent.id)
            session.connection().execute(others)


def test_a_worker_whose_row_was_forgotten_writes_it_again(database: Database) -> None:
    me = Presence("render")
    me.announce(database, device="CPU")
    me.leave(database)
    me.announce(database, device="CPU")
    with database.read() as session:
        assert [row.id for row in present_workers(session)] == [me.id]
