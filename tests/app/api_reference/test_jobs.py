"""`/jobs` lists every kind of job, so that a client that lost an id finds its job again."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.job_kinds.caption_kinds import DownloadCaptionModelArgs
from app.registry.job_kinds.kinds import (
    FetchHubAdapterArgs,
    ImportAdapterArgs,
    PublishAdapterArgs,
    SweepArgs,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import listing
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.api_reference.test_lists import walk

API = "/api/v1"


@pytest.fixture
def busy(client: TestClient, state: AppState) -> TestClient:
    """A server with a job of nearly every kind."""
    adapter = fake_workers.adapter(state)
    fake_workers.ready_base(state)
    for prompt in ("a fox", "a boat"):
        assert client.post(f"{API}/renders", json={"prompt": prompt}).status_code == 202
    fake_workers.draw(state)
    fake_workers.queued_run(state, fake_workers.dataset(state, "Ink", pictures=2))
    grid = {"request": {"prompt": "a fox"}, "columns": {"kind": "seed", "values": "1, 2"}}
    captions = f"{API}/datasets/1/captions"
    for address, body in (
        (f"{API}/grids", grid),
        (f"{API}/adapters/{adapter.key}/resize", {"rank": 2}),
        (f"{captions}/previews", {"image_id": 1}),
        (f"{captions}/orders", {"mode": "replace"}),
        (f"{API}/renders", {"prompt": "a draft", "draft_slot": "mine"}),
    ):
        made = client.post(address, json=body)
        assert made.status_code == 202, made.text
        assert client.get(made.headers["location"]).json()["id"] == made.json()["id"]
    published = PublishAdapterArgs(
        repo="ink", update=False, private=True, base_model="", pictures=()
    )
    with state.database.write() as session:
        jobs.enqueue_io(session, ImportAdapterArgs(sha256="0" * 64, filename="a.safetensors"))
        jobs.enqueue_io(session, FetchHubAdapterArgs(repo="a/b", revision=None, file=None))
        jobs.enqueue_io(session, published, subject_id=adapter.key)
        jobs.enqueue_io(session, SweepArgs())
    return client


def listed(client: TestClient, query: str = "") -> list[Any]:
    answer = client.get(f"{API}/jobs{query}")
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()
    return found


def test_every_job_is_listed_once_with_the_address_of_its_thing(busy: TestClient) -> None:
    found = listed(busy)
    ids = [job["id"] for job in found]
    assert len(set(ids)) == len(ids)
    kinds = {job["kind"] for job in found}
    assert kinds >= {
        *("run", "render", "grid", "resize_adapter", "preview_caption", "caption_images"),
        *("import_adapter", "fetch_hub_adapter", "publish_adapter", "sweep"),
    }
    times = [job["created_at"] for job in found]
    assert times == sorted(times, reverse=True)
    for job in found:
        assert busy.get(f"{API}/jobs/{job['id']}").json() == job
        if job["kind"] == "sweep":
            assert job["url"] is None
        else:
            assert busy.get(job["url"]).status_code == 200, job
    assert walk(busy, "/jobs", limit=2) == found


def test_drafts_and_the_images_of_grids_are_left_out(busy: TestClient, state: AppState) -> None:
    renders = listed(busy, "?kind=render")
    assert [job["url"] for job in renders] == [f"{API}/renders/{render}" for render in (2, 1)]
    (grid,) = listed(busy, "?kind=grid")
    assert (grid["status"], grid["finished_at"]) == ("queued", None)
    assert busy.post(f"{grid['url']}/cancel").status_code == 202
    (grid,) = listed(busy, "?kind=grid")
    assert grid["status"] == "canceled"
    assert grid["finished_at"]


def test_they_are_filtered_by_kind_and_status(busy: TestClient) -> None:
    assert {job["kind"] for job in listed(busy, "?kind=run&kind=sweep")} == {"run", "sweep"}
    (waiting,) = listed(busy, "?kind=run&status=queued")
    assert waiting["id"] == "run-2"
    assert busy.get(f"{API}/jobs?kind=nonsense").status_code == 422
    assert busy.get(f"{API}/jobs?status=nonsense").status_code == 422


@pytest.mark.parametrize("job", ["run-99", "run", "run-", "sweep-1", "-1", "run-99999999999", "é"])
def test_what_is_no_job_is_not_found(client: TestClient, job: str) -> None:
    assert client.get(f"{API}/jobs/{job}").status_code == 404


def test_what_has_ended_cannot_be_canceled_and_canceling_twice_is_no_error(
    busy: TestClient, state: AppState
) -> None:
    cancelable = [
        job["url"]
        for job in listed(busy, "?status=queued")
        if job["kind"] not in ("sweep", "preview_caption", "inspect_base")
    ]
    assert len(cancelable) == 7
    for address in [*cancelable, *cancelable]:
        answer = busy.post(f"{address}/cancel")
        assert (answer.status_code, answer.headers["location"]) == (202, address)
    for address in (f"{API}/runs/1", f"{API}/renders/1"):
        refused = busy.post(f"{address}/cancel")
        assert (refused.status_code, refused.json()["title"]) == (
            409,
            "This changed in the meantime",
        )


def test_both_databases_list_them_alike(database: Any) -> None:
    with database.write() as session:
        for args in (SweepArgs(), DownloadCaptionModelArgs(repo="a/b", revision=None)):
            jobs.enqueue_io(session, args, subject_id=1)
        rows = listing.list_jobs(session, limit=10)
        assert [row.number for row in rows] == [2, 1]
        first = (rows[0].created_at.isoformat(), rows[0].kind, rows[0].number)
        (second,) = listing.list_jobs(session, limit=10, after=first)
        assert (second.id, second.status) == ("sweep-1", JobStatus.QUEUED)
        assert listing.list_jobs(session, limit=10, kinds=[Run.__tablename__]) == []


def test_a_grid_has_succeeded_with_its_last_image(busy: TestClient, state: AppState) -> None:
    fake_workers.draw(state)
    (grid,) = listed(busy, "?kind=grid")
    assert grid["status"] == "succeeded"
    assert grid["finished_at"]
    assert busy.post(f"{grid['url']}/cancel").status_code == 409
    assert busy.post("/grids/1/cancel", follow_redirects=False).status_code == 303


def test_what_is_deleted_is_in_no_list(busy: TestClient) -> None:
    gone = ("run-1", "render-1", "grid-1")
    runs = int(busy.get(f"{API}/runs").headers["x-total-count"])
    for address in ("runs/1", "renders/1", "grids/1"):
        assert busy.delete(f"{API}/{address}").status_code == 200
    assert not {job["id"] for job in listed(busy)}.intersection(gone)
    assert [busy.get(f"{API}/jobs/{job}").status_code for job in gone] == [404] * 3
    assert busy.get(f"{API}/runs").headers["x-total-count"] == str(runs - 1)
