"""Pages of grids, as a browser without scripts gets them, and the parts that htmx asks for."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageFont

from app.registry.adapters import service as adapters
from app.registry.renders import listing
from app.registry.renders.grids import sheet as sheets
from app.registry.state import AppState
from tests import fake_workers
from tests.app.playground.grids.test_grids import renders, states
from tests.app.playground.test_pages import FRAGMENT, HTML, filled
from tests.app.runs.test_pages import form_of

NOTICE = re.compile(r"Nothing was generated.*?</p>", re.DOTALL)
ADDRESS = "adapter=chalk:0.8&prompt=a+castle&seed=7"


def form(client: TestClient, query: str = ADDRESS) -> dict[str, str]:
    return form_of(client.get(f"/grids/new?{query}", headers=HTML).text, "new-grid")


def start(client: TestClient, query: str = ADDRESS, **fields: str) -> Any:
    sent = form(client, query) | {name.replace("_", "-"): text for name, text in fields.items()}
    return client.post("/grids", data=sent, headers=HTML, follow_redirects=False)


def test_the_playground_leads_to_a_grid_that_fills_as_images_are_done(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    sent = filled(client, f"/play?{ADDRESS}")
    led = client.post("/grids/new", data=sent, headers=FRAGMENT).headers["hx-redirect"]
    fields = form(client, led.partition("?")[2])
    assert (fields["columns-what"], fields["columns-values"]) == (
        "weight:0",
        "0.25 to 1.25 by 0.25",
    )
    assert (fields["prompt"], fields["seed"]) == ("a castle", "7")
    assert (fields["adapter-0"], fields["weight-0"]) == ("chalk", "0.8")
    fields |= {"rows-what": "prompt", "rows-values": "a fox\na {red|blue} boat"}
    told = client.post("/grids/estimate", data=fields, headers=FRAGMENT).text
    assert "15 images. Time: not known yet." in told
    grid = client.post("/grids", data=fields, headers=HTML, follow_redirects=False)
    assert grid.headers["location"] == "/grids/1"
    page = client.get("/grids/1").text
    assert "Weight × prompt" in page
    assert page.count(">waiting<") == 15
    assert "“a castle”" not in page  # prompts are an axis
    ask = "/grids/1/live?sheet=0&w=0&w=7"
    assert client.get(ask).text == client.get(ask).text  # nothing new: the page is left alone
    fake_workers.draw(state)
    news = client.get(ask).text
    assert news.count("hx-swap-oob") == 3  # two cells, and the sentence for screen readers
    assert 'id="image-7" hx-swap-oob="true"' in news
    assert "hx-trigger" not in news
    shown = client.get("/grids/1?cell=7").text
    assert "a red boat, Chalk 0.75" in shown
    assert "Use this weight, 0.75" in shown
    assert shown.count("Arrow keys walk") == 1
    assert 'aria-current="true"' in shown
    assert "adapter=chalk%401%3A0.75" in shown
    assert "/grids/1/compare?a=7&amp;b=8" in shown
    panel = client.get("/grids/1/cells/7", headers=FRAGMENT).text
    assert "Shown: a red boat, Chalk 0.75" in panel
    both = client.get("/grids/1/compare?a=7&b=12").text
    assert "Back to the grid" in both
    assert "data-comparison-slider" in both
    assert both.index("data-comparison-modes") < both.index("<img")  # as on the other pages
    fields["rows-values"] = "a fox\nan owl"
    told = client.post("/grids/estimate", data=fields, headers=FRAGMENT).text
    assert "10 images. 5 of them exist already. Time for the rest: about " in told
    assert "Weight × prompt" in client.get("/grids").text


def test_the_winner_gives_its_adapter_weight_alias_and_cover_and_stays_in_the_gallery(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    start(client)
    fake_workers.draw(state)
    for action, sentence in (
        ("weight", "0.50 is the usual weight of “Chalk”, version 1, now."),
        ("best", "Version 1 of “Chalk” is “best” now."),
        ("cover", "This image is the cover of “Chalk” now."),
    ):
        sent = {"place": "1", "becomes": action}
        assert sentence in client.post("/grids/1/winner", data=sent, headers=FRAGMENT).text
    cells = client.get("/api/v1/grids/1").json()
    assert cells["winner"] == 1
    with state.database.read() as session:
        row = adapters.get_adapter(session, adapter.key)
        assert adapters.get_version(session, row, "best").usual_weight == 0.5
        assert cells["images"][1]["url"] == f"/media/{row.cover_sha256}"
        assert listing.recent_renders(session) == []
    for _ in range(2):  # the second time it is there already
        client.post("/grids/1/keep", data={"place": "1"}, headers=HTML)
    with state.database.read() as session:
        (kept,) = listing.recent_renders(session)
        assert [used.weight for used in kept.stack] == [0.5]
        assert [one.key for one in listing.adapter_renders(session, adapter.key)] == [kept.key]
    gone = client.post("/grids/1/delete", headers=HTML).text
    assert "<p>“Weight” was deleted.</p>" in gone
    client.post("/grids/1/restore")
    assert states(client, {"id": 1}) == ["succeeded"] * 5
    for sent, status in (
        ({"place": "99", "becomes": "none"}, 404),
        ({"place": "x", "becomes": "none"}, 422),
        ({"place": "9" * 5_000, "becomes": "none"}, 422),
        ({"place": "1", "becomes": "x"}, 422),
    ):
        assert client.post("/grids/1/winner", data=sent, headers=HTML).status_code == status


def test_choosing_an_axis_fills_it_and_its_adapter_is_named_everywhere(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    for prompts in (("a castle", "a rocket"), ("a castle",)):  # the last row is not complete
        training.train(20)
        training.sample(training.step, prompts)
        training.checkpoint()
    trained = training.finish()
    fake_workers.adapter(state, "Night")
    address = f"adapter={trained.slug}:0.8&adapter=night:0.4&prompt=a+castle&seed=7"
    fields = form(client, address) | {"columns-what": "checkpoint:0"}
    filled_in = client.post(
        "/grids/stack", data=fields | {"fill": "columns"}, headers=FRAGMENT
    ).text
    assert 'data-run="1"' in filled_in
    assert re.findall(r'value="(\d+)" checked', filled_in) == ["20", "40"]
    castles = [fake_workers.blob(state, fake_workers.make_png(step * 10)) for step in (20, 40)]
    assert re.findall(r'src="/media/(\w{64})/', filled_in) == castles
    fields |= {"columns-values": "1: 40", "rows-what": "sampler", "sheets-what": "adapter:2"}
    typed = client.post("/grids/stack", data=fields | {"axis": "columns"}, headers=FRAGMENT).text
    assert re.findall(r'value="(\d+)" checked', typed) == ["40"]
    assert 'value="20">Step 20' in typed
    versions = fields | {"axis": "rows", "rows-what": "adapter:0"}
    versions["rows-values"] = f"{trained.slug}@1, night"
    listed = client.post("/grids/stack", data=versions, headers=FRAGMENT).text
    assert castles[1] in listed  # of its version, in place of a cover
    for axis, text in (("rows", "DDIM, Euler"), ("sheets", f"{trained.slug}, night")):
        answer = client.post("/grids/stack", data=fields | {"fill": axis}, headers=FRAGMENT)
        assert text in answer.text
        assert answer.headers["hx-trigger-after-settle"] == "stack-changed"  # counts the images
    start(client, address, columns_what="checkpoint:0", columns_values="1")
    page = " ".join(client.get("/grids/1").text.split())
    assert "“a castle”, weight 0.80, beside Night 0.40, seed 7" in page
    assert f"<dd>checkpoint in place of {trained.name}, run 1, all 2 checkpoints</dd>" in page
    assert f'title="{trained.name} step 20"' in page
    start(client, address, rows_what="checkpoint:0", rows_values="1: 40")
    page = " ".join(client.get("/grids/2").text.split())
    assert f'title="{trained.name} 0.50"' in page
    assert f"<dd>weight of {trained.name}, 0.25 to 1.25 by 0.25</dd>" in page
    assert "run 1, 1 checkpoint<" in page


def test_an_axis_without_values_is_filled_when_its_adapter_is_added(
    client: TestClient, state: AppState
) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(20)
    training.checkpoint()
    trained = training.finish()
    fields = form(client, "prompt=a+castle") | {"rows-what": "checkpoint:0", "rows-values": ""}
    fields |= {"columns-values": "0.5"}
    chosen = client.post("/grids/stack", data=fields | {"fill": "rows"}, headers=FRAGMENT)
    assert "data-run" not in chosen.text
    added = client.post("/grids/stack", data=fields | {"add": trained.slug}, headers=FRAGMENT).text
    assert 'data-run="1"' in added
    assert re.findall(r'value="(\d+)" checked', added) == ["20"]
    assert ">\n0.5</textarea>" in added  # what was typed stays


def test_a_checkpoint_that_wins_becomes_a_version_first(
    client: TestClient, state: AppState
) -> None:
    fake_workers.run_with_checkpoints(state, fake_workers.dataset(state))
    start(client, "prompt=a+castle&seed=7", columns_what="checkpoint:0", columns_values="1")
    assert [cell["column"] for cell in client.get("/api/v1/grids/1").json()["images"]] == [0, 1]
    fake_workers.draw(state)
    page = client.get("/grids/1?cell=0").text
    assert "Use this step as “best”" in page
    told = client.post("/api/v1/grids/1/winner", json={"place": 0, "action": "cover"}).json()
    assert told["told"].startswith("Step 20 is version 1 of “")
    assert told["told"].endswith("now.")


def test_a_sheet_is_one_png_within_its_limits(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "MAX_SIDE", 3_000)  # for a fourth of the columns
    fake_workers.adapter(state)
    start(client, rows_what="prompt", rows_values="a very long prompt " * 9 + "\n城")
    fake_workers.draw(state)
    start(client, columns_what="seed", columns_values="1 to 100")
    for number in (1, 2):
        answer = client.get(f"/api/v1/grids/{number}/sheet?sheet=5")  # past the last one
        assert f"brushwork-grid-{number}-1.png" in answer.headers["content-disposition"]
        assert answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.content)) as sheet:
            assert max(sheet.size) <= sheets.MAX_SIDE
            assert sheet.width * sheet.height <= sheets.MAX_PIXELS
            colors = sheet.convert("RGB").getcolors(1_000_000)
        assert colors is not None
        assert len(colors) > 2


def white_rows(png: bytes) -> list[int]:
    """The heights in pixels of the white stripes of a sheet, from the top."""
    with Image.open(io.BytesIO(png)) as sheet:
        shades = sheet.convert("L").resize((1, sheet.height), Image.Resampling.BOX)
    white = "".join("w" if shades.getpixel((0, y)) == 255 else "." for y in range(shades.height))
    return [len(stripe) for stripe in re.findall("w+", white)]


def test_a_sheet_has_no_more_space_than_its_labels_take(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    start(client, rows_what="seed", rows_values="1, 2")
    start(client, rows_what="seed", rows_values="1, 2", sheets_what="steps", sheets_values="5, 6")
    fake_workers.draw(state)
    plain, with_subtitle = (client.get(f"/api/v1/grids/{key}/sheet").content for key in (1, 2))
    assert max(white_rows(plain)) <= sheets.MARGIN + sheets.GAP
    assert max(white_rows(with_subtitle)) <= sheets.MARGIN + sheets.GAP
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(with_subtitle)) as other:
        assert other.height - one.height == sheets.LABEL_LINE


def test_labels_are_written_without_what_the_font_lacks() -> None:
    own = ImageFont.load_default(15)
    assert sheets._drawable("Gewicht × Größe −1", own) == "Gewicht x Grosse -1"


def test_adapters_of_a_grid_are_chosen_by_the_picker_and_axes_follow_them(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    fake_workers.adapter(state, "Night")
    fields = form(client, f"{ADDRESS}&adapter=nobody") | {"columns-values": "0.5, 1"}
    fields |= {"rows-what": "weight:1", "sheets-what": "adapter:2", "title": "half a thought"}
    found = client.post("/grids/stack/find", data=fields | {"find": "nig"}, headers=FRAGMENT).text
    assert 'hx-post="/grids/stack"' in found
    answer = client.post("/grids/stack", data=fields | {"drop": "1"}, headers=FRAGMENT)
    assert answer.headers["hx-trigger-after-settle"] == "stack-changed"
    assert "nobody is removed.</p>" in answer.text
    page = client.post("/grids/stack", data=fields | {"drop": "0"}, headers=HTML).text
    left = form_of(page, "new-grid")
    axes = [left[f"{name}-what"] for name in ("columns", "rows", "sheets")]
    assert axes == ["", "weight:0", "adapter:1"]
    assert (left["columns-values"], left["title"]) == ("0.5, 1", "half a thought")
    added = client.post("/grids/stack", data=form(client) | {"find": "night"}, headers=HTML).text
    fields = form_of(added, "new-grid")
    assert (fields["adapter-1"], fields["weight-1"]) == ("night", "1")
    assert "Adapter in place of Night" in added


def test_a_new_grid_shows_the_image_that_it_starts_from(
    client: TestClient, state: AppState
) -> None:
    client.post("/api/v1/renders", json={"prompt": "a fox"})
    fake_workers.draw(state)
    query = "prompt=a+castle&source=render:1&strength=0.3"
    page = client.get(f"/grids/new?{query}", headers=HTML).text
    assert "All images start from image 1" in page
    assert "Strength 0.3." in page
    assert start(client, query).status_code == 303
    assert "from an image at strength 0.3" in client.get("/grids/1").text
    assert {row.strength for row in renders(state)[1:]} == {0.3}
    gone = client.get("/grids/new?prompt=a+castle&source=render:9", headers=HTML).text
    assert "The image to start from is gone." in gone


def test_an_estimate_asks_for_a_prompt_before_one_is_typed_and_names_the_field_of_a_reason(
    client: TestClient, state: AppState
) -> None:
    fields = form(client, "")
    told = client.post("/grids/estimate", data=fields, headers=FRAGMENT).text
    assert "Enter a prompt to see" in told
    assert "field-error" not in told  # nothing is wrong yet
    fields |= {"prompt": "a castle", "steps": "-1"}
    told = client.post("/grids/estimate", data=fields, headers=FRAGMENT).text
    assert "Steps: At least 1." in told


BAD: list[tuple[dict[str, str], str]] = [
    ({"columns_what": ""}, "Choose what the columns vary."),
    ({"sheets_what": "seed", "sheets_values": "1"}, "Fill in the axis before this one first."),
    ({"columns_what": "magic"}, "not one of the choices"),
    ({"columns_values": "1 to 100000 by 0.01"}, "at most 400 images"),
    ({"columns_values": "x" * 90_000}, "90,000 characters"),
    ({"adapter_0": "nobody"}, "There is no such adapter"),
    ({"weight_0": "NaN"}, "Enter a number"),
    ({"steps": "9" * 5_000}, "This number is too large"),
    ({"prompt": ""}, "This cannot be empty"),
    ({"title": "t" * 200}, "200 characters"),
    ({"seed": "-1"}, "At least 0"),
]


def test_what_can_be_no_grid_is_said_beside_its_field(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    for fields, sentence in BAD:
        answer = start(client, **fields)
        found = (answer.status_code, sentence in answer.text)
        assert found == (422, True), (fields.keys(), NOTICE.findall(answer.text))
    assert renders(state) == []


def test_fields_of_all_images_that_an_axis_varies_are_marked_and_may_be_empty(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    page = client.get("/grids/new?prompt=a+{red|blue}+castle", headers=HTML).text
    marked = re.findall(r'data-varied="(\w+)">', page)
    assert marked == ["prompt", "seed"]  # the rows and the columns
    answer = start(client, prompt="", columns_what="prompt", columns_values="a fox\nan owl")
    assert answer.status_code == 303, NOTICE.findall(answer.text)
    assert {row.prompt for row in renders(state)} == {"a fox", "an owl"}
