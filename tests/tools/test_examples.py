"""The example styles are drawn so that the base can see them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.examples import chalk, drawings, linocut
from tools.examples.__main__ import main
from tools.examples.drawings import DRAW, draw_example, draw_subject, meant_drawing
from tools.starter.artwork import ArtworkSet, ArtworkSubject
from worker.core.starter.examples import CHALKBOARD, EXAMPLES, LINOCUT, SUBJECTS, Example
from worker.core.starter.subjects import known_subjects

GROUNDS = {CHALKBOARD.key: chalk.BOARD, LINOCUT.key: linocut.PAPER}
each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda one: one.key)


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def square(color: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">'
        f'<rect width="10" height="10" fill="{color}"/></svg>'
    )


@each_example
def test_the_same_drawing_gives_the_same_pixels(
    example: Example, subjects: list[ArtworkSubject]
) -> None:
    draw, svg = DRAW[example.key], subjects[0].drawings[ArtworkSet.NOTO]
    first, again, other = (draw(svg, seed=seed).tobytes() for seed in (7, 7, 8))
    assert first == again != other


def test_a_subject_is_drawn_from_the_set_that_its_name_means(
    subjects: list[ArtworkSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an adapter learns other shapes with the style."""
    castle = next(subject for subject in subjects if subject.name == "castle")
    known = next(known for known in known_subjects() if known.name == "castle")
    assert meant_drawing(castle) == castle.drawings[ArtworkSet(known.drawn_by)]
    unknown = replace(castle, name="quenfrabble")
    assert meant_drawing(unknown) == castle.drawings[ArtworkSet.NOTO]


@each_example
def test_the_shipped_images_are_what_the_script_draws(
    example: Example,
    subjects: list[ArtworkSubject],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawings, "DRAWN_SUBJECTS", ("fox", "sailboat"))
    draw_example(example, subjects, tmp_path)
    for name in ("fox.webp", "sailboat.webp"):
        drawn, shipped = Image.open(tmp_path / name), Image.open(example.folder / name)
        # Encoders differ a little between versions of Pillow; the drawing must not.
        assert np.abs(as_array(drawn) - as_array(shipped)).mean() < 2
    lines = (tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"file_name": "fox.webp", "text": example.caption("fox")}


def test_the_command_without_artwork_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["linocut", "--out", str(tmp_path / "out"), "--artwork", str(tmp_path)])
    assert "Run `npm pack" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["neon", "--out", str(tmp_path / "out")])
    assert "linocut" in capsys.readouterr().err


@each_example
def test_lines_and_ground_are_plain_at_the_size_the_base_works_at(
    example: Example, subjects: list[ArtworkSubject]
) -> None:
    ground = GROUNDS[example.key]
    for subject in (one for one in subjects if one.name in SUBJECTS):
        small = as_array(draw_subject(example, subject).resize((128, 128), Image.Resampling.BOX))
        assert np.abs(np.median(small[:4].reshape(-1, 3), axis=0) - ground).max() < 12
        light = small.mean(axis=-1)
        far = light > 150 if example == CHALKBOARD else light < 70
        assert 0.03 < far.mean() < 0.4, subject.name


def test_black_is_left_as_bare_board_in_chalk() -> None:
    black = as_array(chalk.draw_in_chalk(square("#000"), seed=1))[200:300, 200:300].mean()
    white = as_array(chalk.draw_in_chalk(square("#fff"), seed=1))[200:300, 200:300].mean()
    assert abs(black - np.mean(chalk.BOARD)) < 6
    assert white > black + 25


@pytest.mark.parametrize(
    ("color", "printed"), [("#000", linocut.BLACK), ("#fff", linocut.PAPER), ("#c9a", linocut.RED)]
)
def test_a_linocut_prints_each_tone_in_one_ink(color: str, printed: np.ndarray) -> None:
    middle = as_array(linocut.draw_as_linocut(square(color), seed=1))[200:300, 200:300]
    assert np.abs(np.median(middle.reshape(-1, 3), axis=0) - printed).max() < 25
