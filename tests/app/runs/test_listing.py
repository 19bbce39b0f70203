"""The list of runs is searched, filtered and sorted, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from app.registry.db import Database, utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import listing
from app.registry.runs.listing import RunFilter, RunSort, list_runs, run_choices
from app.registry.runs.service import active_runs, queue_places, runs_ahead
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.runs import Run, Sample
from tests.claims import claim

QUERIES = 12  # of the list, without search and choices


@pytest.fixture
def registry(database: Database, ready_base: None) -> Database:
    """Five runs on two datasets; the last one waits, the one before trains, the first has made an
    adapter."""
    with database.write() as session:
        session.add_all([Dataset(slug="cafe", name="Café walls"), Dataset(slug="sea", name="Sea")])
        session.flush()
        for key in (1, 2):
            session.add(DatasetVersion(dataset_id=key, fingerprint="x", image_count=0, items=[]))
        adapter = Adapter(slug="mural", name="Mural", base_family="sd1")
        session.add(adapter)
        session.flush()
        version = {"sha256": "0" * 64, "size_bytes": 1, "rank": 4, "alpha": 4}
        session.add(AdapterVersion(adapter_id=adapter.key, version=1, **version))
        session.flush()
    start = utcnow() - timedelta(hours=1)
    for number, (name, status, loss, minutes) in enumerate(
        [
            ("émile", JobStatus.SUCCEEDED, 0.3, 20),
            ("Zebra", JobStatus.FAILED, 0.1, 5),
            ("alpha", JobStatus.CANCELED, None, None),
            ("Beta", JobStatus.RUNNING, 0.2, None),
            ("Gamma", JobStatus.QUEUED, None, None),
        ]
    ):
        add_run(
            database,
            name=name,
            status=status,
            loss=loss,
            dataset_id=2 if number == 1 else 1,
            started_at=start if minutes or status is JobStatus.RUNNING else None,
            finished_at=start + timedelta(minutes=minutes) if minutes else None,
            adapter_version_id=1 if number == 0 else None,
            adapter_id=1 if number == 4 else None,
            notes="Blotchy 50 % sky" if number == 1 else "",
        )
    with database.write() as session:
        session.get_one(AdapterVersion, 1).run_id = 1
    return database


def add_run(database: Database, **values: Any) -> int:
    defaults = {"dataset_id": 1, "base_model_id": 1, "config": {"rank": 4}, "total_steps": 40}
    values = defaults | values
    with database.write() as session:
        run = Run(dataset_version_id=values["dataset_id"], **values)
        session.add(run)
        session.flush()
        return run.key


def found(database: Database, **wanted: Any) -> list[int]:
    with database.read() as session:
        return [row.run.key for row in list_runs(session, RunFilter(**wanted)).items]


def test_searches_filters_and_orders(registry: Database) -> None:
    for query, keys in {
        "EMILE": [1],
        "blotchy 50": [2],
        "50 %": [2],
        '"sky blotchy"': [],
        "sea": [2],  # its dataset
        "cafe walls": [5, 4, 3, 1],
        "starter": [5, 4, 3, 2, 1],  # its base model
        "mural": [1],  # the adapter it made
        "cafe gamma": [5],
        "3": [3],  # its number
        "99999999999999": [],
        "%": [2],
        "--": [],
        "\0": [],
    }.items():
        assert found(registry, q=query) == keys, query
    for filters, keys in (
        ({"status": "failed"}, [2]),
        ({"dataset_id": 1, "status": "queued"}, [5]),
        ({"dataset_id": 99}, []),
        ({"base_model_id": 1, "q": "a"}, [3]),
        ({"adapter_id": 1}, [5, 1]),
        ({"page": 2}, []),
    ):
        assert found(registry, **filters) == keys, filters
    for sort, keys in {
        RunSort.NEWEST: [5, 4, 3, 2, 1],
        RunSort.OLDEST: [1, 2, 3, 4, 5],
        RunSort.NAME: [3, 4, 1, 5, 2],
        RunSort.NAME_DOWN: [2, 5, 1, 4, 3],
        RunSort.STATUS: [4, 5, 1, 2, 3],
        RunSort.LOSS: [2, 4, 1, 5, 3],
        RunSort.LONGEST: [4, 1, 2, 5, 3],
        RunSort.SHORTEST: [2, 1, 4, 5, 3],
    }.items():
        assert found(registry, sort=sort) == keys, sort


def test_counts_and_choices_say_what_is_there(registry: Database) -> None:
    with registry.write() as session:
        session.get_one(Dataset, 1).deleted_at = utcnow()
        session.get_one(BaseModel, 1).status = "removed"
    filters = RunFilter(dataset_id=2, status="failed", adapter_id=9)
    with registry.read() as session:
        page = list_runs(session, RunFilter(dataset_id=1, status="queued"))
        choices = run_choices(session, filters)
    assert page.counts == {"succeeded": 1, "canceled": 1, "running": 1, "queued": 1}
    assert (page.total, page.all_count, page.queue_length, page.is_live) == (1, 5, 1, True)
    labels = [[choice.label for choice in each] for each in vars(choices).values()]
    assert labels == [
        ["Café walls (deleted)", "Sea"],
        ["starter (removed)"],
        ["Mural", "number 9 (deleted for good)"],
    ]


def test_the_queue_is_in_the_order_of_its_start(registry: Database) -> None:
    last, urgent = add_run(registry, name="Last"), add_run(registry, name="Urgent", priority=-1)
    with registry.read() as session:
        assert queue_places(session, [1, 5, last, urgent]) == {urgent: 1, 5: 2, last: 3}


def test_places_in_the_queue_equal_the_order_of_claims_also_of_a_retried_run(
    registry: Database,
) -> None:
    with registry.read() as session:
        start = session.get_one(Run, 5).created_at
    late = add_run(registry, name="Late", created_at=start + timedelta(hours=2))
    add_run(registry, name="Early", created_at=start + timedelta(hours=1))
    add_run(registry, name="Urgent", created_at=start + timedelta(hours=3), priority=-1)
    retried = add_run(registry, name="Retried", created_at=start - timedelta(hours=1), priority=-1)
    with registry.write() as session:
        _, owned = claim(session, Run)
        jobs.give_up_or_retry(session, Run, owned, code="x", error="It failed.")
    assert owned.job_id == retried
    with registry.read() as session:
        rows = list_runs(session, RunFilter(status="queued")).items
        shown = [row.run for row in sorted(rows, key=lambda row: row.place or 0)]
        ahead = [runs_ahead(session, run) for run in shown]
        active = [run.key for run in active_runs(session, limit=10).shown]
    with registry.write() as session:
        claimed = [claim(session, Run)[0].key for _ in shown]
    assert [run.key for run in shown] == claimed == active[1:]
    assert ahead == [1, 2, 3, 4, 5]  # one run trains
    assert (claimed[0], claimed[-1]) == (retried, late)


def test_rows_show_samples_of_the_newest_step_and_many_cost_no_more_queries(
    registry: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.write() as session:
        for step in (0, 20):
            session.add_all(
                Sample(
                    run_id=4, step=step, prompt_index=n, prompt="p", seed=1, sha256=f"{step}-{n}"
                )
                for n in range(7)
            )
    statements: list[str] = []
    sa.event.listen(
        registry.engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    with registry.read() as session:
        rows = {row.run.key: row for row in list_runs(session, RunFilter()).items}
    few = len([text for text in statements if "SELECT" in text])
    assert [sample.sha256 for sample in rows[4].samples] == [f"20-{n}" for n in range(5)]
    assert rows[1].adapter is not None
    assert (rows[1].adapter.name, rows[1].seconds, rows[1].rank) == ("Mural", 1200, 4)
    assert (rows[5].place, rows[5].samples, rows[5].seconds) == (1, [], None)
    for number in range(listing.RUNS_A_PAGE):
        add_run(registry, name=f"Copy {number}", status=JobStatus.QUEUED)
    statements.clear()
    with registry.read() as session:
        assert len(list_runs(session, RunFilter()).items) == listing.RUNS_A_PAGE
        assert len(session.exec(select(Run.id)).all()) > listing.RUNS_A_PAGE
    many = len([text for text in statements if "SELECT" in text]) - 1
    assert many <= few <= QUERIES
