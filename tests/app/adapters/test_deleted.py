"""Deleted adapters, brought back or deleted for good, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import Session, SQLModel, select

from app.registry.adapters import service
from app.registry.adapters.library import search
from app.registry.adapters.service import AdapterChange
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import NewFile, NewVersion, publish
from app.registry.base_models.service import ensure_embedded
from app.registry.datasets import service as datasets
from app.registry.db import Database
from app.registry.deletion import adapters as deleted
from app.registry.deletion import lists
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.kinds import (
    ExportAdapterArgs,
    InspectBaseArgs,
    MergeAdaptersArgs,
    ResizeAdapterArgs,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.jobs.service import enqueue_io
from app.registry.tables.adapters import (
    Adapter,
    AdapterAlias,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render, RenderAdapter
from app.registry.tables.runs import Run
from worker.core.words import FileFormat, WeightDtype


def make(database: Database, name: str = "Chalk", *, versions: int = 1) -> int:
    key: int | None = None
    for number in range(versions):
        file = NewFile("kohya", "fp16", "f" * 64, 1)
        new = NewVersion(name, "sd1", f"{number:064x}", 1, 4, 4.0, files=[file])
        with database.write() as session:
            key = publish(session, new, adapter_id=key).adapter_id
    assert key is not None
    return key


def put_away(database: Database, key: int, *, days_ago: int = 0) -> None:
    with database.write() as session:
        adapter = service.delete_adapter(session, key)
        adapter.deleted_at = datetime.now(UTC) - timedelta(days=days_ago)


def for_good(database: Database, key: int) -> None:
    with database.write() as session:
        deleted.delete_forever(session, key)


def make_run(session: Session, **values: object) -> Run:
    base = ensure_embedded(session)
    dataset = datasets.create_dataset(session, "Pictures")
    session.flush()
    pinned = DatasetVersion(dataset_id=dataset.key, fingerprint="x", image_count=0, items=[])
    session.add(pinned)
    session.flush()
    run = Run(
        name="Chalk",
        dataset_id=dataset.key,
        dataset_version_id=pinned.key,
        base_model_id=base.key,
        config={},
        total_steps=1,
        **values,
    )
    session.add(run)
    session.flush()
    return run


def make_render(session: Session, key: int, status: JobStatus) -> Render:
    render = Render(
        base_model_id=ensure_embedded(session).key,
        prompt="a castle",
        seed=1,
        steps=1,
        guidance=1,
        width=64,
        height=64,
        adapters=[{"adapter_id": key, "name": "Chalk"}],
        cache_key="x",
        status=status,
    )
    session.add(render)
    session.flush()
    session.add(RenderAdapter(adapter_id=key, render_id=render.key))
    return render


def test_the_one_deleted_last_comes_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "DELETED_A_PAGE", 2)
    for number, name in enumerate(("Old", "Older", "Oldest", "Kept")):
        key = make(database, name, versions=number + 1)
        if name != "Kept":
            put_away(database, key, days_ago=number)
    with database.read() as session:
        first, second = (list_things(session, DeletedKind.ADAPTERS, page=n) for n in (1, 2))
        last = first.items[-1]
        rest = list_things(session, DeletedKind.ADAPTERS, after=(last.deleted_at, last.id))
    assert rest.items == second.items
    found = [(row.name, row.about.split(", ")[1]) for row in (*first.items, *second.items)]
    assert found == [("Old", "1 version"), ("Older", "2 versions"), ("Oldest", "3 versions")]
    assert (first.total, first.pages) == (3, 2)


def test_whether_there_is_one_is_known_without_a_list(database: Database) -> None:
    key = make(database)
    with database.read() as session:
        assert not lists.has_deleted(session, Adapter)
    put_away(database, key)
    with database.read() as session:
        assert lists.has_deleted(session, Adapter)


def test_nothing_is_left_of_what_was_deleted_for_good(database: Database) -> None:
    key = make(database, versions=2)
    with database.write() as session:
        adapter = service.change_adapter(session, key, AdapterChange(tags=["board", "green"]))
        aliases.set_alias(session, service.get_version(session, adapter, 1), "best")
        run = make_run(session, adapter_id=key, adapter_version_id=1, status=JobStatus.SUCCEEDED)
        render = make_render(session, key, JobStatus.SUCCEEDED)
    other = make(database, "Ink")
    put_away(database, key)
    for_good(database, key)
    with database.read() as session:
        assert [row.key for row in session.exec(select(Adapter))] == [other]
        assert {row.adapter_id for row in session.exec(select(AdapterVersion))} == {other}
        assert {row.adapter_id for row in session.exec(select(AdapterAlias))} == {other}
        assert {row.adapter_id for row in session.exec(select(AdapterSearch))} == {other}
        assert not session.exec(select(AdapterTag)).all()
        assert not session.exec(select(RenderAdapter)).all()
        assert search.candidates(session, search.needles("chalk"), most=9) == []
        kept = session.get_one(Run, run.key)
        assert (kept.adapter_id, kept.adapter_version_id) == (None, None)
        assert session.get_one(Render, render.key).adapters[0]["name"] == "Chalk"
    with pytest.raises(NotFound, match="for good already"):
        for_good(database, key)
    with pytest.raises(NotFound, match="for good"), database.write() as session:
        lists.restore(session, Adapter, key)


def test_no_id_is_given_twice(database: Database) -> None:
    key = make(database, versions=2)
    put_away(database, key)
    for_good(database, key)
    again = make(database)
    with database.read() as session:
        version = service.get_version(session, service.get_adapter(session, again))
    assert again > key
    assert version.key > 2


def test_only_a_deleted_adapter_can_be_deleted_for_good(database: Database) -> None:
    key = make(database)
    with pytest.raises(Conflict, match="This adapter is not deleted"):
        for_good(database, key)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.RUNNING])
def test_what_work_still_needs_is_kept(database: Database, status: JobStatus) -> None:
    key = make(database)
    resize = ResizeAdapterArgs(rank=2, energy=None, dynamic=False)
    part = ResolvedAdapter(adapter_id=key, version_id=1, version=1, slug="x", name="x")
    merge = MergeAdaptersArgs(name="x", parts=(part,), method="svd", rank=2, density=0.5, seed=0)
    with database.write() as session:
        jobs: list[Run | Render | IoJob] = [
            make_run(session, adapter_id=key, status=status),
            make_render(session, key, status),
            service.order_file(
                session, 1, ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.FP16)
            ),
            service.order_import(session, sha256="a" * 64, filename="x", adapter_id=key),
            enqueue_io(session, resize, subject_id=1),
            enqueue_io(session, merge),
        ]
        enqueue_io(session, InspectBaseArgs(), subject_id=1)  # the base 1, not the version
        for job in jobs:
            job.status = status
            session.add(job)
    put_away(database, key)
    left = (
        "1 training, 1 render, 4 jobs",
        "1 render, 4 jobs",
        "by 4",
        "by 3",
        "by 2",
        "by 1 job",
    )
    for job, sentence in zip(jobs, left, strict=True):
        with pytest.raises(Conflict, match=sentence):
            for_good(database, key)
        with database.write() as session:
            session.get_one(type(job), job.key).status = JobStatus.CANCELED
    for_good(database, key)


def test_everything_that_refers_to_an_adapter_is_thought_of() -> None:
    """A new table or column that does has to be dealt with in `deleted`, then named here."""
    found = {
        f"{table.name}.{key.parent.name}"
        for table in SQLModel.metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name in ("adapter", "adapter_version")
    }
    assert found == {
        "adapter_alias.adapter_id",
        "adapter_alias.version_id",
        "adapter_file.version_id",
        "adapter_look.adapter_id",
        "adapter_search.adapter_id",
        "adapter_tag.adapter_id",
        "adapter_version.adapter_id",
        "render_adapter.adapter_id",
        "run.adapter_id",
        "run.adapter_version_id",
        "sample.version_id",
    }


def test_a_deleted_list_needs_no_look_at_every_adapter(database: Database) -> None:
    with database.read() as session:
        query = sa.text("EXPLAIN QUERY PLAN SELECT id FROM adapter WHERE deleted_at IS NOT NULL")
        if database.is_sqlite:
            plan = " ".join(str(row) for row in session.connection().execute(query))
            assert "ix_adapter_deleted" in plan
