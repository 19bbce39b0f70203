"""The panel “Before you train”, and the page of all findings."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import service
from app.registry.state import AppState
from app.registry.tables.datasets import ImageMeasure
from app.web.datasets import check_view
from tests.app.adapters.test_fitting import add_base
from tests.app.runs.test_pages import form_of

Png = Callable[..., bytes]


def upload(client: TestClient, png: Png, *captions: str) -> None:
    files = []
    for number, caption in enumerate(captions):
        files.append(("files", (f"{number}.png", png(number + 1), "image/png")))
        if caption:
            files.append(("files", (f"{number}.txt", caption.encode(), "text/plain")))
    client.post("/datasets", data={"name": "Boats", "trigger_word": "ink"}, files=files)


def test_the_page_of_a_dataset_shows_what_was_found_and_where_to_go(
    client: TestClient, png: Png
) -> None:
    upload(client, png, "ink, a boat", "a <b>chalk drawing</b> of a fox", "")
    text = client.get("/datasets/boats").text
    panel = text[text.index('id="checks"') :]
    assert "1 image has no caption" in panel
    assert "1 caption lacks the trigger word" in panel
    assert 'href="/datasets/boats?show=uncaptioned"' in panel
    assert 'href="/datasets/boats?edit=add_trigger&amp;text=ink"' in panel
    assert "nothing found" in panel
    assert 'href="/datasets/boats/checks"' in panel
    assert "3 near-duplicates in one pile" in panel
    assert "nothing found" in panel


def test_all_findings_have_their_images_on_a_page(client: TestClient, png: Png) -> None:
    upload(client, png, "ink, a boat", "Ink, a boat", "ink, a <i>, watercolor", "ink, a fox")
    text = client.get("/datasets/boats/checks").text
    assert "“watercolor” is in 1 of 4 captions" in text
    assert "2 images share the same caption" in text
    assert text.count('class="finding-images row above-3"') == 5  # few, small, alike
    assert "<i>, watercolor" not in text
    client.post("/datasets", data={"name": "Empty"})
    assert "no images to check yet" in client.get("/datasets/empty/checks").text


def test_a_check_of_many_images_is_loaded_after_the_page(
    client: TestClient, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_view, "CHECKED_AT_ONCE", 1)
    upload(client, png, "a boat", "ink, a fox")
    loading = client.get("/datasets/boats").text
    assert '/checks/panel" hx-trigger="load"' in loading
    assert "lacks the trigger word" not in loading
    loaded = client.get("/datasets/boats/checks/panel").text
    assert "1 caption lacks the trigger word" in loaded
    assert "hx-trigger" not in loaded
    assert "1 caption lacks the trigger word" in client.get("/datasets/boats").text  # known now


def test_the_panel_of_an_empty_dataset_comes_with_its_first_images(
    client: TestClient, png: Png
) -> None:
    client.post("/datasets", data={"name": "Boats"})
    empty = re.search(r'id="checks"(.*)></section>', client.get("/datasets/boats").text)
    assert empty is not None
    assert "images-changed from:body" in empty[1]
    files = [("files", ("1.png", png(1), "image/png"))]
    client.post("/datasets/boats/images", files=files)
    assert ">Before you train</h2>" in client.get("/datasets/boats/checks/panel").text
    assert ">Before you train</h2>" in client.get("/datasets/boats").text


def test_words_are_stripped_in_all_their_spellings_with_a_preview(
    client: TestClient, state: AppState, png: Png
) -> None:
    upload(client, png, "ink, a pencil sketch of a fox", "ink, owl, pencil sketch")
    text = client.get("/datasets/boats/checks").text
    address = "/datasets/boats?edit=remove_words&amp;text=a+pencil+sketch+of%2C+pencil+sketch"
    assert f'href="{address}"' in text
    preview = client.get(address.replace("&amp;", "&")).text
    assert "Changes 2 captions" in preview
    form = {"do": "remove_words", "text": "a pencil sketch of, pencil sketch", "all": "1"}
    client.post("/datasets/boats/edits", data=form)
    with state.database.read() as session:
        captions = [image.caption for image in service.list_images(session, 1)]
    assert captions == ["ink, a fox", "ink, owl"]
    assert "pencil" not in client.get("/datasets/boats/checks").text


def test_words_of_all_captions_become_the_trigger_word(client: TestClient, png: Png) -> None:
    upload(client, png, *(f"{name}, ink & wash style" for name in ("a", "fox", "owl", "cat", "ox")))
    client.patch("/api/v1/datasets/1", json={"trigger_word": ""})
    address = "/datasets/boats?edit=add_trigger&amp;text=ink+%26+wash+style"
    for path in ("", "/checks", "/checks/panel", "/checks/brief"):
        text = client.get(f"/datasets/boats{path}").text
        make = text.index(f'href="{address}" aria-label="Make it the trigger word: “')
        assert make < text.index(">Strip</a>", make)
    preview = client.get(address.replace("&amp;", "&")).text
    assert "Changes 0 captions and the trigger word of the dataset" in preview
    assert re.search(r'name="sets_trigger"[^>]* checked', preview)
    assert not re.search(r'id="edit-apply"[^>]* disabled', preview)
    edit = {"do": "add_trigger", "text": "ink & wash style", "sets_trigger": "1", "all": "1"}
    client.post("/datasets/boats/edits", data=edit)
    assert "wash style” is in" not in client.get("/datasets/boats/checks").text


def test_the_earliest_of_near_duplicates_of_one_size_is_kept(
    client: TestClient, state: AppState, png: Png
) -> None:
    upload(client, png, "ink, a boat", "ink, a fox", "ink, an owl")
    with state.database.write() as session:
        for number, image in enumerate(service.list_images(session, 1)):
            measure = session.get(ImageMeasure, image.clean_sha256)
            assert measure is not None
            measure.measure_version += 1  # as a better measure would
            measure.perceptual_hash, measure.sharpness = "00000000000000ff", number / 10 + 0.1
            session.add(measure)
    text = client.get("/datasets/boats/checks").text
    assert "3 near-duplicates in one pile" in text
    assert ">Keep one of each</button>" in text
    assert '<input type="hidden" name="images" value="2 3">' in text
    assert "Sets the 2 others aside" in text
    sent = {"images": "2 3", "open": "set_aside"}
    assert (
        "autofocus>Set aside</h2>" in client.post("/datasets/boats/edits/preview", data=sent).text
    )
    client.post("/datasets/boats/edits", data={"images": "2 3", "do": "set_aside"})
    checks = client.get("/datasets/boats/checks").text
    assert "1 image and 1 caption checked; 2 images set aside." in checks
    assert "in one pile" not in checks


def test_the_form_of_a_run_shows_what_is_open(
    client: TestClient, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(client, png, "a boat", "watercolor of a fox, ink", "")
    form = client.get("/train/new?dataset=boats").text
    assert form.count("data-warning") == 4
    assert "1 caption lacks the trigger word. " in form
    assert 'href="/datasets/boats/checks">2 more findings, and why each matters</a>' in form
    monkeypatch.setattr(check_view, "CHECKED_AT_ONCE", 1)
    client.patch("/api/v1/datasets/1", json={"trigger_word": "zork"})
    assert 'hx-get="/datasets/boats/checks/brief"' in client.get("/train/new?dataset=boats").text
    assert "2 captions lack the trigger word. " in client.get("/datasets/boats/checks/brief").text


def test_the_form_of_a_run_checks_for_its_base_model_and_size(
    client: TestClient, state: AppState, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.database.write() as session:
        add_base(session, "other", None)
    upload(client, png, "ink, a boat", "ink, " + "rain " * 30)
    sent = form_of(client.get("/train/new?dataset=boats").text)
    assert sent["base_model"] == "starter"
    told = client.post("/train/new/plan", data=sent).text
    assert "1 caption has more than 22 tokens. " in told
    assert 'href="/datasets/boats?show=long"' in told  # as on the page of the dataset
    told = client.post(
        "/train/new/plan", data=sent | {"base_model": "other", "resolution": "640"}
    ).text
    assert "tokens. " not in told
    assert "2 images are smaller than 640 px. " in told
    address = "/datasets/boats/checks?base=other&amp;resolution=640"
    look = re.search(rf'href="{re.escape(address)}#(finding-\d)" aria-label="Look: 2 images', told)
    assert look is not None
    page = client.get(address.replace("&amp;", "&")).text
    assert f'id="{look[1]}-title">2 images are smaller than 640 px</h2>' in page
    assert "more than" not in page
    assert "2 images are smaller than 128 px" in client.get("/datasets/boats/checks").text
    monkeypatch.setattr(check_view, "CHECKED_AT_ONCE", 1)
    told = client.post(
        "/train/new/plan", data=sent | {"base_model": "other", "resolution": "704"}
    ).text
    brief = "/datasets/boats/checks/brief?base=other&amp;resolution=704"
    assert f'<p hx-get="{brief}"' in told  # no small print
    assert "smaller than 704 px. " in client.get(brief.replace("&amp;", "&")).text


def test_captions_that_are_too_long_lead_to_their_filter(client: TestClient, png: Png) -> None:
    upload(client, png, "ink, a boat", "ink, " + "rain " * 80)
    text = client.get("/datasets/boats/checks").text
    assert "1 caption has more than 22 tokens" in text
    assert 'href="/datasets/boats?show=long"' in text
    report = client.get("/api/v1/datasets/1/checks").json()
    assert ("long", 1) in [(one["check"], one["count"]) for one in report["findings"]]


@pytest.mark.parametrize("address", ["/datasets/none/checks", "/datasets/none/checks/panel"])
def test_the_checks_of_no_dataset_are_not_found(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 404


def test_the_api_gives_the_findings_with_the_images(client: TestClient, png: Png) -> None:
    upload(client, png, "ink, a boat", "watercolor of a fox, ink", "an owl")
    report = client.get("/api/v1/datasets/1/checks").json()
    assert (report["image_count"], report["open"]) == (3, 5)
    few, trigger, style, alike, size = report["findings"]
    assert (few["check"], few["count"]) == ("few_images", 3)
    assert (alike["check"], alike["count"]) == ("near_duplicates", 3)
    assert (size["check"], size["count"]) == ("size", 3)
    assert (trigger["check"], trigger["image_ids"]) == ("trigger_word", [3])
    assert (style["check"], style["fragments"]) == ("style_words", ["watercolor"])
    assert "subject" in report["clear"]
    assert client.get("/api/v1/datasets/9/checks").status_code == 404
