"""Lists of one's own things, or of those of others, on pages and by the API."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from app.registry.adapters.library import listing
from app.registry.adapters.library.listing import Filter
from app.registry.people.whose import only
from app.registry.tables.adapters import Adapter
from app.registry.tables.renders import Grid, Render, RenderImage
from tests.app.people.conftest import ClientOf, state_of, train_privately, working_as
from worker.core.families.family import BaseFamily

THINGS = ("datasets", "runs", "adapters", "renders", "grids")


@pytest.fixture
def both(people_app: FastAPI, client_of: ClientOf) -> FastAPI:
    """A dataset, run, adapter, render and grid of Ben and of Eva, the administrator."""
    for name in ("Ben", "Eva"):
        train_privately(people_app, name, f"Style of {name}")
        with working_as(people_app, name), state_of(people_app).database.write() as session:
            grid = Grid(title=f"Grid of {name}", request={}, axes=[])
            render = Render(
                base_model_id=1, prompt=f"drawn by {name}", seed=1, steps=1, guidance=1, width=8,
                height=8, cache_key=name, status="succeeded",
            )  # fmt: skip
            session.add_all([grid, render])
            session.flush()
            sha256 = name[0].lower().replace("b", "a") * 64
            session.add(RenderImage(render_id=render.key, index=0, sha256=sha256, seed=1))
    return people_app


def owners(answer: Any) -> set[str]:
    return {one["owner"] for one in answer.json()}


def test_programs_list_their_own_things_or_those_of_others(
    both: FastAPI, client_of: ClientOf
) -> None:
    eva, ben = client_of("Eva", "read"), client_of("Ben", "read")
    for path in (f"/api/v1/{thing}" for thing in THINGS):
        assert owners(eva.get(path)) == {"Ben", "Eva"}, path
        assert owners(eva.get(path, params={"whose": "mine"})) == {"Eva"}, path
        assert owners(eva.get(path, params={"whose": "shared"})) == {"Ben"}, path
        assert owners(ben.get(path, params={"whose": "mine"})) == {"Ben"}, path
        assert eva.get(path, params={"whose": "x"}).status_code == 422
        total = eva.get(path, params={"whose": "mine"}).headers.get("x-total-count", "1")
        assert total == "1", path


@pytest.mark.parametrize(
    ("path", "of_ben", "of_eva"),
    [
        ("/datasets", "Style of Ben", "Style of Eva"),
        ("/adapters", "Ben", "Eva"),
        ("/renders", "drawn by Ben", "drawn by Eva"),
        ("/grids", "Grid of Ben", "Grid of Eva"),
    ],
)
def test_pages_have_the_choice(
    both: FastAPI, client_of: ClientOf, path: str, of_ben: str, of_eva: str
) -> None:
    eva = client_of("Eva")
    for whose, shown in (("", {of_ben, of_eva}), ("mine", {of_eva}), ("shared", {of_ben})):
        page = eva.get(path, params={"whose": whose} if whose else {}).text
        main = page[page.index("<main") :]
        assert {one for one in (of_ben, of_eva) if one in main} == shown, (path, whose)
        assert f'href="{path}?whose=mine"' in main
        assert ("by <bdi>Ben</bdi>" in main) is (of_ben in shown), (path, whose)


@pytest.mark.parametrize("most", [0, 1_000], ids=["scanned", "sorted here"])
def test_numbers_of_adapters_are_those_of_the_list(
    both: FastAPI, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(listing, "MAX_SORTED_IN_PYTHON", most)
    with state_of(both).database.write() as session:
        for name in ("Ben", "Eva"):
            with working_as(both, name):
                session.add(
                    Adapter(slug=f"a-{name}", name=name, base_family=BaseFamily.SD1, starred=True)
                )
    with working_as(both, "Eva"), state_of(both).database.read() as session:
        everybodys = listing.list_adapters(session, Filter(starred=True))
        with only(session, Adapter, "mine"):
            mine = listing.list_adapters(session, Filter(starred=True))
    assert (everybodys.total, mine.total) == (2, 1)
    assert mine.families["sd1"] < everybodys.families["sd1"]
