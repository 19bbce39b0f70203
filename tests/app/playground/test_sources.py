"""Images that renders start from: uploaded, of a dataset or of a render."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlmodel import col, select

from app.registry.blobs import deletion as freeing
from app.registry.blobs import sweep
from app.registry.datasets import service as datasets
from app.registry.db import utcnow
from app.registry.deletion import renders as deletion
from app.registry.errors import InvalidInput
from app.registry.renders import sources
from app.registry.renders.sources import FoundSource, SourceImage, size_like
from app.registry.state import AppState
from app.registry.tables.datasets import Image as DatasetImage
from app.registry.tables.renders import Render, RenderImage, RenderSource
from tests import fake_workers
from tests.conftest import embedded_info
from tests.images import make_png

SIDE = embedded_info().resolution


def upload(client: TestClient, content: bytes, name: str = "fox.png") -> Any:
    files = {"file": (name, content, "image/png")}
    return client.post("/api/v1/renders/sources", files=files)


def draw(client: TestClient, **body: Any) -> Any:
    return client.post("/api/v1/renders", json={"prompt": "a fox", "seed": 7} | body)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def rows(state: AppState, table: type[Any]) -> list[Any]:
    with state.database.read() as session:
        return list(session.exec(select(table)))


def age(state: AppState, **ago: float) -> None:
    """Let the last use of all sources be so long ago."""
    with state.database.write() as session:
        for row in session.exec(select(RenderSource)):
            row.used_at = utcnow() - timedelta(**ago)


def clean_up(state: AppState) -> freeing.FreedSpace:
    return freeing.delete(state, deletion.delete_old_drafts)


def test_an_uploaded_image_starts_a_render_and_its_twin(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    first, again = (upload(client, make_png(1, (200, 100))) for _ in range(2))
    assert (first.status_code, first.json()) == (201, again.json())
    sha256 = first.json()["sha256"]
    assert client.get(first.json()["url"]).headers["content-type"] == "image/png"
    assert client.get(f"{first.json()['url']}/small").headers["content-type"] == "image/webp"
    body = {"source": {"sha256": sha256}, "adapters": [{"id": adapter.key}], "twin": True}
    created = draw(client, **body).json()
    for key in (created["id"], created["twin_id"]):
        render = client.get(f"/api/v1/renders/{key}").json()
        assert (render["source_sha256"], render["strength"]) == (sha256, 0.6)
        aspect = render["width"] / render["height"]
        assert 1.8 < aspect < 2.2  # that of the image
        assert abs(render["width"] * render["height"] / SIDE**2 - 1) < 0.1
    fake_workers.draw(state)
    cached = draw(client, **body | {"strength": 0.6}).json()
    assert (cached["status"], cached["id"] != created["id"]) == ("succeeded", True)
    for other in ({"strength": 0.61}, {"source": None}, {"width": SIDE}):
        assert draw(client, **body | other).json()["status"] == "queued", other
    assert [row.sha256 for row in rows(state, RenderSource)] == [sha256]


def test_an_image_of_a_render_or_dataset_is_a_source(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    first = draw(client, count=2).json()["id"]
    assert draw(client, source={"render_id": first}).status_code == 422  # it has no image yet
    fake_workers.draw(state)
    wanted = [
        ({"render_id": first, "image": 1}, rows(state, RenderImage)[1].sha256),
        ({"image_id": 2}, rows(state, DatasetImage)[1].clean_sha256),
    ]
    for source, sha256 in wanted:
        key = draw(client, source=source, strength=0).json()["id"]
        render = client.get(f"/api/v1/renders/{key}").json()
        assert (render["source_sha256"], render["strength"]) == (sha256, 0)
        # the render's own source is one as well
        assert draw(client, source={"sha256": sha256}).status_code == 202


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"source": {}}, "source", "Name one image"),
        ({"source": {"render_id": 1, "sha256": "a" * 64}}, "source", "Name one image"),
        ({"source": {"render_id": 9_999}}, "source", "is gone. Choose it again."),
        ({"source": {"image_id": 9_999}}, "source", "is gone. Choose it again."),
        ({"source": {"sha256": "a" * 64}}, "source", "is gone. Choose it again."),
        ({"source": {"sha256": "../x"}}, "source.sha256", ""),
        ({"source": {"render_id": 10**5_00}}, "source.render_id", ""),
        ({"strength": 0.5}, "strength", "A strength needs an image to start from."),
        ({"strength": 2, "source": True}, "strength", "1 at most"),
        ({"strength": -0.1, "source": True}, "strength", "At least 0."),
        ({"strength": "NaN", "source": True}, "strength", ""),
        ({"width": 13, "height": 7, "source": True}, "width", "multiple of 8"),
    ],
)
def test_what_is_no_source_or_strength_is_named(
    client: TestClient, changes: dict[str, Any], field: str, sentence: str
) -> None:
    if changes.get("source") is True:
        changes = changes | {"source": {"sha256": upload(client, make_png()).json()["sha256"]}}
    refused = draw(client, **changes)
    assert refused.status_code == 422, refused.text
    assert field in {error["field"] for error in refused.json()["errors"]}, refused.text
    assert sentence in refused.json()["detail"]


def test_any_image_is_taken_as_it_is_seen(client: TestClient, state: AppState) -> None:
    sideways = Image.new("RGB", (100, 60), "red")
    exif = sideways.getexif()
    exif[0x0112] = 6
    texts = PngInfo()
    texts.add_text("parameters", "x" * 900_000)
    for content, size in (
        (encoded(sideways, "JPEG", exif=exif.tobytes()), (60, 100)),
        (encoded(Image.new("CMYK", (80, 64)), "JPEG"), (80, 64)),
        (encoded(Image.new("I;16", (80, 64))), (80, 64)),
        (encoded(Image.new("RGBA", (80, 64), (1, 2, 3, 4)), "WEBP"), (80, 64)),
        (encoded(Image.new("RGB", (80, 64)), pnginfo=texts), (80, 64)),
    ):
        found = upload(client, content, "x" * 3_000).json()
        assert (found["width"], found["height"]) == size
        with state.store.open(found["sha256"]) as file:
            assert Image.open(file).info == {}


def test_a_file_that_cannot_be_used_says_why(client: TestClient, state: AppState) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    animated = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    texts = PngInfo()
    texts.add_text("parameters", "x" * 5_000_000, zip=True)
    for content, reason in (
        (b"", "The file is empty"),
        (b"no image", "This is not an image"),
        (b"PK\3\4 dataset.zip", "This is a zip archive"),
        (make_png()[:90], "truncated"),
        (animated, "This is an animated image."),
        (encoded(Image.new("RGB", (13, 7))), "it needs at least 8"),
        (encoded(Image.new("1", (9_000, 9_000))), "at most 50 megapixels"),
        (encoded(Image.new("RGB", (64, 64)), pnginfo=texts), "damaged"),
    ):
        refused = upload(client, content, "dataset.zip")
        assert refused.status_code == 422, reason
        assert reason in refused.json()["detail"], refused.text
    assert client.post("/api/v1/renders/sources").status_code == 422
    assert rows(state, RenderSource) == []


def test_a_source_that_no_render_uses_is_deleted_hours_later(
    client: TestClient, state: AppState
) -> None:
    unused, used = (upload(client, make_png(number)).json()["sha256"] for number in (1, 2))
    draw(client, source={"sha256": used})
    age(state, hours=5)
    with state.database.read() as session:
        assert not deletion.is_due(session)
    age(state, hours=7)
    job = deletion.order_if_due(state.database)
    assert job is not None
    freed = clean_up(state)
    assert freed.goes == ("1 unused image to start from",)
    assert [state.store.exists(sha256) for sha256 in (unused, used)] == [False, True]
    assert client.get(f"/media/{unused}/small").status_code == 404
    assert [row.sha256 for row in rows(state, RenderSource)] == [used]
    assert "is gone" in draw(client, source={"sha256": unused}).json()["detail"]


def test_a_source_goes_with_its_last_render(client: TestClient, state: AppState) -> None:
    sha256 = upload(client, make_png(1)).json()["sha256"]
    keys = [draw(client, source={"sha256": sha256}, seed=seed).json()["id"] for seed in (1, 2)]
    fake_workers.draw(state)
    later = utcnow() + timedelta(days=3)
    assert sweep.sweep(state.database, state.store, adopt=True, now=later).files == 0
    age(state, hours=7)

    def delete(key: int) -> freeing.FreedSpace:
        return freeing.delete(state, lambda session: deletion.delete_render(session, key))

    assert delete(keys[0]).stays == (
        "1 file stays: a render starts from it, or did in the last hours.",
    )
    assert state.store.exists(sha256)
    assert delete(keys[1]).stays == ()
    assert not state.store.exists(sha256)
    assert rows(state, RenderSource) == []
    # just used: the form of somebody may still name it
    key = draw(client, source={"sha256": upload(client, make_png(1)).json()["sha256"]}).json()["id"]
    fake_workers.draw(state)
    assert "in the last hours" in delete(key).stays[0]


def test_a_deleted_dataset_leaves_what_a_render_starts_from(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    image = rows(state, DatasetImage)[0]
    draw(client, source={"image_id": image.key})
    with state.database.write() as session:
        datasets.delete_dataset(session, dataset.key)
    assert "is gone" in draw(client, source={"image_id": image.key}).json()["detail"]
    assert draw(client, source={"sha256": image.clean_sha256}).status_code == 202
    with state.database.write() as session:
        for row in session.exec(select(Render).where(col(Render.source_sha256).is_not(None))):
            row.deleted_at = utcnow()
    assert draw(client, source={"render_id": 1}).status_code == 422


def test_sides_that_are_left_out_have_the_aspect_of_the_source() -> None:
    def sizes(width: int, height: int, *asked: Any) -> tuple[Any, Any]:
        return size_like(FoundSource("", width, height, ""), 512, *(asked or (None, None)))

    assert sizes(100, 100) == (512, 512)
    assert sizes(4_000, 3_000) == (592, 440)
    assert sizes(16_000, 1_000) == (2_048, 128)
    assert sizes(3, 2, None, 200) == (304, 200)
    assert sizes(3, 2, "300", None) == ("300", 200)
    assert sizes(3, 2, "13", "7") == ("13", "7")
    assert sizes(3, 2, "9" * 5_000, None)[1] == sources.MAX_SIDE
    assert sizes(3, 2, "many", None) == ("many", 344)


def test_a_source_is_named_in_an_address() -> None:
    assert SourceImage.parse("render:12:3") == SourceImage(render_id=12, image=3)
    assert SourceImage.parse("render:12") == SourceImage(render_id=12)
    assert SourceImage.parse("dataset:5") == SourceImage(image_id=5)
    assert SourceImage.parse("a" * 64) == SourceImage(sha256="a" * 64)
    wrong = ("render:0", "render:1:99", "render:" + "9" * 19, "dataset:x", "A" * 64, "x" * 900_000)
    for text in (*wrong, "", "render:١"):
        with pytest.raises(InvalidInput, match="is gone"):
            SourceImage.parse(text)
