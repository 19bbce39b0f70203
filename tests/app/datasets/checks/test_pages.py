"""The panel “Before you train”, and the page of all findings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.web.datasets import check_view

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
    assert 'href="/datasets/boats/checks"' in panel
    assert "3 near-duplicates in one pile" in panel
    assert "nothing found" in panel


def test_all_findings_have_their_images_on_a_page(client: TestClient, png: Png) -> None:
    upload(client, png, "ink, a boat", "Ink, a boat", "ink, a <i>, watercolor", "ink, a fox")
    text = client.get("/datasets/boats/checks").text
    assert "“watercolor” is in 1 of 4 captions" in text
    assert "2 images share the same caption" in text
    assert text.count('class="finding-images"') == 4  # they are small and alike, too
    assert "<i>, watercolor" not in text
    client.post("/datasets", data={"name": "Empty"})
    assert "no images to check yet" in client.get("/datasets/empty/checks").text


def test_a_check_of_many_images_is_loaded_after_the_page(
    client: TestClient, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_view, "CHECKED_AT_ONCE", 1)
    upload(client, png, "a boat", "ink, a fox")
    loading = client.get("/datasets/boats").text
    assert 'hx-trigger="load, captions-changed from:body delay:2s"' in loading
    assert "lacks the trigger word" not in loading
    loaded = client.get("/datasets/boats/checks/panel").text
    assert "1 caption lacks the trigger word" in loaded
    assert "load, " not in loaded
    assert "1 caption lacks the trigger word" in client.get("/datasets/boats").text  # known now


@pytest.mark.parametrize("address", ["/datasets/none/checks", "/datasets/none/checks/panel"])
def test_the_checks_of_no_dataset_are_not_found(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 404


def test_the_api_gives_the_findings_with_the_images(client: TestClient, png: Png) -> None:
    upload(client, png, "ink, a boat", "watercolor of a fox, ink", "an owl")
    report = client.get("/api/v1/datasets/1/checks").json()
    assert (report["image_count"], report["open"]) == (3, 4)
    trigger, style, alike, size = report["findings"]
    assert (alike["check"], alike["count"]) == ("near_duplicates", 3)
    assert (size["check"], size["count"]) == ("size", 3)
    assert (trigger["check"], trigger["image_ids"]) == ("trigger_word", [3])
    assert (style["check"], style["fragments"]) == ("style_words", ["watercolor"])
    assert "subject" in report["clear"]
    assert client.get("/api/v1/datasets/9/checks").status_code == 404
