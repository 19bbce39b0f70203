"""Quotas of people: the settings, the limits of one person, and what they refuse."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from app.registry.actor import Limits
from app.registry.config import Settings
from app.registry.errors import Quota, QuotaUsedUp
from app.registry.jobs.quotas import limits_of
from tests.app.people.conftest import find_person, state_of


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
