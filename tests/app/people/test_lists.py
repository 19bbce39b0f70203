"""Lists, searches and their numbers have what a person may see, and nothing else."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from app.registry.actor import Principal, Role, Visibility, acting_as
from app.registry.adapters.library import listing
from app.registry.adapters.library.listing import Filter
from app.registry.tables.adapters import Adapter
from worker.core.families.family import BaseFamily

from .conftest import state_of

ANA = Principal(2, Role.MEMBER, "Ana", Visibility.PRIVATE)
BEN = Principal(3, Role.MEMBER, "Ben")
FAMILY = next(iter(BaseFamily))


@pytest.fixture
def adapters(people_app: FastAPI) -> FastAPI:
    """Three private adapters of Ana, and one of Ben that all see."""
    names = {ANA: ("Chalk 1", "Chalk 2", "Chalk 3"), BEN: ("Chalk 4",)}
    for owner, of_owner in names.items():
        with acting_as("test", owner), state_of(people_app).database.write() as session:
            for name in of_owner:
                slug = name.lower().replace(" ", "-")
                session.add(Adapter(slug=slug, name=name, base_family=FAMILY, starred=True))
    return people_app


@pytest.mark.parametrize("most", [2, 1_000], ids=["scanned", "sorted here"])
@pytest.mark.parametrize(
    "wanted",
    [Filter(), Filter(q="chalk"), Filter(starred=True), Filter(q="chalk", base=FAMILY)],
    ids=["all", "words", "stars", "words of a family"],
)
def test_a_list_of_adapters_counts_what_is_seen(
    adapters: FastAPI, monkeypatch: pytest.MonkeyPatch, wanted: Filter, most: int
) -> None:
    monkeypatch.setattr(listing, "MAX_SORTED_IN_PYTHON", most)
    numbers = {}
    for person in (ANA, BEN):
        with acting_as("test", person), state_of(adapters).database.read() as session:
            page = listing.list_adapters(session, wanted)
        numbers[person.name] = (page.total, page.more)
    is_cut = most == 2 and bool(wanted.q)
    assert numbers["Ben"] == (1, False)
    assert numbers["Ana"] == ((2, True) if is_cut else (4, False))
