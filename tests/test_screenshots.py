"""The images of the README and the docs: there, small, WebP, in both themes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from docs.screenshots import camera
from docs.screenshots.camera import MAX_BYTES, THEMES, ImageTooLarge
from docs.screenshots.overview import spread
from tests.images import make_png

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
IMAGES = sorted(FOLDER.glob("*.webp"))
NAMES = sorted({path.stem.rsplit("-", 1)[0] for path in IMAGES})
MAX_TOTAL_BYTES = 1_200_000
LINK = re.compile(r"\bimages/([\w-]+\.(?:webp|png|jpe?g|gif|svg))\b")


def test_every_image_that_a_document_shows_is_there() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for path in documents for name in LINK.findall(path.read_text())}
    assert shown - {path.name for path in IMAGES} == set()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_both_themes_in_one_size(name: str) -> None:
    sizes = set()
    for theme in THEMES:
        path = FOLDER / f"{name}-{theme}.webp"
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as image:
            assert image.format == "WEBP"
            assert 700 <= image.width <= 2000
            assert 600 <= image.height <= 2000
            sizes.add(image.size)
    assert len(sizes) == 1


def test_all_images_together_stay_small() -> None:
    assert NAMES
    assert sum(path.stat().st_size for path in IMAGES) <= MAX_TOTAL_BYTES


def test_a_spread_keeps_both_ends() -> None:
    assert spread([0, 84, 168, 252, 336, 420, 500], 4) == [0, 168, 336, 500]
    assert spread([0, 5], 4) == [0, 5]


def test_an_image_above_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "MAX_BYTES", 10)
    with pytest.raises(ImageTooLarge, match=r"a\.webp has .* bytes; 10 are allowed"):
        camera.save_webp(make_png(1), tmp_path / "a.webp")
    assert not (tmp_path / "a.webp").exists()
