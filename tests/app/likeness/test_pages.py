"""The pages of styles like this: with the pairs, without images, of a file that is no image."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.registry.blobs import looks
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.web.likeness import pages
from tests.app.likeness.looked import add_adapter, look, named
from tests.claims import end_io_job


def shown(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == status, answer.text
    return answer.text


def test_an_adapter_leads_to_the_nearest_styles_with_pairs(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_adapter(state.database, "Ink", 0)
    for name, value, family in (("Chalk", 3, "sd1"), ("Pen", 0, "sd1"), ("Large", 2, "sdxl")):
        add_adapter(state.database, name, value, family=family)
    add_adapter(state.database, "Bare", None)
    assert 'href="/adapters/ink/like"' in shown(client, "/adapters/ink")
    page = shown(client, "/adapters/ink/like")
    assert page.index('href="/adapters/pen"') < page.index('href="/adapters/large"')
    assert page.index('href="/adapters/large"') < page.index('href="/adapters/chalk"')
    assert f"/media/{named('cover of Ink')}/small" in page
    assert f"/media/{named('cover of Pen')}/small" in page
    assert page.count("nearly the same style") == 1
    assert "Distance 3.00, measured in its cover alone" in page
    assert "1 adapter has no image to compare" in page
    assert "/adapters/chalk" not in shown(client, "/adapters/ink/like?base=sdxl")
    monkeypatch.setattr(pages, "ADAPTERS_A_PAGE", 2)
    assert 'rel="next" href="/adapters/ink/like?page=2"' in shown(client, "/adapters/ink/like")
    assert 'href="/adapters/chalk"' in shown(client, "/adapters/ink/like?page=2")
    assert 'href="/adapters/chalk"' in shown(client, "/adapters/ink/like?page=9")  # the last


def test_pages_say_what_is_missing(client: TestClient, state: AppState) -> None:
    add_adapter(state.database, "Bare", None)
    page = shown(client, "/adapters/bare/like")
    assert "has no image whose style could be compared" in page
    assert 'data-poll="2 10"' not in page
    add_adapter(state.database, "Late", 1, measured=False)
    page = shown(client, "/adapters/late/like")
    assert "is not measured yet" in page
    assert 'data-poll="2 10"' in page
    shown(client, "/adapters/nobody/like", 404)
    shown(client, "/datasets/nobody/like", 404)


def test_a_dataset_leads_to_styles_like_its_images(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        dataset = Dataset(slug="sketches", name="Sketches")
        session.add(dataset)
        session.flush()
        image = {"sha256": named("a"), "clean_sha256": named("b"), "thumbnail_sha256": named("c")}
        sides = {"width": 8, "height": 8, "size_bytes": 9, "filename": "a.png"}
        session.add(Image(dataset_id=dataset.key, **image, **sides))
        looks.save(session, {named("c"): look(1)})
    assert 'href="/datasets/sketches/like"' in shown(client, "/datasets/sketches")
    empty = shown(client, "/datasets/sketches/like")
    assert "There is no adapter here whose images were measured" in empty
    add_adapter(state.database, "Pen", 2)
    page = shown(client, "/datasets/sketches/like")
    assert "compared with 1 image of the dataset" in page
    assert f"/media/{named('c')}/small" in page


def test_an_image_is_sent_and_the_page_waits_for_it(
    client: TestClient, state: AppState, png: Callable[..., bytes]
) -> None:
    add_adapter(state.database, "Pen", 2)
    assert "data-style-search" in shown(client, "/adapters")
    sent = client.post("/style-searches", files={"file": ("a.png", png())}, follow_redirects=False)
    assert sent.status_code == 303
    address = sent.headers["location"]
    assert "is being measured" in shown(client, address)
    result = {"look": b64encode(look(1)).decode()}
    end_io_job(
        state.database, lambda job: job.kind == "measure_image", JobStatus.SUCCEEDED, result=result
    )
    page = shown(client, address)
    assert "Styles like your image" in page
    assert f"/media/{named('cover of Pen')}/small" in page


def test_a_file_that_is_no_image_is_refused_with_the_reason(client: TestClient) -> None:
    html = {"accept": "text/html"}
    sent = client.post("/style-searches", files={"file": ("a.pdf", b"%PDF-1.7")}, headers=html)
    assert sent.status_code == 422
    assert "This is a PDF document" in sent.text
    none = client.post("/style-searches", data={"x": "1"}, headers=html)
    assert "Choose an image file first." in none.text
