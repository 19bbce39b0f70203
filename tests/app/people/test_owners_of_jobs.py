"""What a worker makes belongs to who ordered the job."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import col, select

from app.registry.actor import Visibility, made_visibility, maker_id
from app.registry.db import utcnow
from app.registry.job_kinds.kinds import CheckFilesArgs, JobKind
from app.registry.jobs import service as jobs
from app.registry.people import service as people
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from app.registry.tables.people import User
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.people.conftest import find_person, state_of, train_privately, working_as
from worker.runtime.job_loop import JobLoop


class Noting:
    """Work that notes for whom it makes things."""

    table = IoJob
    made: tuple[int, str] | None = None

    def run(self, job: Any, lease: Any, stopping: threading.Event) -> None:
        self.made = maker_id(), made_visibility()


@pytest.mark.parametrize("accounts", [True, False])
def test_a_job_makes_things_for_its_owner_and_private_ones_of_a_private_subject(
    people_app: FastAPI, accounts: bool
) -> None:
    state = state_of(people_app)
    train_privately(people_app, "Ana")
    with working_as(people_app, "Ana"), state.database.write() as session:
        version = session.exec(select(AdapterVersion)).all()[-1]
        job = IoJob(kind=JobKind.RESIZE_ADAPTER, subject_id=version.key, args={})
        jobs.enqueue(session, job)
    claimed = None
    with state.database.write() as session:
        while claimed is None or claimed[0].key != job.key:  # others wait, too
            claimed = jobs.claim_next(session, IoJob, lease_seconds=60.0)
            assert claimed is not None
    work = Noting()
    loop = JobLoop(state.database, work, lease_seconds=60.0, accounts=accounts)  # type: ignore[arg-type]
    loop._process_job(*claimed)
    of_ana = find_person(people_app, "Ana").key, Visibility.PRIVATE.value
    assert work.made == (of_ana if accounts else (1, Visibility.STUDIO.value))


def carried_out(app: FastAPI, job: IoJob | Run, *, accounts: bool = True) -> bool:
    """True if a worker that claims this job carries it out."""
    state, claimed = state_of(app), None
    with state.database.write() as session:
        while claimed is None or claimed[0].key != job.key:  # others wait, too
            claimed = jobs.claim_next(session, type(job), lease_seconds=60.0)
            assert claimed is not None
    work = Noting()
    JobLoop(state.database, work, lease_seconds=60.0, accounts=accounts)._process_job(*claimed)  # type: ignore[arg-type]
    return work.made is not None


def ordered_resize(app: FastAPI, name: str) -> IoJob:
    state = state_of(app)
    with working_as(app, name), state.database.write() as session:
        version = session.exec(select(AdapterVersion)).all()[-1]
        job = IoJob(kind=JobKind.RESIZE_ADAPTER, subject_id=version.key, args={})
        return jobs.enqueue(session, job)


def row_of(app: FastAPI, job: IoJob | Run) -> Any:
    with state_of(app).database.read() as session:
        return session.get_one(type(job), job.key)


@pytest.mark.parametrize("change", ["disabled", "hidden", "dataset"])
def test_a_job_starts_only_if_its_owner_still_may(people_app: FastAPI, change: str) -> None:
    state = state_of(people_app)
    train_privately(people_app, "Ana")
    publish(people_app)
    job: IoJob | Run = ordered_resize(people_app, "Ben")
    if change == "dataset":
        with working_as(people_app, "Ben"), state.database.read() as session:
            dataset = session.exec(select(Dataset)).one()
        with working_as(people_app, "Ben"):
            fake_workers.queued_run(state, dataset)
        with state.database.read() as session:
            job = session.exec(select(Run).order_by(sa.desc(col(Run.id)))).first()
    with state.database.write() as session:
        if change == "disabled":
            people.disable(session, session.get_one(User, job.owner_id))
        for thing in (*session.exec(select(Adapter)), *session.exec(select(Dataset))):
            thing.visibility = "studio" if change == "disabled" else "private"
    assert not carried_out(people_app, job)
    row = row_of(people_app, job)
    assert (row.status, row.error_code) == ("failed", "forbidden")
    assert (
        row.error
        == {
            "disabled": "The account of Ben is disabled, so nothing new starts for it.",
            "hidden": "Ben may no longer see the adapter version that this needs.",
            "dataset": "Ben may no longer see the dataset that this needs.",
        }[change]
    )


def test_a_later_attempt_does_not_ask_again(people_app: FastAPI) -> None:
    state = state_of(people_app)
    train_privately(people_app, "Ana")
    publish(people_app)
    job = ordered_resize(people_app, "Ben")
    assert carried_out(people_app, job)
    with state.database.write() as session:
        row = session.get_one(IoJob, job.key)
        jobs.give_back(session, IoJob, jobs.Claim(row.key, row.owner_token))
        people.disable(session, session.get_one(User, job.owner_id))
    assert row_of(people_app, job).attempt == 0
    assert carried_out(people_app, job)


def test_upkeep_and_what_names_deleted_things_goes_on(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with state.database.write() as session:
        kept = jobs.enqueue_io(session, CheckFilesArgs())
        eva = session.get_one(User, 1)
        eva.disabled_at = utcnow()
    assert carried_out(people_app, kept)
    train_privately(people_app, "Ana")
    job = ordered_resize(people_app, "Ana")
    with state.database.write() as session:
        row = session.get_one(IoJob, job.key)
        row.subject_id = 999
    assert carried_out(people_app, job)


def test_what_follows_a_job_belongs_to_its_owner(people_app: FastAPI) -> None:
    state, ana = state_of(people_app), find_person(people_app, "Ana").key
    with working_as(people_app, "Ana", Visibility.PRIVATE):
        fake_workers.queued_run(state, fake_workers.dataset(state, "Secret"))
    with state.database.write() as session:  # as the thread that releases lost jobs
        run = session.exec(select(Run)).one()
        run.sweep_id = 7
        session.flush()
        jobs.transition(session, Run, run.key, old=run.state, new=jobs.JobStatus.CANCELED)
    with state.database.read() as session:
        (job,) = session.exec(select(IoJob).where(IoJob.kind == JobKind.ADVANCE_SWEEP))
        assert (job.owner_id, job.visibility) == (ana, "private")


def publish(app: FastAPI) -> None:
    """Let everybody see what is there."""
    with state_of(app).database.write() as session:
        for table in (Adapter, Dataset, Run):
            for thing in session.exec(select(table)):
                thing.visibility = "studio"
