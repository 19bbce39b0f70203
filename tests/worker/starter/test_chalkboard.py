import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.core.starter import EXAMPLE, chalkboard
from worker.core.starter.build.artwork import ArtworkSet, ArtworkSubject
from worker.core.starter.chalkboard import caption_for, draw_example, draw_in_chalk


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def test_the_same_drawing_gives_the_same_pixels(subjects: list[ArtworkSubject]) -> None:
    svg = subjects[0].drawings[ArtworkSet.NOTO]
    assert draw_in_chalk(svg, seed=7).tobytes() == draw_in_chalk(svg, seed=7).tobytes()
    assert draw_in_chalk(svg, seed=7).tobytes() != draw_in_chalk(svg, seed=8).tobytes()


def test_the_shipped_example_is_what_the_script_draws(
    subjects: list[ArtworkSubject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chalkboard, "EXAMPLE_SUBJECTS", ("fox", "sailboat"))
    draw_example(subjects, tmp_path)
    for name in ("fox.webp", "sailboat.webp"):
        drawn, shipped = Image.open(tmp_path / name), Image.open(EXAMPLE / name)
        # Encoders differ a little between versions of Pillow; the drawing must not.
        assert np.abs(as_array(drawn) - as_array(shipped)).mean() < 2
    lines = (tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"file_name": "fox.webp", "text": caption_for("fox")}


def test_outlines_are_still_bright_at_the_size_the_base_works_at(
    held_out_chalk: list[Image.Image],
) -> None:
    for picture in held_out_chalk:
        small = as_array(picture.resize((64, 64), Image.Resampling.BOX).convert("L"))
        bright = (small > 150).mean()
        assert 0.03 < bright < 0.4
        assert np.median(small[:3]) < 75


def test_black_is_left_as_bare_board() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">'
        '<rect width="10" height="10" fill="{}"/></svg>'
    )
    black = as_array(draw_in_chalk(svg.format("#000"), seed=1))[200:300, 200:300].mean()
    white = as_array(draw_in_chalk(svg.format("#fff"), seed=1))[200:300, 200:300].mean()
    assert abs(black - np.mean(chalkboard.BOARD)) < 6
    assert white > black + 25
