"""The thumbnails of real images: their sizes, formats and bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from app.registry.blobs import make_thumbnails as make
from app.registry.blobs.make_thumbnails import make_thumbnails, remake_thumbnails
from app.registry.images import decoding
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.blobs import ThumbnailSize


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def drawing(size: tuple[int, int]) -> Image.Image:
    """An image with gradients and noise, as generated images have."""
    noise = Image.effect_noise(size, 20).convert("RGB")
    return Image.blend(noise, Image.radial_gradient("L").resize(size).convert("RGB"), 0.5)


def opened(store: LocalBlobStore, sha256: str | None) -> Image.Image:
    assert sha256 is not None
    with store.open(sha256) as file:
        return Image.open(io.BytesIO(file.read()))


def test_the_decoder_of_uploads_makes_the_same_sizes() -> None:
    assert ThumbnailSize.LARGE.side == decoding.THUMBNAIL
    assert ThumbnailSize.SMALL.side == decoding.SMALL


@pytest.mark.parametrize(
    ("size", "small", "large"),
    [
        ((1024, 1024), (256, 256), (512, 512)),
        ((512, 768), (170, 256), (341, 512)),
        ((1200, 300), (256, 64), (512, 128)),
        ((300, 200), (256, 171), (300, 200)),
    ],
)
def test_both_sizes_are_webp_of_fewer_bytes(
    store: LocalBlobStore,
    size: tuple[int, int],
    small: tuple[int, int],
    large: tuple[int, int],
) -> None:
    image = drawing(size)
    blob = store.put_bytes(encoded(image))
    made = make_thumbnails(store, blob, image)
    assert image.size == size  # the image of the caller stays as it is
    found = [opened(store, made.shown(which)) for which in ThumbnailSize]
    assert [(one.format, one.size) for one in found] == [("WEBP", small), ("WEBP", large)]
    assert store.stat(made.shown(ThumbnailSize.SMALL)).size < store.stat(blob.sha256).size / 4
    assert remake_thumbnails(store, blob.sha256) == made


def test_a_small_image_is_neither_enlarged_nor_changed(store: LocalBlobStore) -> None:
    image = drawing((64, 64))
    blob = store.put_bytes(encoded(image))
    made = make_thumbnails(store, blob, image)
    assert made.small_sha256 == made.large_sha256
    shown = opened(store, made.small_sha256)
    assert shown.size == (64, 64)
    assert shown.convert("RGB").tobytes() == image.tobytes()


def test_an_image_is_shown_itself_where_no_thumbnail_is_smaller(store: LocalBlobStore) -> None:
    webp = store.put_bytes(encoded(drawing((512, 400)), "WEBP", quality=80))
    made = remake_thumbnails(store, webp.sha256)
    assert made.large_sha256 is None  # a WebP that fits
    assert made.shown(ThumbnailSize.LARGE) == webp.sha256
    assert opened(store, made.small_sha256).size == (256, 200)
    rough = store.put_bytes(encoded(drawing((100, 80)), "JPEG", quality=60))
    made = remake_thumbnails(store, rough.sha256)
    assert (made.small_sha256, made.large_sha256) == (None, None)  # lossless would be larger


def test_what_is_transparent_is_shown_on_white(store: LocalBlobStore) -> None:
    clear = Image.new("RGBA", (600, 600), (200, 0, 0, 0))
    clear.paste((0, 0, 200, 255), (0, 0, 300, 600))
    made = remake_thumbnails(store, store.put_bytes(encoded(clear, compress_level=0)).sha256)
    for size in ThumbnailSize:
        shown = opened(store, made.shown(size)).convert("RGB")
        side = shown.width
        right, left = shown.getpixel((side - 9, side // 2)), shown.getpixel((9, side // 2))
        assert isinstance(right, tuple)
        assert isinstance(left, tuple)
        assert min(right) > 250
        assert left[2] > 150 > left[0]


def test_a_damaged_or_missing_image_is_remembered(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoded(drawing((300, 300)))
    monkeypatch.setattr(make, "MAX_PIXELS", 100_000)
    too_large = encoded(drawing((400, 400)))
    for content in (whole[:2000], b"no image", encoded(drawing((9, 9)), "GIF"), too_large):
        blob = store.put_bytes(content)
        made = remake_thumbnails(store, blob.sha256)
        assert (made.sha256, made.small_sha256, made.large_sha256) == (blob.sha256, None, None)
    missing = "0" * 64
    assert remake_thumbnails(store, missing).shown(ThumbnailSize.SMALL) == missing
    with pytest.raises(FileNotFoundError):  # the trainer deleted the file: not the image's fault
        make_thumbnails(store, blob, Path("gone.png"))
