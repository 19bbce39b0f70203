import random

import numpy as np
import pytest
from PIL import Image

from tools.starter.artwork import (
    DARK_GROUNDS,
    ArtworkSet,
    ArtworkSubject,
    render_drawing,
)
from tools.starter.autoencoder import wild_image
from tools.starter.captions import Look
from tools.starter.looks import draw_in_look
from tools.starter.training_set import DefaultSets, choose_images


@pytest.fixture(scope="module")
def castle(subjects: list[ArtworkSubject]) -> Image.Image:
    found = next(subject for subject in subjects if subject.name == "castle")
    return render_drawing(found.drawings[ArtworkSet.NOTO], 128, margin=1 / 16)


def shares(image: Image.Image) -> tuple[float, float]:
    """The shares of nearly black and nearly white pixels."""
    light = np.asarray(image.convert("L"))
    return float((light < 60).mean()), float((light > 230).mean())


def test_a_line_drawing_is_thin_dark_lines_on_white(castle: Image.Image) -> None:
    dark, white = shares(draw_in_look(castle, Look.LINES, "white"))
    assert 0.03 < dark < 0.3
    assert white > 0.6


def test_lines_on_a_dark_ground_are_light(castle: Image.Image) -> None:
    dark, white = shares(draw_in_look(castle, Look.LINES, "black"))
    assert dark > 0.6
    assert 0.03 < white < 0.3


def test_two_tones_are_black_and_white(castle: Image.Image) -> None:
    drawn = draw_in_look(castle, Look.TWO_TONE, "white")
    dark, white = shares(drawn)
    assert dark + white > 0.8
    assert dark > shares(draw_in_look(castle, Look.LINES, "white"))[0]
    assert np.ptp(np.asarray(drawn, int), axis=-1).max() <= 1  # no color


def test_an_outlined_drawing_keeps_its_colors_and_its_ground(castle: Image.Image) -> None:
    drawn = np.asarray(draw_in_look(castle, Look.OUTLINED, "yellow"), int)
    assert tuple(drawn[0, 0]) == (250, 214, 90)
    assert shares(Image.fromarray(drawn.astype(np.uint8)))[0] > 0.05
    assert len(np.unique(drawn.reshape(-1, 3) // 64, axis=0)) > 3


def test_a_silhouette_is_one_color_where_the_drawing_is(castle: Image.Image) -> None:
    drawn = np.asarray(draw_in_look(castle, Look.SILHOUETTE, "red").convert("L"), int)
    inside = np.asarray(castle.getchannel("A")) == 255
    assert np.ptp(drawn[inside]) <= 2
    assert drawn[inside].mean() > 240  # light on a dark color


def test_light_outlines_stand_on_a_dark_ground_around_faint_colors(castle: Image.Image) -> None:
    drawn = draw_in_look(castle, Look.LIGHT_OUTLINES, "dark blue")
    assert drawn.getpixel((0, 0)) == DARK_GROUNDS["dark blue"]
    dark, _ = shares(drawn)
    light = float((np.asarray(drawn.convert("L")) > 180).mean())
    assert dark > 0.4
    assert 0.05 < light < 0.35
    plain = draw_in_look(castle, Look.PLAIN, "dark blue")
    inside = np.asarray(castle.getchannel("A")) == 255
    colors = [np.ptp(np.asarray(one, int), axis=-1)[inside].mean() for one in (drawn, plain)]
    assert 5 < colors[0] < colors[1]


def test_the_training_set_shows_each_drawing_on_white_in_colors_and_in_three_looks(
    subjects: list[ArtworkSubject],
) -> None:
    dataset = choose_images(subjects[:2], size=32)
    assert len(dataset.images) == 2 * 3 * 6
    first = dataset.images[:5]
    assert [shown.look for shown in first[:4]] == [Look.PLAIN] * 3 + [Look.LINES]
    assert dataset.images[5].look is Look.LIGHT_OUTLINES
    assert dataset.images[5].ground in DARK_GROUNDS
    assert first[0].ground == "white"
    assert "white" not in {shown.ground for shown in first[1:3]}
    images = dict(dataset.render())
    assert sorted(images) == list(range(36))
    assert {image.shape for image in images.values()} == {(32, 32, 3)}
    assert images[0][0, 0].tolist() == [255, 255, 255]
    looks = sum(dataset.weights()[i] for i, p in enumerate(dataset.images) if p.look != "plain")
    assert 0.3 < looks / dataset.weights().sum() < 0.45


def test_a_bare_name_means_the_drawing_that_is_predicted_best(
    subjects: list[ArtworkSubject],
) -> None:
    dataset = choose_images(subjects[:2], size=32)
    rng = random.Random(0)
    assert all("style" in dataset.caption(0, rng) for _ in range(50))
    noto, twemoji, fluent = ArtworkSet
    errors = {(0, noto): 0.3, (0, twemoji): 0.2, (0, fluent): 0.4, (1, noto): 0.1, (1, fluent): 0.2}
    dataset.default_sets.choose(errors)
    again = DefaultSets()
    again.load_state_dict(dataset.default_sets.state_dict())
    assert [again.get(0), again.get(1)] == [twemoji, noto]
    hands = [shown.hand for shown in dataset.images[:18]]
    bare = [
        hand
        for index, hand in enumerate(hands)
        for _ in range(30)
        if "style" not in dataset.caption(index, rng)
    ]
    assert set(bare) == {twemoji}
    weights = dataset.weights()
    assert weights[hands.index(twemoji)] > weights[hands.index(noto)]


def test_wild_images_differ_and_are_equal_for_an_equal_seed(
    subjects: list[ArtworkSubject],
) -> None:
    rng, again = random.Random(3), random.Random(3)
    images = [wild_image(subjects, 32, rng=rng) for _ in range(12)]
    assert len({image.tobytes() for image in images}) == 12
    assert images[0].shape == (32, 32, 3)
    assert [image.tobytes() for image in images] == [
        wild_image(subjects, 32, rng=again).tobytes() for _ in range(12)
    ]
