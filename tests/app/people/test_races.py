"""Eight processes that change people and shares at the same moment, on both databases."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from app.registry.access.delays import FREE_TRIES
from app.registry.actor import Limits, Principal, Role, acting_as
from app.registry.db import Database, make_engine, utcnow
from app.registry.errors import AppError
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.quotas import waits_until
from app.registry.people import accounts, invitations, overview, passwords, shares
from app.registry.people import service as people
from app.registry.people.accounts import Sender
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.jobs import Event
from app.registry.tables.people import DeviceUse, Invitation, LoginFailure, Share, User
from app.registry.tables.runs import Run
from app.registry.wording import aware
from tests.app.people.test_accounts import GOOD, HOME, invite, outcome, person

pytestmark = pytest.mark.process
TOGETHER, TRIES = 8, 3
Act = Callable[..., Any]


def run_one(url: str, act: Act, args: tuple[Any, ...], ready: Any, found: Any) -> None:
    """Carry out an act in this process, once all are ready; the words of what refused it."""
    passwords.COST.update(time_cost=1, memory_cost=8, parallelism=1)
    database, said = Database(make_engine(url)), None
    with database.read() as session:
        session.exec(select(User)).all()
    ready.wait()
    try:
        said = act(database, *args)
    except AppError as error:
        said = type(error).__name__
    except Exception as error:
        said = repr(error)
    found.put((args, said))
    database.dispose()


def at_once(database: Database, act: Act, several: list[tuple[Any, ...]]) -> list[Any]:
    """What an act gives for each of these arguments, in a process each, with the arguments."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # one process imports for all of them
    ready, found = context.Barrier(len(several)), context.SimpleQueue()
    url = database.engine.url.render_as_string(hide_password=False)
    racers = [
        context.Process(target=run_one, args=(url, act, args, ready, found)) for args in several
    ]
    for racer in racers:
        racer.start()
    results = [found.get() for _ in racers]
    for racer in racers:
        racer.join()
    return results


@pytest.fixture
def eva(database: Database) -> User:
    """An administrator whose password is GOOD."""
    token = invite(database, "Eva", Role.ADMIN)
    accounts.use_invitation(database, token, GOOD, HOME)
    return person(database, "Eva")


def step_down(database: Database, key: int, changes: dict[str, Any]) -> str:
    with database.write() as session:
        overview.change(session, key, **changes)
    return "done"


def test_of_administrators_who_remove_each_other_one_stays(database: Database, eva: User) -> None:
    accounts.use_invitation(database, invite(database, "Ana", Role.ADMIN), GOOD, HOME)
    both = (eva.key, person(database, "Ana").key)
    ways: list[dict[str, Any]] = [{"role": Role.MEMBER}, {"disabled": True}]
    for _ in range(2):
        several = [(key, way) for key in both for way in (*ways, *ways)]
        found = at_once(database, step_down, several)
        assert {said for _, said in found} == {"done", "Conflict"}
        removed = {args[0] for args, said in found if said == "done"}
        with database.write() as session:
            rows = session.exec(select(User)).all()
            left = [row.key for row in rows if row.role == "admin" and not row.disabled_at]
            assert set(both) - removed == set(left)
            assert len(left) == 1
            for row in rows:
                row.role, row.disabled_at = Role.ADMIN, None


def use_link(database: Database, token: str, password: str) -> str:
    accounts.use_invitation(database, token, password, HOME)
    return "done"


def test_a_link_that_eight_use_sets_one_password(database: Database, eva: User) -> None:
    token = invite(database, "Ben")
    several = [(token, f"{GOOD} {number}") for number in range(TOGETHER)]
    found = at_once(database, use_link, several)
    assert Counter(said for _, said in found) == {"done": 1, "Gone": TOGETHER - 1}
    (chosen,) = [args[1] for args, said in found if said == "done"]
    assert outcome(database, "Ben", chosen) == "in"


def guess(database: Database, known: str, now: datetime) -> list[str]:
    accounts.utcnow = lambda: now  # type: ignore[attr-defined]  # this process ends after it
    sender = Sender(HOME.address, known={1: known} if known else None)
    return [outcome(database, "Eva", "wrong", sender) for _ in range(TRIES)]


@pytest.mark.parametrize("is_known", [False, True])
def test_failures_in_eight_processes_are_counted_as_in_one(
    database: Database, eva: User, is_known: bool
) -> None:
    known = accounts.known_value(eva) if is_known else ""
    found = at_once(database, guess, [(known, utcnow())] * TOGETHER)
    said = Counter(one for _, several in found for one in several)
    counted = FREE_TRIES + 1
    assert said == {"WrongLogin": counted, "TooManyTries": TRIES * TOGETHER - counted}
    with database.read() as session:
        rows = session.exec(select(LoginFailure)).all()
    assert [round(row.count) for row in rows] == [counted] * (1 if is_known else 2)


def test_of_eight_who_invite_one_name_all_are_told(database: Database, eva: User) -> None:
    names = [("Zoë",), ("ZOË",)] * (TOGETHER // 2)
    found = at_once(database, invite_new, names)
    assert Counter(said for _, said in found) == {"done": 1, "Conflict": TOGETHER - 1}
    with database.read() as session:
        assert len(people.list_users(session)) == 2
        assert len(session.exec(select(Invitation).where(Invitation.used_at == None)).all()) == 1  # noqa: E711


def invite_new(database: Database, name: str) -> str:
    with database.write() as session:
        invitations.make_invitation(session, people.add_user(session, name, Role.MEMBER))
    return "done"


def queue_run(database: Database, user: int, number: int) -> str:
    database.limits = Limits(waiting_jobs=20)
    values = {"dataset_id": 1, "dataset_version_id": 1, "base_model_id": 1, "total_steps": 1}
    for place in range(TRIES):
        with acting_as("test", Principal(user, Role.MEMBER)), database.write() as session:
            jobs.enqueue(session, Run(name=f"{number}.{place}", config={}, **values))
    return "done"


def train(database: Database) -> str:
    database.limits = Limits()
    with database.write() as session:
        claimed = jobs.claim_next(session, Run, lease_seconds=60)
        assert claimed is not None
        session.flush()
        events = select(Event).where(Event.subject_id == claimed[1].job_id, Event.kind == "running")
        for event in session.exec(events):
            event.at = aware(event.at) - timedelta(minutes=90)
    with database.write() as session:
        jobs.finish(session, Run, claimed[1], JobStatus.SUCCEEDED)
    return "done"


def test_of_eight_who_queue_for_one_person_no_more_wait_than_may(
    database: Database, eva: User
) -> None:
    with database.write() as session:
        eva.waiting_jobs = most = TRIES * TOGETHER // 2
        session.add(eva)
        for row in (
            BaseModel(id=1, name="base", slug="base", source="embedded"),
            Dataset(id=1, name="a", slug="a"),
            DatasetVersion(id=1, dataset_id=1, number=1, fingerprint="a", image_count=0, items=[]),
        ):
            session.add(row)
            session.flush()
    found = at_once(database, queue_run, [(eva.key, number) for number in range(TOGETHER)])
    assert {said for _, said in found} <= {"done", "QuotaUsedUp"}
    with database.read() as session:
        assert len(session.exec(select(Run)).all()) == most
    assert {said for _, said in at_once(database, train, [()] * TOGETHER)} == {"done"}
    database.limits = Limits(device_minutes=700)
    with database.read() as session:
        hours = session.exec(select(DeviceUse)).all()
        use = {one.quota: one.used for one in overview.usage_of(session, eva)}
        assert use | {"waiting": most - TOGETHER, "device": TOGETHER * 90} == use
        assert waits_until(session, eva.key) is not None
        assert not jobs.has_waiting(session, Run)
    assert len(hours) in (2, 3)  # a row for each
    assert sum(row.seconds for row in hours) == pytest.approx(TOGETHER * 5_400, abs=80)


def change_share(database: Database, owner: int, dataset: int, user: int, way: str) -> str:
    with acting_as("test", Principal(owner, Role.MEMBER)), database.write() as session:
        thing, friend = session.get_one(Dataset, dataset), session.get_one(User, user)
        if way == "none":
            shares.unshare(session, thing, friend)
        else:
            shares.share(session, thing, friend, edits=way == "edit")
    return "done"


def test_shares_that_are_given_and_taken_at_once(database: Database, eva: User) -> None:
    accounts.use_invitation(database, invite(database, "Ben"), GOOD, HOME)
    ben = person(database, "Ben").key
    with database.write() as session:
        row = Dataset(name="a", slug="a", owner_id=eva.key, visibility="private")
        session.add(row)
    for ways in (("see", "edit"), ("none",), ("none", "see"), ("edit",)):
        several = [(eva.key, row.key, ben, ways[number % len(ways)]) for number in range(TOGETHER)]
        assert {said for _, said in at_once(database, change_share, several)} == {"done"}
        with database.read() as session:
            left = {share.may_edit for share in session.exec(select(Share))}
        possible = {"see": {False}, "edit": {True}, "none": set()}
        assert left in [possible[way] for way in ways]
