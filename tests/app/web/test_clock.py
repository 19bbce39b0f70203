"""Times on pages: in the browser's zone once it named it, and the same in every place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.state import AppState
from app.registry.tables.jobs import Event
from app.registry.tables.runs import Run
from app.web.clock import find_zone
from tests import fake_workers

QUEUED = datetime(2025, 3, 5, 22, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["", "Nowhere/City", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 300, "a;b"]
)
def test_a_zone_that_is_none_is_ignored(name: str) -> None:
    assert find_zone(name) is None


def test_every_time_of_a_run_is_told_by_the_clock_of_the_browser(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.cancel()
    with state.database.write() as session:
        row = session.get_one(Run, run.key)
        row.created_at, row.started_at = QUEUED, QUEUED + timedelta(minutes=2)
        row.finished_at = QUEUED + timedelta(days=1)
        session.add(row)
        event = session.exec(
            select(Event).where(Event.subject == "run", Event.kind == "queued")
        ).one()
        event.at = QUEUED
        session.add(event)
    address = f"/runs/{run.key}"
    client.cookies.set("zone", "Asia/Tokyo")
    page = client.get(address).text
    shown = (
        '<time datetime="2025-03-05T22:59:00+00:00" title="6 March 2025, 07:59:00 JST">'
        "6 Mar 2025, 07:59</time>"
    )
    assert page.count(shown) == 2  # below the title and in the history
    assert "6 Mar 2025, 08:01</time> started" in page
    assert "7 Mar 2025, 07:59</time> canceled" in page
    assert "7 Mar 2025, 07:59</time> canceled" in client.get("/runs").text
    assert client.get(f"/api/v1{address}").json()["created_at"] == "2025-03-05T22:59:00Z"
    client.cookies.set("zone", "nowhere")
    named = QUEUED.astimezone()
    assert f"{named.day} Mar 2025, {named:%H:%M %Z}</time> queued" in client.get(address).text
