"""Slugs are unique among the things of all, and tell nothing of private ones."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from sqlmodel import select

from app.registry.actor import Visibility
from app.registry.slugs import insert_named
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.renders import Recipe
from tests import fake_workers
from tests.app.people.conftest import state_of, train_privately, working_as


def test_the_slug_of_a_private_thing_is_not_guessed_and_not_told(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana", Visibility.PRIVATE):
        secret = fake_workers.dataset(state, "Chalk")
    with working_as(people_app, "Ben"):
        assert fake_workers.dataset(state, "Chalk").slug == "chalk"
    assert secret.slug.startswith("chalk-")
    assert len(secret.slug) == len("chalk-") + 8


def test_a_new_thing_that_is_private_for_what_it_is_made_from_has_no_readable_slug(
    people_app: FastAPI,
) -> None:
    adapter = train_privately(people_app, "Ana")
    with working_as(people_app, "Ana"):
        secret = recipe(people_app, adapters=[{"adapter_id": adapter.key}])
    assert (secret.visibility, len(secret.slug)) == ("private", len("chalk-") + 8)
    with working_as(people_app, "Ben"):
        assert recipe(people_app).slug == "chalk"


def recipe(app: FastAPI, **values: Any) -> Recipe:
    settings = {"prompt": "p", "steps": 1, "guidance": 1, "width": 8, "height": 8} | values
    with state_of(app).database.write() as session:
        return insert_named(
            session, Recipe, "Chalk", fallback="recipe", base_model="b", cache_key="k", **settings
        )


def test_a_visible_thing_that_gets_a_part_from_a_private_one_keeps_its_slug(
    people_app: FastAPI,
) -> None:
    train_privately(people_app, "Ana")
    with working_as(people_app, "Ana"), state_of(people_app).database.write() as session:
        made_from = session.exec(select(AdapterVersion)).first()
        assert made_from is not None
        row = insert_named(session, Adapter, "Lino", fallback="x", base_family="sd1")
        facts = made_from.model_dump(exclude={"id"}) | {"adapter_id": row.key}
        session.add(AdapterVersion(**facts))
        session.flush()
        assert (row.visibility, row.slug) == ("private", "lino")


def test_a_thing_that_was_hidden_later_keeps_its_slug(people_app: FastAPI) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana"):
        hidden = fake_workers.dataset(state, "Chalk")
    with state.database.write() as session:
        session.merge(hidden).visibility = Visibility.PRIVATE.value
    with working_as(people_app, "Ben"):
        assert fake_workers.dataset(state, "Chalk").slug == "chalk-2"
