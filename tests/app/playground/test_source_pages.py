"""The playground with an image to start from: chosen, shown, used again, removed."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Image
from tests import fake_workers
from tests.app.playground.test_live import redraw
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of
from tests.app.playground.test_recall import OURS, png, recall
from tests.images import make_png


def choose(
    client: TestClient, content: bytes = b"", *, form: dict[str, str] | None = None, **sent: Any
) -> Any:
    """The answer to an image that is chosen in the panel of a form."""
    files = {"source-file": ("fox.png", content, "image/png")}
    return client.post("/play/source", data=form or {}, files=files, **sent)


def source_of(client: TestClient) -> str:
    answer = choose(client, make_png(1, (200, 100)), headers=FRAGMENT)
    return parse_qs(urlsplit(answer.headers["hx-replace-url"]).query)["source"][0]


def test_a_chosen_image_is_shown_and_all_else_stays_as_typed(client: TestClient) -> None:
    form = filled(client, "/play?prompt=a+castle&seed=7&steps=many")
    answer = choose(client, make_png(1, (200, 100)), form=form, headers=FRAGMENT)
    address = answer.headers["hx-replace-url"]
    assert "200 × 100" in answer.text
    assert "Starts from the image that you chose." in answer.text
    again = filled(client, address)
    assert {name: again[name] for name in ("prompt", "seed", "steps", "strength")} == {
        "prompt": "a castle",
        "seed": "7",
        "steps": "many",
        "strength": "0.6",
    }
    plain = choose(client, make_png(1, (200, 100)), form=form, follow_redirects=False)
    assert (plain.status_code, plain.headers["location"]) == (303, address)
    removed = client.post("/play/source", data=again | {"drop-source": "1"}, headers=FRAGMENT)
    assert 'name="source"' not in removed.text
    assert "source=" not in removed.headers["hx-replace-url"]


def test_a_file_that_is_no_image_says_why_and_keeps_the_one_before(client: TestClient) -> None:
    source = source_of(client)
    for content, reason in ((b"no image", "This is not an image"), (b"", "The file is empty")):
        answer = choose(client, content, form={"source": source}, headers=FRAGMENT)
        assert reason in answer.text
        assert f'name="source" value="{source}"' in answer.text
        plain = choose(client, content, form={"prompt": "half a thought"})
        assert (plain.status_code, reason in plain.text) == (422, True)
        assert "half a thought" in plain.text
    nothing = client.post("/play/source", data={"source": source}, headers=FRAGMENT)
    assert "Choose an image file first." in nothing.text
    wide = choose(client, make_png(), form={"prompt": "é" * 20_000}, follow_redirects=False)
    assert (wide.status_code, "é" * 20_000 in wide.text) == (200, True)  # too long for an address
    long = client.post("/play/source", data={"source": "x" * 900_000}, headers=FRAGMENT)
    assert long.status_code == 422


def test_the_original_stands_beside_the_images_with_and_without_adapters(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    source = source_of(client)
    address = f"/play?adapter=chalk:0.8&prompt=a+castle&seed=7&source={source}&strength=0,4"
    client.post("/play", data=filled(client, address))
    twin, render = renders_of(state)
    assert {(row.source_sha256, row.strength) for row in (twin, render)} == {(source, 0.4)}
    waiting = client.get(f"/renders/{render.key}").text
    assert waiting.count(f'src="/media/{source}"') == 1
    fake_workers.draw(state)
    page = client.get(f"/renders/{render.key}").text
    assert page.count("data-comparison>") == 3  # each pair of the three
    assert 'data-a="Without your style" data-b="Original"' in page
    assert "strength 0.4</dd>" in page
    again = page.partition('class="button main" href="')[2].partition('"')[0].replace("&amp;", "&")
    found = parse_qs(urlsplit(again).query)
    assert (found["source"], found["strength"]) == ([source], ["0.4"])
    assert client.get(again).text.count("data-comparison>") == 3  # at once, from the cache
    client.post("/play", data=filled(client, f"{again}&count=3"))
    fake_workers.draw(state)
    several = client.get(f"/renders/{renders_of(state)[-1].key}").text
    assert several.count(f'src="/media/{source}"') == 1
    assert "data-comparison>" not in several
    client.post("/play", data=filled(client, f"/play?prompt=a+fox&source={source}"))
    fake_workers.draw(state)
    alone = client.get(f"/renders/{renders_of(state)[-1].key}").text
    assert alone.count("data-comparison>") == 1  # without adapters: with the original alone


def test_a_redraw_and_a_strip_start_from_the_image(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    source = source_of(client)
    assert redraw(client, source=source, strength="0.3").status_code == 200
    form = filled(client, f"/play?adapter=chalk:1&prompt=a+fox&seed=7&source={source}")
    client.post("/play/strip", data=form | {"weights": "0"})
    rows = renders_of(state)
    assert {row.source_sha256 for row in rows} == {source}
    assert [row.strength for row in rows[-2:]] == [0.3, 0.6]


def test_a_link_starts_from_a_render_or_an_image_of_a_dataset(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    with state.database.write() as session:
        base = BaseModel(slug="sd15", name="SD 1.5", source=str(state.settings.data_dir))
        base.status, base.family = "ready", "sd1"
        session.add(base)
    client.post("/play", data=filled(client, "/play?prompt=a+castle&base=sd15"))
    fake_workers.draw(state)
    gallery, own = client.get("/renders").text, client.get("/renders/1").text
    tiles = client.get(f"/datasets/{dataset.slug}").text
    link = 'href="/play?prompt=a+castle&amp;source=render%3A1"'
    assert link in gallery
    assert link in own
    form = filled(client, "/play?source=render:1&prompt=a%20castle")
    assert (form["base"], form["source"]) == ("sd15", "render:1")
    assert "/play/restyle/2" in tiles
    page = client.get("/play?source=dataset:2").text
    assert "Starts from 1.png of Chalk" in page
    client.post("/play", data=filled(client, "/play?source=dataset:2&prompt=a+fox"))
    assert renders_of(state)[-1].source_sha256 is not None


def test_a_result_is_restyled_with_its_adapters_that_are_still_here(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    night = fake_workers.adapter(state, "Night")
    address = "/play?adapter=chalk:0.8&adapter=night:0.4&prompt=a+castle&seed=7"
    client.post("/play", data=filled(client, address))
    fake_workers.draw(state)
    with_both = "/play?adapter=chalk%401%3A0.8&amp;adapter=night%401%3A0.4&amp;prompt=a+castle"
    with_one = "/play?adapter=chalk%401%3A0.8&amp;prompt=a+castle"
    for page in ("/renders", "/renders/2"):
        assert f'"{with_both}&amp;source=render%3A2"' in client.get(page).text
    client.post(f"/adapters/{night.slug}/delete")
    for page in ("/renders", "/renders/2"):
        assert f'"{with_one}&amp;source=render%3A2"' in client.get(page).text


def restyled(client: TestClient, image: int) -> dict[str, str]:
    form = filled(client, f"/play/restyle/{image}")
    return {name: form.get(name, "") for name in ("prompt", "source", "adapter-0", "weight-0")}


def test_an_image_of_a_dataset_is_restyled_with_the_last_used_adapter_and_its_trigger_word(
    client: TestClient, state: AppState
) -> None:
    chalk, night = fake_workers.adapter(state), fake_workers.adapter(state, "Night")
    dataset = fake_workers.dataset(state, "Emoji", trigger_word="omoji")
    with state.database.write() as session:
        image = session.exec(select(Image).where(Image.dataset_id == dataset.key))
        row = image.first()
        assert row is not None
        row.caption = "club suit, omoji"
        session.add(row)
        key = row.key
    expected = {"prompt": "club suit", "source": f"dataset:{key}", "adapter-0": "", "weight-0": ""}
    assert restyled(client, key) == expected  # none was used yet
    for adapter in (night, chalk):
        address = f"/play?adapter={adapter.slug}:0.4&prompt=x"
        client.post("/play", data=filled(client, address))
    with_chalk = {"prompt": "club suit, chalkboard", "adapter-0": "chalk@1", "weight-0": "1"}
    assert restyled(client, key) == expected | with_chalk
    page = client.get(f"/datasets/{dataset.slug}/images/{key}").text
    assert f'href="/play/restyle/{key}"' in page
    client.post("/adapters/chalk/delete")
    with_night = with_chalk | {"adapter-0": "night@1"}
    assert restyled(client, key) == expected | with_night
    assert client.get("/play/restyle/999").status_code == 404


def test_the_last_used_adapter_is_left_out_where_its_base_model_cannot_be_used(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    client.post("/play", data=filled(client, "/play?adapter=chalk&prompt=x"))
    with state.database.write() as session:
        for base in session.exec(select(BaseModel)):
            base.status = "failed"
            session.add(base)
    assert restyled(client, 1)["adapter-0"] == ""


@pytest.mark.parametrize("source", ["render:99", "dataset:99", "a" * 64, "../x", "é" * 4_000])
def test_an_image_that_is_gone_is_said_and_can_be_left_out(client: TestClient, source: str) -> None:
    form = filled(client, f"/play?prompt=a+castle&source={source}")
    page = client.post("/play", data=form | {"strength": "2"})
    assert page.status_code == 422
    assert "The image to start from is gone. Choose it again." in page.text
    assert "Start without an image" in page.text
    assert "a castle" in page.text


@pytest.mark.parametrize("strength", ["2", "-1", "NaN", "many", "9" * 5_000])
def test_a_strength_that_is_none_is_marked(client: TestClient, strength: str) -> None:
    form = filled(client, f"/play?prompt=a+castle&source={source_of(client)}")
    page = client.post("/play", data=form | {"strength": strength, "width": "13", "height": "7"})
    assert page.status_code == 422
    assert 'id="strength-error"' in page.text
    assert 'id="width-error"' in page.text
    live = client.post(
        "/play/live", data=form | {"strength": strength, "slot": "0" * 16}, headers=FRAGMENT
    )
    assert live.status_code == 200


def test_settings_bring_the_image_back_that_they_started_from(
    client: TestClient, state: AppState
) -> None:
    source = source_of(client)
    text = OURS.replace(" <lora:chalk-v1:0.8>", "").replace(" <lora:chalk:0.2:0.5>", "")
    text += f", Denoising strength: 0.35, Source SHA256: {source}"
    found = recall(client, image=png(text))
    assert (found["source"], found["strength"]) == (source, "0.35")
    hires = recall(
        client, f"{text.partition(', Denoising')[0]}, Denoising strength: 0.7, Hires upscale: 2"
    )
    assert "source" not in hires
    for gone in (text.replace(source, "a" * 64), text.partition(", Source")[0]):
        answer = client.post("/play/recall", data={"infotext": gone}, headers=FRAGMENT).text
        assert "It started from another image, which is not here" in answer
        assert "strength=" not in answer
