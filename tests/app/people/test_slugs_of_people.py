"""Slugs are unique among the things of all, and tell nothing of private ones."""

from __future__ import annotations

from fastapi import FastAPI

from app.registry.actor import Visibility
from tests import fake_workers
from tests.app.people.conftest import state_of, working_as


def test_the_slug_of_a_private_thing_is_not_guessed_and_not_told(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana", Visibility.PRIVATE):
        secret = fake_workers.dataset(state, "Chalk")
    with working_as(people_app, "Ben"):
        assert fake_workers.dataset(state, "Chalk").slug == "chalk"
    assert secret.slug.startswith("chalk-")
    assert len(secret.slug) == len("chalk-") + 8


def test_a_thing_that_was_hidden_later_keeps_its_slug(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana"):
        hidden = fake_workers.dataset(state, "Chalk")
    with state.database.write() as session:
        session.merge(hidden).visibility = Visibility.PRIVATE.value
    with working_as(people_app, "Ben"):
        assert fake_workers.dataset(state, "Chalk").slug == "chalk-2"
