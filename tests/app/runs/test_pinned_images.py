"""The images and captions that a run was trained on, also after their dataset changed or went."""

from __future__ import annotations

import html

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import service as datasets
from app.registry.deletion import datasets as deletion
from app.registry.runs import pinned_images, requests
from app.registry.runs.requests import RunRequest
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.fake_workers import FakeTraining


@pytest.fixture
def run(state: AppState) -> Run:
    """A run on three images, one of which is repeated."""
    dataset = fake_workers.dataset(state)
    with state.database.write() as session:
        image = datasets.list_images(session, dataset.key)[0]
        datasets.caption_image(session, image.key, "a <b>fox</b>")
        datasets.change_image(session, image.key, repeats=3, never_flip=True)
    return fake_workers.queued_run(state, dataset)


def page_of(client: TestClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return " ".join(answer.text.split())


def test_the_page_shows_each_image_with_its_caption(client: TestClient, run: Run) -> None:
    page = page_of(client, f"/runs/{run.key}/images")
    assert "3 images of “<bdi>Chalk</bdi>” as they were when the run was queued." in page
    assert "a &lt;b&gt;fox&lt;/b&gt;" in page
    assert "Used 3 times per epoch, never flipped" in page
    assert page.count('class="pinned-image"') == 3
    assert "since" not in page
    assert f'href="/runs/{run.key}/images">3 images with their captions</a>' in page_of(
        client, f"/runs/{run.key}"
    )


def test_what_changed_since_is_said_and_the_images_stay(
    client: TestClient, state: AppState, run: Run
) -> None:
    with state.database.write() as session:
        first, second, _ = datasets.list_images(session, run.dataset_id)
        datasets.caption_image(session, first.key, "another")
        datasets.delete_image(session, second.key)
    for address in (f"/runs/{run.key}", f"/runs/{run.key}/images"):
        page = page_of(client, address)
        assert "The dataset changed since: 1 image removed, 1 caption changed." in page
    assert page.count('class="pinned-image"') == 3
    assert "a &lt;b&gt;fox" in page
    assert "another" not in page


def test_a_deleted_dataset_leaves_the_images_to_the_run(
    client: TestClient, state: AppState, run: Run
) -> None:
    FakeTraining(state).finish()
    with state.database.write() as session:
        datasets.delete_dataset(session, run.dataset_id)
    note = "The dataset was deleted since; its images and captions stay with this run."
    page = page_of(client, f"/runs/{run.key}/images")
    assert note in page
    assert "The dataset today" not in page
    with state.database.write() as session:
        deletion.delete_dataset(session, run.dataset_id)
    image, *others = client.get(f"/api/v1/runs/{run.key}/images").json()
    assert len(others) == 2
    assert image["filename"] == "0.png"
    assert image["thumbnail_sha256"] == image["sha256"]
    assert client.get(f"/media/{image['sha256']}/small").status_code == 200
    assert html.unescape(page_of(client, f"/runs/{run.key}/images")).count("a fox") == 2


def test_several_captions_of_an_image_are_listed_by_kind(client: TestClient, run: Run) -> None:
    first = client.get(f"/api/v1/datasets/{run.dataset_id}/images").json()[0]
    written = client.put(
        f"/api/v1/images/{first['id']}/captions/tags", json={"caption": "fox, red"}
    )
    assert written.status_code == 200, written.text
    queued = client.post("/api/v1/runs", json={"dataset_id": run.dataset_id}).json()
    found = client.get(f"/api/v1/runs/{queued['id']}/images").json()[0]["captions"]
    assert [one["kind"] for one in found] == ["long", "tags"]


def test_many_images_come_in_pages(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_images, "IMAGES_A_PAGE", 2)
    assert f"/runs/{run.key}/images?of=training&amp;page=2" in page_of(
        client, f"/runs/{run.key}/images"
    )


def test_regularization_images_are_shown_beside_them(
    client: TestClient, state: AppState, run: Run
) -> None:
    address = f"/runs/{run.key}/images?of=regularization"
    assert client.get(address, headers={"accept": "text/html"}).status_code == 404
    photos = fake_workers.dataset(state, name="Photos", pictures=1)
    request = RunRequest(dataset_id=run.dataset_id, regularization_dataset_id=photos.key)
    with state.database.write() as session:
        second = requests.create_run(session, request).key
    page = page_of(client, f"/runs/{second}/images?of=regularization")
    assert "1 image of “<bdi>Photos</bdi>” as it was when the run was queued." in page
    assert "Regularization</a>" in page
    assert client.get(f"/api/v1/runs/{second}/images?of=other").status_code == 422
