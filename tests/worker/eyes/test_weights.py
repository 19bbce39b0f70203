"""The weights that ship, on a few images; all figures are in the README beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.worker.starter.conftest import FIXTURES
from worker.core import starter
from worker.core.eyes import Eyes, UnknownText, name_images, open_eyes, similarity
from worker.core.eyes.embedded import WEIGHTS
from worker.core.starter.build.artwork import ArtworkSubject, read_subjects, render_drawing

SIDE = 128
EXAMPLES = sorted(Path(starter.__file__).parent.rglob("metadata.jsonl"))


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return open_eyes(device="cpu")


@pytest.fixture(scope="module")
def subjects() -> list[ArtworkSubject]:
    return read_subjects(FIXTURES / "subjects.json")


@pytest.fixture(scope="module")
def drawings(subjects: list[ArtworkSubject]) -> list[list[Image.Image]]:
    """The drawings of each hand, in the order of the subjects; transparent around."""
    hands = list(subjects[0].drawings)
    return [
        [render_drawing(s.drawings[hand], SIDE, margin=0.06) for s in subjects] for hand in hands
    ]


def test_they_are_small_and_know_many_names(eyes: Eyes) -> None:
    assert WEIGHTS.stat().st_size <= 12_000_000
    assert len(eyes.names) > 1100
    assert len(set(eyes.names)) == len(eyes.names)


def test_they_name_drawings_among_all_names(
    eyes: Eyes, subjects: list[ArtworkSubject], drawings: list[list[Image.Image]]
) -> None:
    for hand in drawings:
        named = name_images(eyes, hand)
        right = [g[0].name == s.name for g, s in zip(named, subjects, strict=True)]
        assert np.mean(right) > 0.75


@pytest.mark.parametrize("captions", EXAMPLES, ids=lambda path: path.parent.name)
def test_they_see_through_the_example_styles(eyes: Eyes, captions: Path) -> None:
    """Each image is closer to its own caption than to three in four of the others."""
    rows = [json.loads(line) for line in captions.read_text("utf-8").splitlines()][::3]
    images = [Image.open(captions.parent / row["file_name"]) for row in rows]
    found = similarity(eyes.embed_images(images), eyes.embed_texts([row["text"] for row in rows]))
    closer = (found > np.diag(found)[:, None]).sum(axis=1)
    assert closer.mean() < len(rows) / 4


def test_the_same_subject_by_two_hands_is_more_alike_than_two_subjects(
    eyes: Eyes, drawings: list[list[Image.Image]]
) -> None:
    found = similarity(eyes.embed_images(drawings[0]), eyes.embed_images(drawings[1]))
    same, others = np.diag(found), found[~np.eye(len(found), dtype=bool)]
    assert same.mean() > others.mean() + 0.3
    assert (found.argmax(axis=1) == np.arange(len(found))).mean() > 0.8


def test_noise_gets_no_confident_name(eyes: Eyes) -> None:
    rng = np.random.default_rng(0)
    noise = [
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(4)
    ]
    plain = [Image.new("RGB", (SIDE, SIDE), color) for color in ("white", "navy")]
    for guesses in name_images(eyes, [*noise, *plain]):
        assert guesses[0].confidence < 0.55


def test_they_do_not_pretend_to_know_other_words(eyes: Eyes) -> None:
    texts = ["lighthouse", "chalkboard style", "a person", "quenfrabble", "灯台"]
    assert eyes.knows(texts) == [False] * len(texts)
    with pytest.raises(UnknownText, match="“lighthouse”"):
        eyes.embed_texts(["castle", "lighthouse"])
