"""No page sends a full image where it shows a small one; every image has its place in advance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.blobs import thumbnails as service
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.paths import TEMPLATES
from app.registry.state import AppState
from app.registry.tables.blobs import Thumbnail
from tests import fake_workers
from tests.app.runs.test_pages import form_of
from tests.images import make_png

FULL_IMAGE = re.compile(r"/media/[0-9a-f]{64}")
THUMBNAIL = re.compile(r"/media/[0-9a-f]{64}/(small|large)")
LARGE_PLACES = {"picture", "whole", "viewer-image"}
"""Classes of elements that show one image large."""

PAGES = {  # the least number of thumbnails on each
    "/": 2,
    "/datasets": 3,
    "/datasets/chalk": 3,
    "/runs/1": 4,
    "/adapters": 1,
    "/adapters/chalk": 3,
    "/adapters/chalk/hub": 3,
    "/adapters/chalk/tools": 0,
    "/adapters/deleted": 1,
    "/play?adapter=chalk": 2,
    "/renders/2": 1,
    "/runs": 0,
    "/base-models": 0,
    "/system": 0,
    "/patterns": 0,
}
VOID = {"img", "input", "meta", "link", "br", "hr", "image", "use", "path", "rect", "circle"}


class Images(HTMLParser):
    """The attributes of every image, and the classes of the elements around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], set[str]]] = []
        self._around: list[tuple[str, set[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in ("img", "image"):
            around = {name for _, names in self._around for name in names}
            self.found.append((tag, values, around))
        if tag not in VOID:
            self._around.append((tag, set(values.get("class", "").split())))

    def handle_endtag(self, tag: str) -> None:
        while self._around and self._around.pop()[0] != tag:
            pass


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"hub": "on"})


@pytest.fixture
def filled(client: TestClient, state: AppState) -> TestClient:
    """A registry with an image in every place that shows some."""
    deleted = fake_workers.adapter(state, "Charcoal")
    adapter = fake_workers.adapter(state)
    body = {"prompt": "a fox", "adapters": [{"id": adapter.key}], "twin": True}
    assert client.post("/api/v1/renders", json=body).status_code == 202
    fake_workers.draw(state)
    with state.database.write() as session:
        adapters.delete_adapter(session, deleted.key)
    return client


def sources(tag: str, values: dict[str, str]) -> Iterator[str]:
    """Every address from which a browser may load this image."""
    yield values.get("href" if tag == "image" else "src", "")
    for choice in filter(None, values.get("srcset", "").split(",")):
        yield choice.split()[0]


def test_lists_and_grids_show_thumbnails(filled: TestClient) -> None:
    answers = {page: (filled.get(page), least) for page, least in PAGES.items()}
    fields = form_of(filled.get("/train/new?dataset=chalk").text)
    answers["crops"] = filled.post("/train/new/crops", data=fields), 3
    for page, (answer, least) in answers.items():
        assert answer.status_code == 200, page
        images = Images()
        images.feed(answer.text)
        thumbnails = 0
        for tag, values, around in images.found:
            assert values["width"], (page, values)
            assert values["height"], (page, values)
            assert tag == "image" or "alt" in values, (page, values)
            used = list(sources(tag, values))
            full = [address for address in used if FULL_IMAGE.fullmatch(address)]
            assert not full or around & LARGE_PLACES, (page, values)
            thumbnails += all(THUMBNAIL.fullmatch(address) for address in used)
        assert thumbnails >= least, page


def test_only_macros_and_the_result_name_stored_images() -> None:
    """A template that no page of the other test shows cannot send a full image either."""
    naming = {
        path.relative_to(TEMPLATES).as_posix()
        for path in TEMPLATES.rglob("*.html")
        if re.search(r"<img[^>]*src=\"/media/", path.read_text())
    }
    # what the autoencoder loses would be lost in a thumbnail too
    allowed = {"_ui.html", "_comparison.html", "playground/_result.html", "runs/round_trips.html"}
    assert naming == allowed


def store(state: AppState, database: Database) -> tuple[str, str]:
    """A stored image with a small thumbnail: (image, thumbnail)."""
    image, small = (state.store.put_bytes(make_png(n)).sha256 for n in (1, 2))
    with database.write() as session:
        service.save(session, [Thumbnail(sha256=image, small_sha256=small)])
    return image, small


def test_a_thumbnail_is_served_by_the_hash_of_its_image(
    client: TestClient, state: AppState
) -> None:
    image, small = store(state, state.database)
    for name, shown in (("small", small), ("large", image)):
        answer = client.get(f"/media/{image}/{name}")
        with state.store.open(shown) as blob:
            assert answer.content == blob.read()
        assert answer.headers["etag"] == f'"{shown}"'
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "image/png"
        unchanged = client.get(f"/media/{image}/{name}", headers={"if-none-match": f'"{shown}"'})
        assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_the_image_itself_is_served_until_it_has_thumbnails(
    client: TestClient, state: AppState
) -> None:
    image = state.store.put_bytes(make_png(3)).sha256
    for name in ("small", "large"):
        answer = client.get(f"/media/{image}/{name}")
        assert answer.content == make_png(3)
        assert answer.headers["cache-control"] == "private, max-age=60"
    lost, small = store(state, state.database)
    state.store.delete(small)
    answer = client.get(f"/media/{lost}/small")
    assert answer.content == make_png(1)
    assert answer.headers["cache-control"] == "private, max-age=60"


def test_other_blobs_and_other_sizes_are_not_found(client: TestClient, state: AppState) -> None:
    text = state.store.put_bytes(b"no image").sha256
    assert client.get(f"/media/{text}/small").status_code == 404
    assert client.get(f"/media/{'0' * 64}/small").status_code == 404
    assert client.get(f"/media/{text}/huge").status_code in (404, 422)
