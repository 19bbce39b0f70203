"""Uploads that tell how far they are, in lines of their own answer."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import service, uploads
from app.registry.datasets.uploads import UploadOutcome, UploadProgress
from app.registry.errors import StorageFullError
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.web.datasets import upload_progress as progress
from app.web.datasets.upload_progress import MEDIA_TYPE
from tests.app.datasets.corpus import archive

Png = Callable[..., bytes]
LINES = {"accept": MEDIA_TYPE}


@pytest.fixture
def boats(state: AppState) -> Dataset:
    with state.database.write() as session:
        return service.create_dataset(session, "Boats")


def send(client: TestClient, address: str, packed: bytes) -> list[dict[str, Any]]:
    """The lines of the answer to this archive."""
    sent = {"files": ("a.zip", packed, "application/zip")}
    answer = client.post(address, files=sent, headers=LINES | {"accept-encoding": "gzip"})
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    assert "content-encoding" not in answer.headers, "gzip would hold lines back"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_api_tells_each_image_and_then_the_result(
    client: TestClient, boats: Dataset, png: Png
) -> None:
    files = {"a.png": png(1), "bad.png": b"<svg>", "b.png": png(2), "b.txt": b"a boat"}
    *told, result = send(client, f"/api/v1/datasets/{boats.key}/images", archive(files))
    assert [(one["done"], one["total"]) for one in told] == [(1, 3), (2, 3), (3, 3)]
    assert [one["name"] for one in told] == ["a.png", "bad.png", "b.png"]
    assert [image["caption"] for image in result["accepted"]] == ["", "a boat"]
    assert [one["filename"] for one in result["rejected"]] == ["bad.png"]


def test_a_page_gets_its_fragment_in_the_last_line(
    client: TestClient, boats: Dataset, png: Png
) -> None:
    packed = archive({f"{number}.png": png(number) for number in range(3)})
    last = send(client, "/datasets/boats/images", packed)[-1]
    assert last["html"].count("data-tile") >= 3
    assert "data-more-added" not in last["html"]
    assert last["html"].count("data-taken") == 3


def test_a_problem_is_told_in_the_last_line(
    client: TestClient, boats: Dataset, png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: object, **__: object) -> UploadOutcome:
        raise StorageFullError("The disk is full.")

    monkeypatch.setattr(uploads, "receive", fill_the_disk)
    (told,) = send(client, f"/api/v1/datasets/{boats.key}/images", archive({"a.png": png(1)}))
    assert told == {"status": 507, "detail": "The disk is full."}


def test_who_leaves_ends_the_upload() -> None:
    ended = threading.Event()

    def receive(on_image: progress.OnImage) -> UploadOutcome:
        try:
            for number in itertools.count(1):
                on_image(UploadProgress(number, 5, "a.png"))
        except uploads.UploadCanceled:
            ended.set()
        return UploadOutcome(is_canceled=True)

    lines = progress.lines("/", receive, lambda outcome: {})
    assert json.loads(next(lines))["done"] == 1
    lines.close()
    assert ended.wait(timeout=30)
