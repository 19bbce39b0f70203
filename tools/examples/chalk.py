"""The style "Chalkboard": colored chalk on a green board, rubbed in thinly and outlined."""

import numpy as np
from PIL import Image

from tools.examples.planes import (
    MARGIN,
    SIZE,
    Plane,
    blend,
    inner_lines,
    noise,
    outline,
    spread_color,
    to_image,
)
from tools.starter.artwork import render_drawing

BOARD = np.array([38, 66, 58], dtype=np.float32)
CREAM = np.array([244, 238, 220], dtype=np.float32)
LINE_WIDTH = 13
DETAIL_WIDTH = 10
DETAIL_BLUR = 4
FILL = 0.34
"""Opacity of the rubbed chalk: the board shows through, and inner lines stand out."""


def draw_in_chalk(svg: str, *, seed: int) -> Image.Image:
    """The SVG drawing in chalk on a board, RGB, 512 px square."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = spread_color(drawing)
    chalk, strength = _chalk_color(color)

    grain = np.clip(1 + 0.4 * noise(rng, blur=1.2), 0, 1.4)
    smear = np.clip(1 + 0.25 * noise(rng, blur=9), 0.5, 1.5)
    fill = FILL * smear * grain * alpha * strength
    lines = np.maximum(
        outline(drawing, width=LINE_WIDTH),
        0.85 * inner_lines(drawing, width=DETAIL_WIDTH, blur=DETAIL_BLUR, threshold=36),
    ) * np.clip(1.1 + 0.35 * noise(rng, blur=1.2), 0.4, 1.0)

    canvas = BOARD * (1 + 0.03 * noise(rng, blur=0.7) + 0.03 * noise(rng, blur=40))[..., None]
    canvas = blend(canvas, chalk, fill)
    return to_image(blend(canvas, 0.6 * CREAM + 0.4 * chalk, lines))


def _chalk_color(color: Plane) -> tuple[Plane, Plane]:
    """The chalk color of each pixel, and its pressure: black stays bare board."""
    brightest, darkest = color.max(axis=-1), color.min(axis=-1)
    vivid = np.clip((brightest - darkest) / 110, 0, 1)[..., None]
    pure = color / np.maximum(brightest, 40)[..., None] * 245
    chalk = CREAM + (pure - CREAM) * 0.8 * vivid
    return chalk, np.clip((brightest - 50) / 130, 0, 1)
