"""The bar says that a private training of somebody else runs, and nothing more of it."""

from __future__ import annotations

from fastapi import FastAPI
from sqlmodel import select

from app.registry.actor import Visibility
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.people.conftest import ClientOf, state_of, working_as


def test_the_bar_counts_a_private_training_without_its_name(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana", Visibility.PRIVATE):
        fake_workers.queued_run(state, fake_workers.dataset(state, "Secret"))
    assert "private" not in client_of("Ben").get("/running").text
    with state.database.write() as session:
        session.exec(select(Run)).one().status = "running"
    shown = client_of("Ben").get("/running").text
    assert "1 private training" in shown
    assert "Secret" not in shown
    assert "/runs/1" not in shown
    assert "private" not in client_of("Ana").get("/running").text
