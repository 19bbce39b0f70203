"""Datasets as ZIP archives: what is in them, their names, and changes while they are read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import pinned, service
from app.registry.datasets.transfer.exporting import (
    Contents,
    dataset_contents,
    export_chunks,
    export_stems,
    safe_stem,
)
from app.registry.db import Database
from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.datasets import Dataset, DatasetVersion, Image, ImageCaption
from app.registry.zip_stream import StreamedFile, archive_chunks

Png = Callable[..., bytes]
NOON = datetime(2026, 1, 2, 12, 30, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("filename", "stem"),
    [
        ("fox.png", "fox"),
        ("Fox.final.JPG", "Fox.final"),
        ("no suffix", "no suffix"),
        ("v1.2", "v1.2"),
        ("a.png.webp", "a_png"),
        ("../../etc/passwd.png", "passwd"),
        ('what?<is>:"this"|*.png', "what__is___this___"),
        ("con.png", "_con"),
        ("Lpt1.old.png", "_Lpt1.old"),
        ("...hidden.png", "hidden"),
        ("dots . .png", "dots"),
        ("gnp\u202eexe.png", "gnpexe"),
        ("bell\x07\x00.png", "bell"),
        ("two\u2028lines\u3000.png", "two lines"),
        (".png", "image"),
        ("???.png", "___"),
    ],
)
def test_names_are_safe_on_every_system(filename: str, stem: str) -> None:
    assert safe_stem(filename) == stem


def test_long_names_are_cut_between_characters() -> None:
    assert safe_stem("語" * 190 + ".png") == "語" * 66


def test_names_differ_in_more_than_case() -> None:
    names = ["a.png", "A.jpg", "a-2.png", "a.webp", "b.png"]
    assert export_stems(names) == ["a", "A-2", "a-2-2", "a-3", "b"]


def test_a_file_is_read_when_it_is_its_turn() -> None:
    """An archive of any size needs the memory of a chunk."""
    read: list[str] = []

    def files() -> Any:
        for name in ("one", "two"):
            read.append(name)
            yield StreamedFile(name, NOON, 4, iter([b"ab", b"cd"]))

    chunks = archive_chunks(files())
    first = next(chunks)
    assert read == ["one"]
    data = first + b"".join(chunks)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[1].date_time == (2026, 1, 2, 12, 30, 8)
        assert archive.infolist()[1].compress_type == zipfile.ZIP_STORED


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an archive, none of which is damaged."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def foxes(client: TestClient, state: AppState, png: Png) -> Dataset:
    """Three images: two of one name, the first with all that can be said about an image."""
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Foxes", trigger_word="foxish")
    for number, name in enumerate(("fox.png", "Fox.jpg", "plain.png")):
        address = f"/api/v1/datasets/{dataset.key}/images"
        files = [("files", (name, png(number), "image/png"))]
        assert client.post(address, files=files).status_code == 200
    with state.database.write() as session:
        service.list_images(session, dataset.key)[2].filename = "pl\u2028ain.png"
        first = service.list_images(session, dataset.key)[0]
        service.caption_image(session, first.key, "a “red” fox, foxish")
        image = service.change_image(session, first.key, repeats=3, never_flip=True)
        image.set_aside, image.focus_x, image.focus_y, image.caption_share = True, 0.25, 0.5, 2
        session.add(ImageCaption(image_id=image.key, kind="tags", caption="fox, red", share=1))
    return dataset


def test_an_export_has_everything(client: TestClient, state: AppState, foxes: Dataset) -> None:
    answer = client.get(f"/api/v1/datasets/{foxes.key}/export")
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="foxes.zip"' in answer.headers["content-disposition"]
    files = unpack(answer.content)
    assert list(files) == [
        *("dataset.json", "fox.png", "fox.txt", "Fox-2.png", "pl ain.png", "metadata.jsonl")
    ]
    with state.database.read() as session:
        images = service.list_images(session, foxes.key)
    for image, name in zip(images, ("fox.png", "Fox-2.png", "pl ain.png"), strict=True):
        with state.store.open(image.clean_sha256) as blob:
            assert files[name] == blob.read()
    assert files["fox.txt"].decode() == "a “red” fox, foxish\n"
    assert json.loads(files["dataset.json"])["trigger_word"] == "foxish"
    lines = [json.loads(line) for line in files["metadata.jsonl"].decode().splitlines()]
    assert [line["file_name"] for line in lines] == ["fox.png", "Fox-2.png", "pl ain.png"]
    assert {tuple(line) for line in lines} == {tuple(lines[0])}, "as data sets need it"
    assert lines[0] == {
        "file_name": "fox.png",
        "text": "a “red” fox, foxish",
        "captions": [
            {"caption": "a “red” fox, foxish", "kind": "long", "share": 2},
            {"caption": "fox, red", "kind": "tags", "share": 1},
        ],
        "repeats": 3,
        "never_flip": True,
        "set_aside": True,
        "focus": [0.25, 0.5],
        "name": "fox.png",
        "width": images[0].width,
        "height": images[0].height,
        "sha256": images[0].sha256,
        "clean_sha256": images[0].clean_sha256,
    }
    assert lines[1]["name"] == "Fox.jpg"


def test_the_page_of_a_dataset_offers_it(client: TestClient, foxes: Dataset) -> None:
    assert 'href="/datasets/foxes/export"' in client.get("/datasets/foxes").text
    assert unpack(client.get("/datasets/foxes/export").content).keys() >= {"fox.png"}
    assert client.get("/api/v1/datasets/99/export").status_code == 404


def contents_of(database: Database, dataset: Dataset) -> Contents:
    with database.snapshot() as session:
        return dataset_contents(session, dataset.key)


def test_what_changes_during_the_download_is_not_in_it(state: AppState, foxes: Dataset) -> None:
    chunks = export_chunks(state.store, contents_of(state.database, foxes))
    data = next(chunks)
    with state.database.write() as session:
        one, two, _ = service.list_images(session, foxes.key)
        service.caption_image(session, one.key, "a wolf")
        service.delete_image(session, two.key)
    files = unpack(data + b"".join(chunks))
    assert files["fox.txt"].decode() == "a “red” fox, foxish\n"
    assert "Fox-2.png" in files


def test_captions_and_images_are_of_one_moment(database: Database, tmp_path: Path) -> None:
    """Another connection deletes a caption between the two queries of an export."""
    with database.write() as session:
        dataset = service.create_dataset(session, "Foxes")
        image = Image(
            dataset_id=dataset.key,
            **dict.fromkeys(("sha256", "clean_sha256", "thumbnail_sha256"), "0" * 64),
            filename="fox.png",
            width=8,
            height=8,
            size_bytes=1,
        )
        session.add(image)
    with database.snapshot() as session:
        before = service.list_images(session, dataset.key)
        with database.write() as writer:
            service.caption_image(writer, image.key, "a fox")
        assert service.list_images(session, dataset.key) == before
        contents = dataset_contents(session, dataset.key)
    assert contents.images[0].captions[0].caption == ""


def test_a_lost_image_is_left_out_with_what_is_known(state: AppState, foxes: Dataset) -> None:
    contents = contents_of(state.database, foxes)
    chunks = export_chunks(state.store, contents)
    data = next(chunks)
    state.store.delete(contents.images[1].clean_sha256)
    files = unpack(data + b"".join(chunks))
    assert {"fox.png", "pl ain.png"} < set(files)
    assert "Fox-2.png" not in files
    assert len(files["metadata.jsonl"].splitlines()) == 2
    left_out = json.loads(files["left-out.jsonl"])
    assert left_out["file_name"] == "Fox-2.png"
    assert left_out["reason"]


def test_a_pinned_version_stays_as_it_was(
    client: TestClient, state: AppState, foxes: Dataset
) -> None:
    with state.database.write() as session:
        version = pinned.pin_version(session, foxes)
    with state.database.write() as session:
        for image in service.list_images(session, foxes.key):
            service.delete_image(session, image.key)
    answer = client.get(f"/api/v1/dataset-versions/{version.key}/export")
    assert f"foxes-{version.key}.zip" in answer.headers["content-disposition"]
    files = unpack(answer.content)
    assert {"Fox.png", "pl ain.png"} <= set(files), "without the image that is set aside"
    page = client.get(f"/datasets/foxes/versions/{version.key}/export")
    assert unpack(page.content) == files
    assert client.get(f"/datasets/others/versions/{version.key}/export").status_code == 404
    (listed,) = client.get(f"/api/v1/datasets/{foxes.key}/versions").json()
    assert (listed["id"], listed["kept"], listed["runs"]) == (version.key, True, [])


def test_a_version_without_its_images_says_so(
    client: TestClient, state: AppState, foxes: Dataset
) -> None:
    with state.database.write() as session:
        gone = DatasetVersion(dataset_id=foxes.key, fingerprint="0", image_count=4, items=[])
        session.add(gone)
    answer = client.get(f"/api/v1/dataset-versions/{gone.key}/export")
    assert answer.status_code == 409
    assert "deleted for good" in answer.json()["detail"]
    assert client.get(f"/api/v1/datasets/{foxes.key}/versions").json()[0]["kept"] is False


def test_an_empty_dataset_is_an_archive_too(store: LocalBlobStore) -> None:
    contents = Contents("empty", "Empty", None, [], NOON)
    files = unpack(b"".join(export_chunks(store, contents)))
    assert files.keys() == {"dataset.json", "metadata.jsonl"}
    assert files["metadata.jsonl"] == b""
