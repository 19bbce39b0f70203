from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from worker.core.eyes import __main__ as command
from worker.core.eyes.embedded import EmbeddedEyes


@pytest.fixture(autouse=True)
def _random_eyes(random_eyes: EmbeddedEyes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_eyes", lambda source: random_eyes)


@pytest.fixture
def paths(images: list[Image.Image], tmp_path: Path) -> list[str]:
    for number, image in enumerate(images[:2]):
        image.save(tmp_path / f"{number}.png")
    return [str(tmp_path / "0.png"), str(tmp_path / "1.png")]


def test_it_names_images(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["name", "--top", "2", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == paths
    assert all(line.count("%") == 2 for line in lines)


def test_it_names_among_candidates(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["name", "--among", "cat, apple,", paths[0]]) == 0
    assert {"cat", "apple"} < set(capsys.readouterr().out.split())


def test_it_compares_with_a_text_and_with_an_image(
    paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["compare", "a house", *paths]) == 0
    assert command.main(["compare", paths[0], *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2] == f"{paths[0]}: 1.000"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["name", "gone.png"], "gone.png does not exist"),
        (["name", __file__], "is no image that can be read"),
        (["compare", "lighthouse", "0.png"], "“lighthouse”"),
        (["compare", " ", "0.png"], "Text 1 of 1 is empty"),
        (["name", "--among", " , ", "0.png"], "no candidates"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    message: str,
    paths: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(Path(paths[0]).parent)
    assert command.main(words) == 1
    assert message in capsys.readouterr().err
