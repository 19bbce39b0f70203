"""A damaged file is never sent: downloads, originals and images answer with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.cli import doctor
from app.cli.main import main
from app.registry.adapters import service as adapters
from app.registry.blobs.check import StoreCheck
from app.registry.state import AppState
from app.registry.storage.store import BlobDamaged
from app.registry.tables.blobs import FileProblem, Thumbnail, ThumbnailSize
from app.registry.tables.jobs import IoJob
from tests.app.blobs.conftest import Filled, fill
from tests.images import make_png

DOWNLOAD = "/api/v1/adapters/1/download"
ORIGINAL = "/api/v1/adapters/1/original"


@pytest.fixture
def served(state: AppState) -> Filled:
    """The registry behind `client`, filled."""
    return fill(Filled(state.database, state.store))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker writes downloads here."""
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)


def test_a_damaged_original_is_not_sent(client: TestClient, served: Filled) -> None:
    assert client.get(ORIGINAL).content == b"original"
    served.damage("original")
    answer = client.get(ORIGINAL)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:brushwork:problem:blob_damaged"
    assert answer.json()["detail"] == (
        "The file with the original file of version 1 of “Ink” is damaged. Restore it from a "
        "backup, import or train the adapter again, or delete it."
    )
    assert served.problems() == {"original": FileProblem.DAMAGED}


def test_a_damaged_download_is_not_sent_but_written_again(
    client: TestClient, served: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.database.write() as session:  # as if it had been proved with these metadata
        (file,) = adapters.version_files(session, 1)
        file.proof = {"passed": True}
        monkeypatch.setattr(adapters, "facts_sha256", lambda _: file.facts_sha256)
        session.add(file)
    assert client.get(DOWNLOAD).content == b"download"
    served.damage("download")
    assert client.get(DOWNLOAD).status_code == 503
    assert served.problems() == {"download": FileProblem.DAMAGED}
    with served.database.read() as session:
        order = adapters.newest_order(session, 1)
        assert order is not None
        assert order.status == "queued"
    fail(served, order.key)
    answer = client.get(DOWNLOAD)
    assert answer.status_code == 503  # ordered once more
    with served.database.read() as session:
        again = adapters.newest_order(session, 1)
        assert again is not None
        assert again.key != order.key


def fail(served: Filled, key: int) -> None:
    with served.database.write() as session:
        job = session.get_one(IoJob, key)
        job.status, job.error_code, job.error = "failed", BlobDamaged.code, "The weights are gone."
        session.add(job)


def test_an_image_that_is_damaged_is_no_image(client: TestClient, served: Filled) -> None:
    sha256 = served.store.put_bytes(make_png(7)).sha256
    assert client.get(f"/media/{sha256}").status_code == 200
    served.store._blob_path(sha256).write_bytes(make_png(8))  # type: ignore[attr-defined]
    for _ in range(2):
        answer = client.get(f"/media/{sha256}")
        assert answer.status_code == 500
        assert "damaged" in answer.json()["detail"]
    served.store.put_bytes(make_png(7))
    assert client.get(f"/media/{sha256}").status_code == 200


def test_an_image_is_shown_itself_where_its_thumbnail_is_damaged(
    client: TestClient, served: Filled
) -> None:
    image, small = make_png(7), make_png(8)
    sha256, small_sha256 = (served.store.put_bytes(data).sha256 for data in (image, small))
    with served.database.write() as session:
        session.add(Thumbnail(sha256=sha256, small_sha256=small_sha256))
    address = f"/media/{sha256}/{ThumbnailSize.SMALL}"
    assert client.get(address).content == small
    served.store._blob_path(small_sha256).write_bytes(image)  # type: ignore[attr-defined]
    assert client.get(address).content == image


def test_a_hash_that_nothing_needs_leaves_no_trace(client: TestClient, served: Filled) -> None:
    assert client.get(f"/media/{'0' * 64}").status_code == 404
    assert served.problems() == {}


def test_a_missing_original_is_said_to_be_missing(client: TestClient, served: Filled) -> None:
    served.lose("original")
    assert client.get(ORIGINAL).status_code == 404


def test_uploading_an_image_again_mends_it(client: TestClient, state: AppState) -> None:
    client.post("/api/v1/datasets", json={"name": "Toys"})
    upload = {"files": ("fox.png", make_png(3), "image/png")}
    client.post("/api/v1/datasets/1/images", files=upload)
    (image,) = client.get("/api/v1/datasets/1/images").json()
    address = image["url"]
    sha256 = address.removeprefix("/media/")
    path: Path = state.store._blob_path(sha256)  # type: ignore[attr-defined]
    path.write_bytes(b"damaged")
    answer = client.get(address)
    assert answer.status_code == 500
    assert "the image “fox.png” of the dataset “Toys” is damaged" in answer.json()["detail"]
    client.post("/api/v1/datasets/1/images", files=upload)
    assert client.get(address).status_code == 200
    assert Filled(state.database, state.store).problems() == {}


def test_doctor_and_verify_name_what_is_damaged(
    client: TestClient,
    served: Filled,
    state: AppState,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"files": doctor.check_files})
    folder = ["--data-dir", str(state.settings.data_dir)]
    assert main(["doctor", *folder]) == 0
    served.damage("weights")
    assert main(["verify", *folder]) == 1
    assert main(["doctor", *folder]) == 1
    shown = capsys.readouterr().out
    assert "FAIL files" in shown
    assert "1 file is damaged. The file with the weights of version 1 of “Ink” is damaged" in shown
    served.put("weights")
    assert main(["verify", *folder]) == 0
    assert main(["doctor", *folder]) == 0


def test_pages_name_the_damaged_files_of_what_they_show(client: TestClient, served: Filled) -> None:
    pages = {
        "/adapters/ink": ("weights", "the weights of version 1 of “Ink” is damaged"),
        "/datasets/toys": ("image", "the image “fox.png” of the dataset “Toys” is damaged"),
        "/runs/1": ("state", "the checkpoint at step 4 of the run “Foxes” is damaged"),
        "/renders/1": ("render", "image 1 of the render 1 is damaged"),
    }
    for address, (words, sentence) in pages.items():
        assert "is damaged" not in client.get(address).text
        served.damage(words)
        check = StoreCheck(served.database, served.store)
        check.read([served.blobs[words]])
        assert sentence in client.get(address).text
    shown = client.get("/system").text
    assert "4 files are damaged. Nothing damaged is used or sent." in shown
    for _, sentence in pages.values():
        assert sentence in shown
