"""The bench of common nouns: its lists, its scores, and that it draws what is missing alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import nouns
from bench.nouns import Noun, read_answers, read_nouns, table
from worker.core import starter
from worker.core.eyes.interface import Embeddings, unit_length

COCO, DOLCH = 80, 95


def test_the_lists_are_whole_and_each_noun_is_there_once() -> None:
    every = read_nouns()
    assert sum("coco" in noun.lists for noun in every) == COCO
    assert sum("dolch" in noun.lists for noun in every) == DOLCH
    assert len({noun.noun for noun in every}) == len(every) < COCO + DOLCH
    for path in nouns.LISTS.glob("*.txt"):
        assert path.read_text().startswith("# "), "a list names its source"


def test_nouns_without_a_drawing_are_listed_and_not_drawn() -> None:
    by_name = {noun.noun: noun for noun in read_nouns()}
    assert (by_name["hair drier"].subject, by_name["hair drier"].number) == (None, None)
    assert by_name["tree"].subject == "deciduous tree"
    drawn = [noun for noun in by_name.values() if noun.subject]
    assert sorted(noun.number or 0 for noun in drawn) == list(range(1, len(drawn) + 1))
    assert [noun.number for noun in drawn] != sorted(noun.number or 0 for noun in drawn)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("tree", True),
        ("Deciduous Tree?", True),
        ("palm tree", False),
        ("", False),
        ("broccoli", False),
    ],
)
def test_any_name_that_the_artwork_has_for_the_subject_counts(answer: str, counts: bool) -> None:
    assert Noun("tree", ["coco"], "deciduous tree").is_named(answer) is counts


def test_the_answers_of_a_reader_are_counted_by_list(tmp_path: Path) -> None:
    (tmp_path / "reader.txt").write_text("1. tree\n\n3 cat ?\n2: nothing\n")
    answers = read_answers(tmp_path / "reader.txt")
    assert answers == {1: "tree", 3: "cat ?", 2: "nothing"}
    rows = [
        Noun("tree", ["coco", "dolch"], "deciduous tree", 1, [answers[1]]),
        Noun("dog", ["coco"], "dog", 2, [answers[2]]),
        Noun("cat", ["coco"], "cat", 3, [answers[3]]),
        Noun("hair drier", ["coco"], None),
    ]
    lines = table(rows, 1)
    assert lines[2:] == ["| COCO | 4 | 3 | 2 (1) |", "| Dolch | 1 | 1 | 1 (1) |", lines[4]]
    assert lines[4] == "| together | 4 | 3 | 2 (1) |"
    (tmp_path / "reader.txt").write_text("a cat")
    with pytest.raises(SystemExit, match="does not begin with a number"):
        read_answers(tmp_path / "reader.txt")


class ColorEyes:
    """Eyes that see the mean color, and know a name for two of them."""

    title, dimensions, scale, names = "color eyes", 3, 20.0, ("castle", "rocket")

    def embed_images(self, images: Sequence[Image.Image]) -> Embeddings:
        pixels = [np.asarray(image.resize((1, 1)), dtype=float)[0, 0] for image in images]
        return unit_length(np.stack(pixels))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        points = {"castle": (1.0, 0.0, 0.0), "rocket": (0.0, 0.0, 1.0)}
        return unit_length(np.array([points[text] for text in texts]))

    def knows(self, texts: Sequence[str]) -> list[bool]:
        return [text in self.names for text in texts]


def test_what_the_eyes_see_is_counted_first_and_within_five() -> None:
    red, blue = Image.new("RGB", (8, 8), (200, 0, 9)), Image.new("RGB", (8, 8), (9, 0, 200))
    rows = [Noun("castle", ["coco"], "castle", 1), Noun("rocket", ["dolch"], "rocket", 2)]
    nouns.look_at(rows, [red, red], ColorEyes(), [])
    assert [row.seen[0][0] for row in rows] == ["castle", "castle"]
    assert (rows[1].is_seen(1), rows[1].is_seen(5)) == (False, True)
    assert table(rows, 0)[-1] == "| together | 2 | 2 | 1 (2) |"
    nouns.look_at(rows, [red, blue], ColorEyes(), ["rocket", "castle"])
    assert table(rows, 0)[-1] == "| together | 2 | 2 | 2 (2) |"


def test_it_draws_what_is_missing_and_writes_sheets_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [Noun("castle", ["coco"], "castle", 2), Noun("rocket", ["coco"], "rocket", 1)]
    monkeypatch.setattr(nouns, "read_nouns", lambda: [*some, Noun("zorblax", ["dolch"], None)])
    monkeypatch.setattr(nouns, "STEPS", 2)
    (tmp_path / "reader.txt").write_text("1 rocket\n2 house")
    nouns.main(["--out", str(tmp_path), "--reader", str(tmp_path / "reader.txt")])
    printed = capsys.readouterr()
    assert "| COCO | 2 | 2 | 1 (1) |" in printed.out
    assert "castle (house)" in printed.out
    assert "without a drawing: zorblax" in printed.out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [noun["read"] for noun in figures["nouns"]] == [["house"], ["rocket"], []]
    for name in ("sheet.webp", "sheet-numbered.webp"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 12 * nouns.CELL
    (drawings,) = tmp_path.glob("drawings-*")
    assert figures["base"] == drawings.name.removeprefix("drawings-")
    (drawings / "castle.png").unlink()
    made = (drawings / "rocket.png").stat().st_mtime_ns
    for noun in some:
        noun.read.clear()
    monkeypatch.setattr(nouns, "open_eyes", lambda *_, **__: ColorEyes())
    nouns.main(["--out", str(tmp_path), "--base", str(starter.PATH), "--eyes", "embedded"])
    printed = capsys.readouterr()
    assert "1 of 1: castle" in printed.err
    assert "named by the eyes (within 5)" in printed.out
    assert (drawings / "rocket.png").stat().st_mtime_ns == made
