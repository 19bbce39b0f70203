"""The example styles: what ships, how it is drawn, and that the base can see it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPTokenizer

from worker.core.starter import PATH
from worker.core.starter.build.artwork import ArtworkSet, ArtworkSubject
from worker.core.starter.examples import (
    CHALKBOARD,
    EXAMPLES,
    LINOCUT,
    SUBJECTS,
    Example,
    chalk,
    drawings,
    linocut,
)
from worker.core.starter.examples.__main__ import main
from worker.core.starter.examples.drawings import (
    DRAW,
    draw_example,
    draw_subject,
    meant_drawing,
)
from worker.core.starter.subjects import known_subjects

MIB = 1 << 20
GROUNDS = {CHALKBOARD.key: chalk.BOARD, LINOCUT.key: linocut.PAPER}
each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda one: one.key)


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def captions(example: Example) -> dict[str, str]:
    lines = (example.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["file_name"]: entry["text"] for entry in map(json.loads, lines)}


def square(color: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">'
        f'<rect width="10" height="10" fill="{color}"/></svg>'
    )


def test_naming_the_examples_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, worker.core.starter.examples;"
        "sys.exit(len({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each_example
def test_every_image_is_captioned_and_of_512_pixels(example: Example) -> None:
    named = captions(example)
    assert set(named) == {path.name for path in example.folder.glob("*.webp")}
    assert len(named) == 24
    for name in named:
        with Image.open(example.folder / name) as picture:
            assert picture.size == (512, 512)


@each_example
def test_an_example_is_small_enough_to_come_with_the_project(example: Example) -> None:
    assert sum(path.stat().st_size for path in example.folder.iterdir()) < 1.5 * MIB


@each_example
def test_captions_use_the_trigger_word_and_words_the_base_knows(example: Example) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(PATH / "tokenizer")
    for text in captions(example).values():
        name, style = text.split(", ")
        assert style == f"{example.trigger} style"
        assert len(tokenizer.tokenize(name)) == len(name.split()), name


@each_example
def test_prompts_to_try_name_subjects_that_no_image_shows(example: Example) -> None:
    asked = {prompt.split(",")[0] for prompt in example.prompts}
    assert len(asked) == len(SUBJECTS) == 7
    assert asked.isdisjoint(text.split(",")[0] for text in captions(example).values())
    assert all(prompt.endswith(f", {example.trigger} style") for prompt in example.prompts)


@each_example
def test_images_that_introduce_an_example_are_there(example: Example) -> None:
    assert all((example.folder / f"{name}.webp").is_file() for name in example.shown)


@each_example
def test_the_same_drawing_gives_the_same_pixels(
    example: Example, subjects: list[ArtworkSubject]
) -> None:
    draw, svg = DRAW[example.key], subjects[0].drawings[ArtworkSet.NOTO]
    assert draw(svg, seed=7).tobytes() == draw(svg, seed=7).tobytes()
    assert draw(svg, seed=7).tobytes() != draw(svg, seed=8).tobytes()


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
