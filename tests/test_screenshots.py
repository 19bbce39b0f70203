"""The images of the README and the docs: there, small, WebP, in both themes."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from docs.screenshots import camera, examples
from docs.screenshots.camera import MAX_BYTES, THEMES, ImageTooLarge
from docs.screenshots.overview import spread
from tests.images import make_png
from worker.core.starter.examples import EXAMPLES, Example
from worker.core.starter.sheet import CELL
from worker.core.training.presets import Preset

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


def test_the_sheets_of_the_examples_are_small() -> None:
    for path in examples.SHEETS.glob("*"):
        assert path.stem in EXAMPLES
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as sheet:
            assert sheet.width > examples.COLUMNS * CELL


def test_a_sheet_has_a_row_for_the_base_and_one_for_each_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def demo(example: Example, preset: Preset, out: Path) -> Path:
        asked.append((example.key, preset))
        out.mkdir(parents=True)
        for number in range(1, examples.COLUMNS + 1):
            for weight in (0.0, 1.0):
                (out / f"weight-{weight}-{number}.png").write_bytes(make_png(number))
        return out

    asked: list[tuple[str, Preset]] = []
    monkeypatch.setattr(examples, "run_demo", demo)
    examples.main(["--style", "linocut", "--preset", "quick", "--out", str(tmp_path)])
    examples.main(["--out", str(tmp_path / "both")])
    assert asked[:1] == [("linocut", Preset.QUICK)]
    assert asked[1:] == [(key, preset) for key in EXAMPLES for preset in examples.PRESETS]
    with (
        Image.open(tmp_path / "linocut.webp") as one,
        Image.open(tmp_path / "both" / "linocut.webp") as two,
    ):
        assert CELL < two.height - one.height < 1.2 * CELL


def test_a_demo_without_results_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples.subprocess, "run", lambda *_, **__: Namespace(returncode=1))
    with pytest.raises(RuntimeError, match=r"--style linocut .* ended with 1 and without results"):
        examples.run_demo(EXAMPLES["linocut"], Preset.QUICK, tmp_path)
