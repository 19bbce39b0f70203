"""Quotas of people: the settings, the limits of one person, and what they refuse."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from sqlmodel import select

from app.registry.actor import Limits
from app.registry.config import Settings
from app.registry.db import utcnow
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import quotas
from app.registry.jobs import service as jobs
from app.registry.jobs.quotas import device_seconds, limits_of, waits_until
from app.registry.people import overview
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import Event
from app.registry.tables.people import DEVICE_DAYS, DeviceUse, User
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from app.registry.wording import aware
from tests import fake_workers
from tests.app.people.conftest import ClientOf, find_person, state_of, working_as
from tests.documented import check_answer
from tests.fake_workers import FakeTraining


def test_the_settings_are_limits_only_with_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_QUOTA_DISK", "50 GB")
    monkeypatch.setenv("BRUSHWORK_QUOTA_DEVICE_HOURS", "0.01")
    assert Settings(accounts=True).limits == Limits(50 * 10**9, device_minutes=1)
    assert Settings().limits is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quota_disk", "-1"),
        ("quota_disk", "many"),
        ("quota_disk", "99999999999 GB"),
        ("quota_device_hours", "-0.5"),
        ("quota_device_hours", "nan"),
        ("quota_device_hours", "inf"),
        ("quota_waiting", "1.5"),
        ("quota_waiting", "9" * 30),
    ],
)
def test_other_settings_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


def test_a_person_has_the_setting_or_limits_of_their_own(people_app: FastAPI) -> None:
    database = state_of(people_app).database
    database.limits = Limits(disk_bytes=1_000, waiting_jobs=20)
    with database.write() as session:
        ana = find_person(people_app, "Ana")
        assert limits_of(session, ana) == database.limits
        ana.disk_bytes, ana.device_minutes, ana.waiting_jobs = 0, 30, 5
        assert limits_of(session, ana) == Limits(device_minutes=30, waiting_jobs=5)
    database.limits = None
    with database.read() as session:
        assert limits_of(session, ana) == Limits()


def test_the_disk_is_full_and_the_queue_has_too_many_requests() -> None:
    for quota, status in ((Quota.DISK, 507), (Quota.WAITING, 429)):
        error = QuotaUsedUp(quota, "Delete something.", used=3, limit=2)
        assert (error.status, error.about) == (status, {"quota": quota, "used": 3, "limit": 2})


def give(app: FastAPI, name: str, **quotas: int) -> None:
    with state_of(app).database.write() as session:
        user = session.get_one(User, find_person(app, name).key)
        for column, value in quotas.items():
            setattr(user, column, value)


@pytest.fixture
def base(people_app: FastAPI) -> BaseModel:
    return fake_workers.measured_base(state_of(people_app))


@pytest.fixture
def dataset(people_app: FastAPI) -> Dataset:
    return fake_workers.dataset(state_of(people_app))


def test_as_many_runs_and_images_wait_as_the_quota_says(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel, dataset: Dataset
) -> None:
    ana, ben = client_of("Ana", "write"), client_of("Ben", "write")
    give(people_app, "Ana", waiting_jobs=2)
    run = {"dataset_id": dataset.key}
    assert ana.post("/api/v1/runs", json=run).status_code == 202
    first = ana.post("/api/v1/renders", json={"prompt": "a fox"})
    assert first.status_code == 202
    grid = {"request": {"prompt": "a fox"}, "columns": {"kind": "seed", "values": "1, 2, 3"}}
    for path, body in (
        ("runs", run),
        ("renders", {"prompt": "a cat"}),
        ("grids", grid),
        ("renders", {"prompt": "a cat", "draft_slot": "tab"}),
    ):
        answer = ana.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 429, (path, answer.text)
        found = answer.json()
        assert found["type"] == "urn:brushwork:problem:quota_used_up"
        assert (found["quota"], found["used"], found["limit"]) == ("waiting", 2, 2)
        assert "runs and images of one person that wait is 2" in found["detail"]
        assert ben.post(f"/api/v1/{path}", json=body).status_code == 202
    page = client_of("Ana").post("/train/new", data={"dataset_id": str(dataset.key)})
    assert page.status_code == 429
    assert "Cancel some" in page.text
    assert 'action="/train/new"' in page.text  # with what was typed
    assert len(ana.get("/api/v1/grids").json()) == 1  # Ben's: nothing is left of hers
    ana.post(f"/api/v1/renders/{first.json()['id']}/cancel")
    assert ana.post("/api/v1/renders", json={"prompt": "a cat"}).status_code == 202
    give(people_app, "Ana", waiting_jobs=1)  # below what waits: that stays
    assert ana.post("/api/v1/runs", json=run).status_code == 429
    give(people_app, "Ana", waiting_jobs=0)
    assert ana.post("/api/v1/runs", json=run).status_code == 202


def test_administrators_have_the_quota_too_and_a_sweep_counts_all_of_its_runs(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel
) -> None:
    dataset = fake_workers.dataset(state_of(people_app), pictures=8)
    state_of(people_app).database.limits = Limits(waiting_jobs=3)
    eva = client_of("Eva", "admin")
    sweep = {"run": {"dataset_id": dataset.key}, "axes": {"rank": [1, 2]}, "seeds": 2}
    answer = eva.post("/api/v1/sweeps", json=sweep)
    assert (answer.status_code, answer.json().get("used")) == (429, 0), answer.text
    assert eva.get("/api/v1/runs").json() == []
    state_of(people_app).database.limits = Limits(waiting_jobs=4)
    answer = eva.post("/api/v1/sweeps", json=sweep)
    assert answer.status_code == 202, answer.text
    address = f"/api/v1/sweeps/{answer.json()['id']}"
    assert eva.post(f"{address}/pause").status_code == 202
    assert eva.post("/api/v1/runs", json=sweep["run"]).status_code == 202
    assert eva.post(f"{address}/resume").status_code == 429
    assert eva.get(address).json()["status"] == "paused"


def test_a_training_that_waits_for_device_time_keeps_no_place_from_images(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel, dataset: Dataset
) -> None:
    ana, run = client_of("Ana", "write"), {"dataset_id": dataset.key}
    end(people_app, train(people_app, dataset, hours=2), JobStatus.FAILED)
    give(people_app, "Ana", waiting_jobs=1)
    assert ana.post("/api/v1/runs", json=run).status_code == 202
    assert ana.post("/api/v1/renders", json={"prompt": "a fox"}).status_code == 429
    give(people_app, "Ana", waiting_jobs=1, device_minutes=60)
    assert ana.post("/api/v1/runs", json=run).status_code == 429
    assert ana.post("/api/v1/renders", json={"prompt": "a fox"}).status_code == 202
    again = ana.post("/api/v1/renders", json={"prompt": "a fox"})
    assert (again.status_code, again.json()["used"]) == (429, 1)


def test_a_draft_takes_the_place_of_the_one_before(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel
) -> None:
    ana = client_of("Ana", "write")
    give(people_app, "Ana", waiting_jobs=1)
    for prompt in ("a fox", "a cat"):
        draft = {"prompt": prompt, "draft_slot": "tab"}
        assert ana.post("/api/v1/renders", json=draft).status_code == 202


def train(app: FastAPI, dataset: Dataset, *, hours: float) -> FakeTraining:
    """A run of Ana that a worker has trained for so long."""
    state = state_of(app)
    with working_as(app, "Ana"):
        fake_workers.queued_run(state, dataset)
    training = FakeTraining(state)
    with state.database.write() as session:
        of_run = (Event.subject == "run", Event.subject_id == training.run_id)
        for event in session.exec(select(Event).where(*of_run)).all():
            event.at = aware(event.at) - timedelta(hours=hours)
    return training


def seconds_of(app: FastAPI, name: str) -> list[float]:
    with state_of(app).database.read() as session:
        return [used for _, used in device_seconds(session, find_person(app, name).key)]


def end(app: FastAPI, training: FakeTraining, status: JobStatus) -> None:
    with state_of(app).database.write() as session:
        jobs.finish(session, Run, training.claim, status)


def test_the_time_of_an_attempt_is_its_owners_by_hour_and_survives_the_run(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel, dataset: Dataset
) -> None:
    training = train(people_app, dataset, hours=2.5)
    assert seconds_of(people_app, "Ana") == []
    end(people_app, training, JobStatus.FAILED)
    used = seconds_of(people_app, "Ana")
    assert sum(used) == pytest.approx(9_000, abs=60)
    assert max(used) == 3_600
    end(people_app, train(people_app, dataset, hours=1), JobStatus.PAUSED)
    assert sum(seconds_of(people_app, "Ana")) == pytest.approx(12_600, abs=60)
    assert seconds_of(people_app, "Ben") == []
    address = f"/api/v1/runs/{training.run_id}"
    ana = client_of("Ana", "write")
    assert ana.delete(ana.delete(address).json()["forever"]).status_code == 200
    assert sum(seconds_of(people_app, "Ana")) == pytest.approx(12_600, abs=60)


def test_attempts_of_lost_workers_and_people_without_accounts_are_not_charged(
    people_app: FastAPI, base: BaseModel, dataset: Dataset
) -> None:
    database = state_of(people_app).database
    lost = train(people_app, dataset, hours=1)
    with database.write() as session:
        row = session.get_one(Run, lost.run_id)
        assert jobs.release(
            session, Run, row.key, token=lost.claim.token, lease_was=row.lease_until
        )
    database.limits = None
    end(people_app, train(people_app, dataset, hours=1), JobStatus.SUCCEEDED)
    assert seconds_of(people_app, "Ana") == []


def test_trainings_wait_until_there_is_device_time_and_images_do_not(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel, dataset: Dataset
) -> None:
    state, ana = state_of(people_app), client_of("Ana", "write")
    end(people_app, train(people_app, dataset, hours=2), JobStatus.FAILED)
    with working_as(people_app, "Ana"):
        run = fake_workers.queued_run(state, dataset)
    ana.post("/api/v1/renders", json={"prompt": "a fox"})
    path, page = f"/api/v1/runs/{run.key}", client_of("Ana").get
    assert ana.get(path).json()["waits_for"] is None
    give(people_app, "Ana", device_minutes=60)
    late = Render.lets_runs_go_first
    with state.database.write() as session:
        assert not jobs.has_waiting(session, Run)
        assert jobs.claim_next(session, Run, lease_seconds=9) is None
        assert session.exec(select(Render.id).where(late(session))).all()  # it holds up nobody
        assert jobs.claim_next(session, Render, lease_seconds=9) is not None
        first, until = device_seconds(session, run.owner_id)[0], waits_until(session, run.owner_id)
    assert until is not None
    assert first[0] + DEVICE_DAYS <= until <= utcnow() + DEVICE_DAYS
    assert f"until {until:%Y-%m-%d %H:%M} UTC" in ana.get(path).json()["waits_for"]
    assert "Waiting for device time" in page(f"/runs/{run.key}").text
    assert "Waits for device time until" in page("/runs").text
    with state.database.write() as session:
        for row in session.exec(select(DeviceUse)):
            row.hour = aware(row.hour) - DEVICE_DAYS
    with state.database.write() as session:
        assert jobs.claim_next(session, Run, lease_seconds=9) is not None
        quotas.forget_device_use(session)
        assert session.exec(select(DeviceUse)).all()
        for row in session.exec(select(DeviceUse)):
            row.hour = aware(row.hour) - 2 * DEVICE_DAYS
        session.flush()
        quotas.forget_device_use(session)
        assert not session.exec(select(DeviceUse)).all()


def test_quotas_are_set_and_shown_by_api_pages_and_to_the_person(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel, dataset: Dataset
) -> None:
    eva, ana = client_of("Eva", "admin"), client_of("Ana", "read")
    assert "Your quotas" not in client_of("Ana").get("/account").text
    address = f"/api/v1/people/{find_person(people_app, 'Ana').key}"
    changed = eva.patch(address, json={"device_minutes": 90, "waiting_jobs": 3})
    check_answer(people_app, changed)
    end(people_app, train(people_app, dataset, hours=2), JobStatus.FAILED)
    with working_as(people_app, "Ana"):
        fake_workers.queued_run(state_of(people_app), dataset)
    me = ana.get("/api/v1/me")
    check_answer(people_app, me)
    use = {one["quota"]: (one["used"], one["limit"]) for one in me.json()["use"]}
    assert use | {"waiting": (1, 3), "device": (120, 90)} == use
    assert (me.json()["device_minutes"], me.json()["disk_bytes"]) == (90, None)
    page = client_of("Ana").get("/account").text
    assert "2 h of 1.5 h" in page
    assert "Trainings wait until" in page
    assert "1 of 3 waiting" in client_of("Eva").get("/people").text
    for body in ({"waiting_jobs": -1}, {"disk_bytes": 2**70}, {"device_minutes": "many"}):
        assert eva.patch(address, json=body).status_code == 422
    assert client_of("Ana", "write").patch(address, json={"waiting_jobs": 9}).status_code == 403
    assert eva.patch(address, json={"waiting_jobs": None}).json()["waiting_jobs"] is None
    log = eva.get("/people/log").text
    assert "device_minutes 90" in log


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("disk_bytes", "50 GB", 50 * 10**9),
        ("disk_bytes", "0", 0),
        ("disk_bytes", " ", None),
        ("device_minutes", "0.02", 1),
        ("device_minutes", "0.001", 1),
        ("device_minutes", "0.0166666666667", 1),
        ("device_minutes", "20", 1_200),
        ("waiting_jobs", "7", 7),
    ],
)
def test_what_is_typed_is_read_and_shown_again(column: str, text: str, value: int | None) -> None:
    assert overview.read_quota(column, text) == value
    assert overview.read_quota(column, overview.quota_text(column, value)) == value


def test_hours_have_two_decimals_at_most() -> None:
    for minutes in range(1, 500):
        shown = overview.quota_text("device_minutes", minutes)
        assert len(shown.partition(".")[2]) <= 2
        assert overview.read_quota("device_minutes", shown) == minutes
    used = [overview.QuotaUse(Quota.DEVICE, minutes, 120).text for minutes in (1, 90)]
    assert used == ["1 min of 2 h", "1.5 h of 2 h"]


def test_other_texts_are_refused_where_they_are_typed(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    eva, ana = client_of("Eva"), find_person(people_app, "Ana").key
    wrong = {"disk_bytes": "-1", "device_minutes": "nan", "waiting_jobs": "1.5"}
    for column, text in wrong.items():
        for typed in (text, "many", "9" * 40, "inf"):
            answer = eva.post(f"/people/{ana}", data={column: typed})
            assert answer.status_code == 422
            assert overview.ASKED[column] in answer.text
            wrong_field = f'id="{column}-{ana}" name="{column}" aria-describedby='
            assert wrong_field in answer.text  # the reason beside it
            assert answer.text.count('aria-invalid="true"') == 1
            assert f'value="{typed}"' in answer.text
    form = {"disk_bytes": "1.5 GB", "device_minutes": "", "waiting_jobs": "0"}
    assert eva.post(f"/people/{ana}", data=form).status_code == 303
    user = find_person(people_app, "Ana")
    assert (user.disk_bytes, user.device_minutes, user.waiting_jobs) == (1_500_000_000, None, 0)
