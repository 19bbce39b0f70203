"""The playground by the family of the base model: what is usual, what it has, what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from app.web.playground.grids.views import STACK_PATH
from tests import fake_workers
from tests.app.runs.test_pages import form_of as filled_form
from worker.core.families.variants import Variant

CHANGED_BASE = {"HX-Request": "true", "HX-Trigger-Name": "base"}
STORED = ("steps", "guidance", "sampler", "width", "height", "clip_skip")


@pytest.fixture
def bases(state: AppState) -> None:
    """Z-Image and its Turbo, in miniature, and an SDXL."""
    folder = state.settings.data_dir
    with state.database.write() as session:
        for slug, variant in (("z", Variant.BASE), ("turbo", Variant.TURBO), ("xl", None)):
            (folder / slug).mkdir()
            row = BaseModel(slug=slug, name=slug.title(), source=f"{folder}/{slug}")
            row.status, row.family = "ready", "zimage" if variant else "sdxl"
            row.resolution, row.fingerprint, row.variant = 64, "f" * 64, variant
            session.add(row)


def asked(client: TestClient, **changes: Any) -> dict[str, Any]:
    sent = {"prompt": "a (red:1.5) fox", "base_model": "z"} | changes
    answer = client.post("/api/v1/renders", json=sent).json()
    return dict(client.get(f"/api/v1/renders/{answer['id']}").json() if "id" in answer else answer)


@pytest.mark.usefixtures("bases")
def test_each_base_is_drawn_as_is_usual_with_it(client: TestClient) -> None:
    usual = {name: asked(client)[name] for name in STORED}
    assert usual == dict(zip(STORED, (28, 4.0, "euler", 64, 64, 1), strict=True))
    turbo = asked(client, base_model="turbo")
    assert (turbo["steps"], turbo["guidance"]) == (9, 1.0)
    named = asked(client, base_model="turbo", steps=12, sampler="dpmpp_2m", guidance=2)
    assert (named["steps"], named["sampler"], named["guidance"]) == (12, "dpmpp_2m", 2.0)


@pytest.mark.usefixtures("bases")
def test_what_the_family_has_not_is_refused_by_name(client: TestClient) -> None:
    def refused(**changes: Any) -> dict[str, str]:
        return {one["field"]: one["detail"] for one in asked(client, **changes)["errors"]}

    assert "no CLIP text encoder" in refused(clip_skip=2)["clip_skip"]
    assert "Euler or DPM++ 2M" in refused(sampler="ddim")["sampler"]
    assert "multiple of 16" in refused(width=40)["width"]
    assert "multiple of 16" in refused(width=30)["width"]


@pytest.mark.usefixtures("bases")
def test_an_adapter_of_another_family_is_refused_wherever_it_is_named(
    client: TestClient, state: AppState
) -> None:
    with state.database.write() as session:
        comic, ink = [
            publish(session, NewVersion(name, family, mark * 64, 10, 8, 8.0)).adapter_id
            for name, family, mark in (("Comic", "sdxl", "a"), ("Ink", "zimage", "b"))
        ]
    for key, base, reason in (
        (comic, "z", "“Comic” was made for SDXL and does not fit “Z”. It fits “Xl”."),
        (ink, "xl", "“Ink” was made for Z-Image and does not fit “Xl”. It fits “"),
    ):
        alone = asked(client, adapters=[{"id": key}], base_model=base)
        request = {"prompt": "a fox", "base_model": base}
        columns = {"kind": "adapter", "values": "comic" if key == comic else "ink"}
        grid = client.post("/api/v1/grids", json={"request": request, "columns": columns})
        merged = client.post(
            "/api/v1/adapters/merge",
            json={"name": "Both", "adapters": [{"id": key}, {"id": comic + ink - key}]},
        )
        assert reason in alone["detail"]
        assert reason in grid.json()["detail"]
        assert "Choose adapters for the same kind of base model" in merged.json()["detail"]
    with state.database.read() as session:
        assert not session.exec(select(Render)).all()


@pytest.mark.usefixtures("bases")
def test_an_empty_prompt_is_refused_with_its_field(client: TestClient) -> None:
    assert [one["field"] for one in asked(client, prompt="")["errors"]] == ["prompt"]


@pytest.mark.usefixtures("bases")
def test_the_page_offers_what_the_family_has(client: TestClient) -> None:
    starter = client.get("/play").text
    assert 'name="clip_skip"' in starter
    assert 'placeholder="20"' in starter
    assert "Size, CLIP skip and base model" in starter
    page = client.get("/play?base=turbo&prompt=a+(red:1.5)+fox").text
    assert 'name="clip_skip"' not in page
    assert "has no CLIP text encoder" in page
    assert "Size and base model" in page
    assert "Z-Image has no weights in prompts" in page
    assert 'placeholder="9"' in page
    samplers = page[page.index('id="sampler"') :].partition("</select>")[0]
    assert "DPM++ 2M" in samplers
    assert "DDIM" not in samplers


@pytest.mark.usefixtures("bases")
def test_another_base_model_changes_the_settings_on_the_page(client: TestClient) -> None:
    sent = {"prompt": "a fox", "base": "turbo", "sampler": "ddim", "steps": "", "keep_seed": "1"}
    headers = {"HX-Request": "true", "HX-Trigger-Name": "base"}
    changed = client.post("/play/stack", data=sent, headers=headers).text
    assert 'id="settings" hx-swap-oob' in changed
    assert 'placeholder="9"' in changed
    assert "1.5 to 2.5 on Turbo" in changed
    made = client.post("/play", data=sent, headers={"HX-Request": "true"})
    assert made.status_code == 200  # the sampler of the other base model counts as the usual one


def slider_of(page: str, place: int = 0) -> tuple[float, ...]:
    """The ends of the slider of a row, and its weight."""
    row = page[: page.index(f'id="weight-{place}"') + 200].rpartition('type="range"')[2]
    found = (re.search(rf'{name}="([^"]*)"', row) for name in ("min", "max", "value"))
    return tuple(float(one[1]) for one in found if one)


def change_base(client: TestClient, shown: str, base: str, **sent: str) -> str:
    fields = {"prompt": "a fox", "keep_seed": "1", "adapter-0": "chalk", "on-0": "1"} | sent
    fields |= {"base": base, "base-shown": shown}
    return client.post("/play/stack", data=fields, headers=CHANGED_BASE).text


@pytest.mark.usefixtures("bases")
def test_the_usual_weight_on_a_turbo_is_within_what_slider_strip_and_grid_offer(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    assert slider_of(client.get("/play?adapter=chalk&base=z").text) == (-1, 2, 1)
    assert slider_of(client.get("/play?adapter=chalk&base=turbo").text) == (-2, 4, 2)
    assert "0.25 to 1.25 by 0.25" in client.get("/grids/new?adapter=chalk&base=z").text
    grid = client.get("/grids/new?adapter=chalk&base=turbo").text
    assert "0.5 to 2.5 by 0.5" in grid
    for what, values in (("steps", "4, 9, 13"), ("guidance", "1, 2, 4"), ("sampler", "Euler, ")):
        sent = filled_form(grid, "new-grid") | {"rows-what": what, "fill": "rows"}
        axes = client.post(STACK_PATH, data=sent, headers={"HX-Request": "true"}).text
        assert values in axes[axes.index('id="rows-values"') :]
        assert "DDIM" not in axes


@pytest.mark.usefixtures("bases")
def test_numbers_that_are_the_usual_ones_follow_the_base_and_typed_ones_stay(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    usual = {"weight-0": "1", "steps": "28", "guidance": "4"}
    turbo = change_base(client, "z", "turbo", **usual)
    assert slider_of(turbo) == (-2, 4, 2)
    assert "As typed" not in turbo
    assert 'placeholder="9"' in turbo
    assert 'value="28"' not in turbo
    back = change_base(client, "turbo", "z", **{"weight-0": "2"})
    assert slider_of(back) == (-1, 2, 1)
    typed = {"weight-0": "0.8", "steps": "12", "guidance": "4"}
    kept = change_base(client, "z", "turbo", **typed)
    assert "As typed: weight 0.8 of Chalk and steps 12." in kept
    assert slider_of(kept) == (-2, 4, 0.8)
    assert "As typed" not in change_base(client, "z", "z", **typed)
    assert "As typed: steps 12." in change_base(client, "z", "starter", **typed)
    assert 'value="12"' in kept


@pytest.mark.usefixtures("bases")
def test_two_usual_weights_are_as_strong_on_a_turbo_as_elsewhere(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(state, name)

    def is_strong(base: str, weight: str) -> bool:
        sent = {"base": base}
        for row, slug in enumerate(("chalk", "night")):
            sent |= {f"adapter-{row}": slug, f"on-{row}": "1", f"weight-{row}": weight}
        return "Together they are strong" in client.post("/play/together", data=sent).text

    asked = (("z", "1"), ("z", "0.7"), ("turbo", "2"), ("turbo", "1"))
    assert [is_strong(*one) for one in asked] == [True, False, True, False]
