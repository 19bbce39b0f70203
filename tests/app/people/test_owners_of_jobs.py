"""What a worker makes belongs to who ordered the job."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi import FastAPI
from sqlmodel import select

from app.registry.actor import Visibility, made_visibility, maker_id
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs import service as jobs
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob
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
