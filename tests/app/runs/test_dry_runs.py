"""Dry runs, from the form of a run and over REST."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.job_kinds.kinds import DryRunResult, RoundTrip
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.jobs import JOB_FILES_KEPT, IoJob
from tests import fake_workers
from tests.app.runs.test_pages import form_of

API = "/api/v1/dry-runs"
MEASURED = DryRunResult(
    device="CPU, 1 thread",
    seconds_per_step=0.25,
    seconds_low=0.2,
    seconds_high=0.3,
    sample_seconds=1.5,
    peak_memory_bytes=1_200_000_000,
    layers=24,
    all_layers=66,
    changes=("“Gradient checkpointing” was turned on: steps take about 50 % longer.",),
    round_trips=(RoundTrip(before="a" * 64, after="b" * 64, psnr=21.5),),
)
FORM = {"dataset_id": "1", "base_model": "starter", "preset": "quick"}


@pytest.fixture(autouse=True)
def dataset_id(state: AppState) -> int:
    fake_workers.measured_base(state)
    return fake_workers.dataset(state).key


def work(state: AppState, status: JobStatus = JobStatus.SUCCEEDED, **values: object) -> None:
    """End the dry run that waits, as a train worker would."""
    with state.database.write() as session:
        claimed = jobs.claim_next(session, IoJob, lease_seconds=60, queue="train")
        assert claimed is not None
        jobs.finish(session, IoJob, claimed[1], status, **values)


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_api_measures_behind_runs(client: TestClient, state: AppState, dataset_id: int) -> None:
    body = {"dataset_id": dataset_id, "preset": "quick", "config": {"rank": 4}}
    answer = client.post(API, json=body)
    assert answer.status_code == 202
    key = answer.json()["id"]
    assert answer.headers["location"] == f"{API}/{key}"
    assert answer.json()["measured"]["seconds_per_step"] is None
    assert client.post(API, json=body | {"name": "Other"}).json()["id"] == key
    assert client.post(API, json=body | {"config": {"rank": 8}}).json()["id"] != key
    work(state, result=MEASURED.stored())
    found = client.get(f"{API}/{key}").json()
    assert (found["status"], found["measured"]["layers"]) == ("succeeded", 24)
    assert found["measured"]["peak_memory_bytes"] == 1_200_000_000
    (listed,) = client.get("/api/v1/jobs?kind=dry_run&status=succeeded").json()
    assert listed["url"] == f"{API}/{key}"
    assert client.post(f"{API}/{key}/cancel").status_code == 409
    assert client.get(f"{API}/99").status_code == 404
    assert client.get("/api/v1/runs").json() == []


def test_what_no_run_could_train_is_refused_before_it_is_queued(
    client: TestClient, dataset_id: int
) -> None:
    body = {"dataset_id": dataset_id, "config": {"blocks": "left.1"}}
    answer = client.post(API, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["blocks"]
    several = {"datasets": [{"dataset_id": 77}]}
    (error,) = client.post(API, json=several).json()["errors"]
    assert error["field"] == "datasets.0.dataset_id"
    assert client.get("/api/v1/jobs?kind=dry_run").json() == []


def test_the_form_measures_and_shows_what_was_found(client: TestClient, state: AppState) -> None:
    page = client.post("/train/new/measure", data=FORM, headers={"hx-request": "true"}).text
    assert "Measuring waits for the worker that trains." in page
    assert 'hx-trigger="poll, ' in page
    assert 'id="train-form"' not in page
    fake_workers.queued_run(state, fake_workers.dataset(state))
    assert "Measuring waits until no run trains" in client.post("/train/new/plan", data=FORM).text
    with state.database.write() as session:
        assert jobs.claim_next(session, IoJob, lease_seconds=60, queue="train") is None
    client.post("/api/v1/runs/1/cancel")
    work(state, result=MEASURED.stored())
    fake_workers.queued_run(state, fake_workers.dataset(state))
    plan = client.post("/train/new/plan", data=FORM).text
    shown = text_of(plan)
    assert "Peak memory 1.2 GB A step 0.25 s, 0.2 to 0.3" in shown
    assert "All steps 1 min 00 s to 1 min 30 s A sample 1.5 s Adapted layers 24 of 66" in shown
    assert "more memory than there is, so a run changes them. “Gradient" in shown
    assert "<time datetime=" in plan
    assert "Measure again" in plan
    fields = form_of(client.get("/train/new?preset=quick").text)
    assert "Peak memory" in client.post("/train/new/plan", data=fields | {"alpha": "3"}).text
    assert "Peak memory" not in client.post("/train/new/plan", data=fields | {"rank": "3"}).text


def test_a_dry_run_is_stopped_and_its_error_shown(client: TestClient, state: AppState) -> None:
    page = client.post("/train/new/measure", data=FORM)  # as a form without scripts sends it
    assert 'id="train-form"' in page.text
    key = re.search(r'name="stop_measuring" value="(\d+)"', page.text)[1]  # type: ignore[index]
    again = client.post("/train/new/measure", data=FORM | {"stop_measuring": key}).text
    assert "Measure again" in again
    assert client.get(f"{API}/{key}").json()["status"] == "canceled"
    client.post(f"{API}/{key}/cancel").raise_for_status()
    client.post("/train/new/measure", data=FORM)
    sentence = "This base has no UNet block down.3."
    work(state, JobStatus.FAILED, error=sentence, error_code="unsupported")
    assert sentence in client.post("/train/new/plan", data=FORM).text


def test_what_the_autoencoder_loses_is_shown_for_a_week(
    client: TestClient, state: AppState
) -> None:
    key = client.post(API, json={"dataset_id": 1, "preset": "quick"}).json()["id"]
    assert "not measured yet" in client.get(f"/train/dry-runs/{key}").text
    work(state, result=MEASURED.stored())
    assert f'href="/train/dry-runs/{key}"' in client.post("/train/new/plan", data=FORM).text
    page = client.get(f"/train/dry-runs/{key}").text
    assert re.findall(r'src="/media/(\w)\w+"', page) == ["a", "b"]
    assert "21.5 dB" in page
    with state.database.write() as session:
        job = session.get_one(IoJob, key)
        assert job.finished_at is not None
        job.finished_at -= JOB_FILES_KEPT
    assert "/media/a" not in client.get(f"/train/dry-runs/{key}").text
    assert "kept for a week" in client.get(f"/train/dry-runs/{key}").text
    assert client.get("/train/dry-runs/99").status_code == 404


def test_the_form_names_a_field_that_is_wrong(client: TestClient) -> None:
    answer = client.post("/train/new/measure", data=FORM | {"name": "x" * 130})
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text
    assert client.get("/api/v1/jobs?kind=dry_run").json() == []
