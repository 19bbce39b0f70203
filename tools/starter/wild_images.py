"""Varied images for the autoencoder, which must preserve more than the training set shows.

One or several drawings at any scale, on flat, graded and noisy grounds, nearly half of them in a
drawn look or with changed colors: so styles that the base never saw come back well.
"""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tools.starter.artwork import BACKGROUNDS, ArtworkSubject, render_drawing
from tools.starter.captions import Look
from tools.starter.looks import draw_in_look

LOOK_SHARE = 0.45
LOOKS = tuple(look for look in Look if look is not Look.PLAIN)


def wild_image(
    subjects: Sequence[ArtworkSubject], size: int, *, rng: random.Random
) -> NDArray[np.uint8]:
    """One image, (size, size, 3)."""
    board = Image.fromarray(_ground(size, rng))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        subject = rng.choice(subjects)
        svg = subject.drawings[rng.choice(list(subject.drawings))]
        side = round(size * rng.uniform(0.4, 1.6))
        drawing = render_drawing(svg, max(8, side))
        place = tuple(rng.randint(min(0, size - side), max(0, size - side)) for _ in "xy")
        board.paste(drawing, (place[0], place[1]), drawing)
    if rng.random() < LOOK_SHARE:
        board = _in_a_look(board, rng)
    return np.asarray(board)


def _ground(size: int, rng: random.Random) -> NDArray[np.uint8]:
    """A flat color, a gradient between two colors, or a color with noise."""
    first, second = (np.array(rng.choice(list(BACKGROUNDS.values())), float) for _ in range(2))
    amount = np.zeros((size, size, 1))
    kind = rng.random()
    if kind < 0.25:
        amount = np.linspace(0, 1, size)[:, None, None] * np.ones((1, size, 1))
        amount = amount if rng.random() < 0.5 else amount.transpose(1, 0, 2)
    ground = first * (1 - amount) + second * amount
    if kind > 0.8:
        noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 14, (size, size, 1))
        ground = ground + noise
    return np.clip(ground, 0, 255).astype(np.uint8)


def _in_a_look(board: Image.Image, rng: random.Random) -> Image.Image:
    """The image as lines, in two tones, with few colors, inverted, or tinted."""
    kind = rng.random()
    if kind < 0.5:
        return draw_in_look(board.convert("RGBA"), rng.choice(LOOKS[:-1]), "white")
    if kind < 0.65:
        return ImageOps.invert(board)
    if kind < 0.8:
        return ImageOps.posterize(board, rng.choice((1, 2, 3)))
    dark, light = rng.sample(list(BACKGROUNDS.values()), 2)
    return ImageOps.colorize(board.convert("L"), dark, light)
