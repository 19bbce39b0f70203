"""The eyes that ship name drawings that they were trained on, in every hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tools.starter.artwork import ArtworkSubject, render_drawing
from worker.core.eyes import Eyes, name_images, open_eyes, similarity

SIDE = 128


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return open_eyes(device="cpu")


@pytest.fixture(scope="module")
def drawings(subjects: list[ArtworkSubject]) -> list[list[Image.Image]]:
    """The drawings of each hand, in the order of the subjects; transparent around."""
    hands = list(subjects[0].drawings)
    return [
        [render_drawing(s.drawings[hand], SIDE, margin=0.06) for s in subjects] for hand in hands
    ]


def test_they_name_drawings_among_all_names(
    eyes: Eyes, subjects: list[ArtworkSubject], drawings: list[list[Image.Image]]
) -> None:
    for hand in drawings:
        named = name_images(eyes, hand)
        right = [g[0].name == s.name for g, s in zip(named, subjects, strict=True)]
        assert np.mean(right) > 0.75


def test_the_same_subject_by_two_hands_is_more_alike_than_two_subjects(
    eyes: Eyes, drawings: list[list[Image.Image]]
) -> None:
    found = similarity(eyes.embed_images(drawings[0]), eyes.embed_images(drawings[1]))
    same, others = np.diag(found), found[~np.eye(len(found), dtype=bool)]
    assert same.mean() > others.mean() + 0.3
    assert (found.argmax(axis=1) == np.arange(len(found))).mean() > 0.8
