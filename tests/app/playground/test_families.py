"""The playground by the family of the base model: what is usual, what it has, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.registry.state import AppState
from app.registry.tables.base_models import BaseModel
from worker.core.families.variants import Variant

STORED = ("steps", "guidance", "sampler", "width", "height", "clip_skip")


@pytest.fixture
def bases(state: AppState) -> None:
    """Z-Image and its Turbo, in miniature."""
    folder = state.settings.data_dir
    with state.database.write() as session:
        for slug, variant in (("z", Variant.BASE), ("turbo", Variant.TURBO)):
            (folder / slug).mkdir()
            row = BaseModel(slug=slug, name=slug.title(), source=f"{folder}/{slug}")
            row.status, row.family, row.resolution = "ready", "zimage", 64
            row.fingerprint, row.variant = "f" * 64, variant
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
def test_the_page_offers_what_the_family_has(client: TestClient) -> None:
    starter = client.get("/play").text
    assert 'name="clip_skip"' in starter
    assert 'placeholder="20"' in starter
    page = client.get("/play?base=turbo&prompt=a+(red:1.5)+fox").text
    assert 'name="clip_skip"' not in page
    assert "has no CLIP text encoder" in page
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
