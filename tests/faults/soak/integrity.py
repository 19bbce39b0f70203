"""Conditions after a soak: nothing lost, nothing doubled, nothing damaged, nothing left."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.states import ACTIVE
from app.registry.paths import ROOT
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.all import JOB_TABLES
from app.registry.tables.jobs import Event, IoJob, Job
from app.registry.tables.renders import Render, RenderImage
from app.registry.tables.runs import Run
from tests.faults.soak.figures import Figures
from tests.faults.soak.load import Ledger

QUIET_SECONDS = 900.0  # the jobs that still wait are done
POLL_SECONDS = 1.0
TEMPORARY = ("scratch", "blobs/incoming", "work")


def wait_until_quiet(database: Database) -> bool:
    """Return when no job waits or runs any more; False if that takes too long."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        with database.read() as session:
            if not any(session.exec(_active(table)).first() for table in JOB_TABLES):
                return True
        time.sleep(POLL_SECONDS)
    return False


def _active(table: type[Job]) -> sa.Select[tuple[int | None]]:
    return select(table.id).where(col(table.status).in_(ACTIVE)).limit(1)


def check_jobs(database: Database, ledger: Ledger, figures: Figures) -> None:
    """Every accepted job has ended well, once; nobody ordered the others."""
    with database.read() as session:
        for table, accepted in ((Run, ledger.runs), (Render, ledger.renders)):
            name = f"{table.__tablename__}s"
            rows = {row.key: row for row in session.exec(select(table))}
            figures.jobs[f"{name} accepted"] = len(accepted)
            for key in accepted:
                row = rows.pop(key, None)
                if row is None:
                    figures.break_promise(f"{table.__tablename__} {key} was lost")
                elif row.status != "succeeded":
                    figures.break_promise(
                        f"{table.__tablename__} {key} is {row.status}: {row.error}"
                    )
            if len(rows) > ledger.unknown[name]:
                figures.break_promise(f"{len(rows)} {name} that nobody was told of: {sorted(rows)}")
        figures.jobs["io jobs"] = len(session.exec(select(IoJob.id)).all())
        for row in session.exec(select(IoJob).where(col(IoJob.status) == "failed")):
            figures.break_promise(f"io job {row.key} ({row.kind}) failed: {row.error}")
        figures.jobs["attempts after a kill"] = _again(session)
        for sentence in _doubled(session):
            figures.break_promise(sentence)


def _again(session: Session) -> int:
    """The number of times that a job went back to the queue."""
    again = select(sa.func.count()).where(
        Event.kind == "queued", col(Event.data)["was"].as_string() == "running"
    )
    return int(session.exec(again.select_from(Event)).one())


def _doubled(session: Session) -> Iterable[str]:
    """A sentence for everything that was made twice."""
    ends = (
        select(Event.subject, Event.subject_id)
        .where(Event.kind == "succeeded")
        .group_by(Event.subject, col(Event.subject_id))
        .having(sa.func.count() > 1)
    )
    for subject, key in session.exec(ends):
        yield f"{subject} {key} succeeded twice"
    made = (
        select(AdapterVersion.run_id)
        .where(col(AdapterVersion.run_id).is_not(None))
        .group_by(col(AdapterVersion.run_id))
        .having(sa.func.count() > 1)
    )
    for run_id in session.exec(made):
        yield f"run {run_id} made two versions"
    images = (
        select(RenderImage.render_id)
        .group_by(col(RenderImage.render_id), col(RenderImage.index))
        .having(sa.func.count() > 1)
    )
    for render_id in session.exec(images):
        yield f"render {render_id} has an image twice"


def check_files(data_dir: Path) -> Iterable[str]:
    """A sentence for everything that is damaged, missing or left over; the stack has ended."""
    settings = Settings(_env_file=None, data_dir=data_dir)
    engine = make_engine(settings.sqlalchemy_url)
    with engine.connect() as connection:
        for check, sound in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
            found = [tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {check}")]
            if found != sound:
                yield f"PRAGMA {check}: {found[:3]}"
    engine.dispose()
    for blob in (data_dir / "blobs").glob("??/??/*"):
        if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
            yield f"the blob {blob.name} has another content"
    for folder in TEMPORARY:
        place = data_dir / folder
        left = [file.name for file in place.iterdir()] if place.is_dir() else []
        if left:
            yield f"left in {folder}: {', '.join(left[:5])}"
    verified = subprocess.run(
        [sys.executable, "-m", "app", "verify"],
        cwd=data_dir,
        env=os.environ | {"BRUSHWORK_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if verified.returncode:
        yield f"brushwork verify: {verified.stdout[-500:]}{verified.stderr[-500:]}"
