"""Evaluations of the checkpoints of a run, on its pages and over REST."""

from __future__ import annotations

import html
from contextlib import suppress

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry import automatic_evaluations
from app.registry.errors import Conflict
from app.registry.job_kinds.kinds import EvaluatedStep, EvaluationResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.renders import drafts
from app.registry.runs import progress
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests import fake_workers

API = "/api/v1"
PAGE = "/runs/1/evaluation"
IMAGES = 3 * (6 + 3 + 6)


@pytest.fixture
def run(state: AppState) -> int:
    """A run that ended, with checkpoints at steps 20 and 40."""
    training = fake_workers.run_with_checkpoints(state, fake_workers.dataset(state))
    training.finish()
    return training.run_id


def measured(step: int, style: float, **values: object) -> EvaluatedStep:
    usual = {"low": style - 0.1, "high": style + 0.1, "adherence": 0.9, "variety": 1.0}
    return EvaluatedStep(**{"step": step, "style": style, "copy_ratio": 0.8} | usual | values)


def measure(state: AppState, result: EvaluationResult) -> None:
    """End the job that measures, as an io worker would."""
    with state.database.write() as session:
        while claimed := jobs.claim_next(session, IoJob, lease_seconds=60):
            job, claim = claimed
            values = {"result": result.stored()} if job.kind == "evaluate_run" else {}
            jobs.finish(session, IoJob, claim, JobStatus.SUCCEEDED, **values)


def text(client: TestClient, address: str = PAGE) -> str:
    return html.unescape(client.get(address, headers={"accept": "text/html"}).text)


def test_checkpoints_are_compared_and_one_is_recommended(
    client: TestClient, state: AppState, run: int
) -> None:
    assert PAGE in text(client, f"/runs/{run}")
    assert "held no images out" in text(client)
    started = client.post(PAGE, data={"subjects": "6", "checkpoints": "8"}, follow_redirects=False)
    assert (started.status_code, started.headers["location"]) == (303, PAGE)
    assert f"0 of {IMAGES} images are drawn" in text(client)
    with state.database.write() as session:  # nothing is measured before all images are there
        claimed = jobs.claim_next(session, IoJob, lease_seconds=60)
        assert claimed is None or claimed[0].kind != "evaluate_run"
    fake_workers.draw(state)
    assert "measuring waits for a worker" in text(client)
    result = EvaluationResult(
        steps=(
            measured(20, 0.66, inside=0.81, closest=((0, 0.5), (2, 0.6))),
            measured(40, 0.68, is_equal=True, adherence=None, copy_ratio=None),
        ),
        recommended=20,
        reason="step 20 and step 40 look equally close; kept: step 20, the least trained.",
        deciding=(4, 0, 1, 2),
        notes=("Copying is not measured: no images were held out.",),
    )
    measure(state, result)
    with state.database.write() as session:
        for key, values in (("held_out", [0.2, 0.15]), ("fixed_loss", [0.4, 0.2])):
            for step, value in zip((0, 20), values, strict=True):  # 0.75 and 0.5 of the base's
                progress.append_points(session, run, key, step, [value])
    page = text(client)
    assert '<td class="number">1.50</td>' in page
    assert "Keep <span" in page
    assert result.reason in page
    assert "0.66, between 0.56 and 0.76; your own captions 0.81" in page
    assert '0.68, between 0.58 and 0.78"' in page
    assert "Looks equally close" in page
    assert "Copying is not measured" in page
    assert page.count("Drawn for its caption") == 2
    assert f'action="/runs/{run}/checkpoints/20/use"' in page
    shown = text(client, f"/runs/{run}")
    assert f'<a href="{PAGE}">step 20</a>. {result.reason}' in shown
    assert "recommended</a>" in shown

    client.post(f"/runs/{run}/checkpoints/20/use")
    assert "in use</a>" in text(client)


def test_an_evaluation_is_ordered_watched_and_canceled_over_rest(
    client: TestClient, state: AppState, run: int
) -> None:
    answer = client.post(f"{API}/runs/{run}/evaluations", json={"subjects": 6})
    assert answer.status_code == 202
    order = answer.json()
    address = answer.headers["location"]
    assert address == f"{API}/evaluations/{order['id']}"
    assert (order["run_id"], order["status"], order["images"]) == (run, "queued", IMAGES)
    grid = client.get(f"{API}/grids/{order['grid_id']}").json()
    assert grid["cells"] == IMAGES
    columns = {name: grid["columns"][name] for name in ("kind", "values")}
    asked = {"request": {"prompt": "a fox"}, "columns": columns}
    estimate = client.post(f"{API}/grids/estimate", json=asked)
    assert estimate.json()["cells"] == 3  # the columns can be asked for again
    listed = client.get(f"{API}/jobs?kind=evaluate_run").json()
    assert [job["url"] for job in listed] == [address]
    for _ in range(2):
        canceled = client.post(f"{address}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (202, "canceled")
    assert "Canceled" in text(client)
    again = client.post(f"{address}/repeat").json()
    assert again["id"] > order["id"]
    assert client.post(f"{API}/evaluations/{again['id']}/repeat").status_code == 409
    fake_workers.draw(state)
    result = EvaluationResult(
        steps=(measured(20, 0.6, left_out="ruined: it draws the same"), measured(40, 0.7)),
        recommended=40,
        reason="step 40 is the only one to choose.",
    )
    measure(state, result)
    ended = client.get(f"{API}/evaluations/{again['id']}").json()
    assert (ended["status"], ended["progress"], ended["recommended"]) == ("succeeded", 1.0, 40)
    assert ended["checkpoints"][0]["left_out"] == "ruined: it draws the same"
    assert ended["checkpoints"][1]["style_low"] == pytest.approx(0.6)
    assert client.post(f"{API}/evaluations/{again['id']}/cancel").status_code == 409
    found = client.get(f"{API}/evaluations?run_id={run}&limit=1")
    assert [one["id"] for one in found.json()] == [again["id"]]
    assert 'rel="next"' in found.headers["link"]
    assert client.get(f"{API}/evaluations?run_id=99").json() == []
    assert client.get(f"{API}/evaluations/99").status_code == 404


def test_what_cannot_be_compared_is_explained(
    client: TestClient, state: AppState, run: int
) -> None:
    for field, value, sentence in (
        ("subjects", "5", "Use 6 to 40 subjects"),
        ("checkpoints", "0", "Compare 1 to 8 checkpoints"),
        ("subjects", "many", "whole number"),
    ):
        refused = client.post(PAGE, data={field: value}, headers={"accept": "text/html"})
        assert refused.status_code == 422
        assert sentence in html.unescape(refused.text)
    waiting = fake_workers.queued_run(state, fake_workers.dataset(state, "Ink"))
    assert "no checkpoint that can draw images" in text(client, f"/runs/{waiting.key}/evaluation")
    refused = client.post(f"{API}/runs/{waiting.key}/evaluations", json={})
    assert refused.status_code == 409
    assert client.post(f"{API}/runs/{run}/evaluations", json={"subjects": 41}).status_code == 422
    assert client.get("/runs/99/evaluation").status_code == 404


def test_a_style_that_is_not_measured_says_why(
    client: TestClient, state: AppState, run: int
) -> None:
    client.post(f"{API}/runs/{run}/evaluations", json={"subjects": 6})
    fake_workers.draw(state)
    measure(state, EvaluationResult(notes=("The style is not measured: 3 images.",)))
    page = text(client)
    assert "Not measured" in page
    assert "The style is not measured: 3 images." in page
    assert "Recommended" not in text(client, f"/runs/{run}")


def order(state: AppState, run_id: int) -> IoJob:
    """Order what the run asked for, as the worker does that completes it."""
    with state.database.write() as session:
        run = session.get_one(Run, run_id)
        run.training_seconds = 400.0
        run.config = run.config | {"evaluate": True}
        progress.order_evaluation(session, run)
        (job,) = session.exec(select(IoJob).where(IoJob.kind == "evaluate_run"))
        return job


def test_a_run_page_tells_of_the_evaluation_that_the_run_asked_for(
    client: TestClient, state: AppState, run: int
) -> None:
    job = order(state, run)
    begins = "begins once no run trains or waits"
    assert f"Evaluating</a> {begins}" in text(client, f"/runs/{run}")
    assert "It begins once no run trains or waits." in text(client)
    shown = client.get(f"{API}/evaluations/{job.key}").json()
    assert (shown["grid_id"], shown["images"], shown["status"]) == (None, 0, "queued")
    with state.database.read() as session:
        plan = automatic_evaluations.plan_at_end(session, run)
    with state.database.write() as session:
        claimed = jobs.claim_next(session, IoJob, lease_seconds=60)
        while claimed and claimed[0].key != job.key:
            jobs.finish(session, IoJob, claimed[1], JobStatus.SUCCEEDED)
            claimed = jobs.claim_next(session, IoJob, lease_seconds=60)
        assert claimed is not None
        automatic_evaluations.start_planned(session, claimed[1], plan, state.store)
    assert f"Evaluating</a>: 0 of {plan.draft.images} images." in text(client, f"/runs/{run}")
    fake_workers.draw(state)
    measure(state, EvaluationResult(steps=(measured(20, 0.6),), recommended=20, reason="Best."))
    page = text(client, f"/runs/{run}")
    assert "Evaluating" not in page
    assert f'<a href="{PAGE}">step 20</a>. Best.' in page


def test_a_quick_form_that_does_not_fit_leaves_the_offer_and_says_why(
    client: TestClient, state: AppState, run: int
) -> None:
    job = order(state, run)
    sentence = "Not compared by itself: even 42 images would take 3 min."
    measure(state, EvaluationResult(notes=(sentence,)))
    assert sentence in text(client, f"/runs/{run}")
    page = text(client)
    assert sentence in page
    assert "Compare</button>" in page
    client.post(PAGE, data={"subjects": "6", "checkpoints": "2"})
    assert sentence not in text(client, f"/runs/{run}")
    assert client.post(f"{API}/evaluations/{job.key}/cancel").status_code == 409


def test_an_order_that_failed_or_was_canceled_leaves_the_offer_and_can_be_repeated(
    client: TestClient, state: AppState, run: int
) -> None:
    order(state, run)
    with state.database.write() as session:
        (waiting,) = session.exec(select(IoJob).where(IoJob.kind == "evaluate_run"))
        waiting.status, waiting.error = JobStatus.FAILED, "The base model is not ready."
    for address in (f"/runs/{run}", PAGE):
        assert "The base model is not ready." in text(client, address)
    job = client.post(f"{API}/evaluations/{waiting.key}/repeat").json()
    client.post(f"/evaluations/{job['id']}/cancel")
    assert "Evaluating" not in text(client, f"/runs/{run}")
    assert "Compare</button>" in text(client)
    again = client.post(f"{API}/evaluations/{job['id']}/repeat").json()
    assert (again["status"], again["grid_id"]) == ("queued", None)


@pytest.mark.parametrize(
    ("seconds", "subjects"), [(0.1, 24), (1.5, 16), (2.0, 12), (3.0, 6), (9.0, None)]
)
def test_a_quick_form_takes_a_quarter_of_the_training_at_most(
    state: AppState,
    run: int,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    subjects: int | None,
) -> None:
    order(state, run)
    monkeypatch.setattr(drafts, "expected_seconds", lambda *_, **__: seconds)
    with state.database.read() as session:
        if subjects is None:
            with pytest.raises(Conflict, match="more than a quarter of the training"):
                automatic_evaluations.plan_at_end(session, run)
            return
        draft = automatic_evaluations.plan_at_end(session, run).draft
    assert len(draft.args.subjects) == subjects
    assert seconds * draft.images * 1.1 <= 100


@pytest.mark.parametrize(("speed", "fits"), [(4.0, True), (0.1, False)])
def test_without_a_measured_image_the_run_s_own_steps_tell_the_time(
    state: AppState, run: int, speed: float, fits: bool
) -> None:
    order(state, run)
    with state.database.write() as session:
        session.get_one(Run, run).steps_per_second = speed
    with state.database.read() as session:
        plan = None
        with suppress(Conflict):
            plan = automatic_evaluations.plan_at_end(session, run)
    assert (plan is not None) == fits
