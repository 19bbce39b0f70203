"""Quotas of people: the settings, the limits of one person, and what they refuse."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from app.registry.actor import Limits
from app.registry.config import Settings
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.jobs.quotas import limits_of
from app.registry.tables.base_models import BaseModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.people import User
from tests import fake_workers
from tests.app.people.conftest import ClientOf, find_person, state_of


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
        assert "At most 2 runs and images" in found["detail"]
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


def test_a_draft_takes_the_place_of_the_one_before(
    people_app: FastAPI, client_of: ClientOf, base: BaseModel
) -> None:
    ana = client_of("Ana", "write")
    give(people_app, "Ana", waiting_jobs=1)
    for prompt in ("a fox", "a cat"):
        draft = {"prompt": prompt, "draft_slot": "tab"}
        assert ana.post("/api/v1/renders", json=draft).status_code == 202
