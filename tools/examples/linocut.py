"""The style "Linocut": black and red ink on cream paper, with carved lines and hatched shadows."""

import numpy as np
from PIL import Image, ImageFilter

from tools.examples.planes import (
    MARGIN,
    SIZE,
    Plane,
    blend,
    hatching,
    inner_lines,
    noise,
    outline,
    spread_color,
    to_image,
)
from tools.starter.artwork import LUMA, render_drawing

PAPER = np.array([240, 226, 196], dtype=np.float32)
BLACK = np.array([30, 26, 34], dtype=np.float32)
RED = np.array([206, 66, 44], dtype=np.float32)
LINE_WIDTH = 20
DETAIL_WIDTH = 11
DETAIL_BLUR = 5
CUT_PERIOD = 96


def draw_as_linocut(svg: str, *, seed: int) -> Image.Image:
    """The SVG drawing printed from two blocks, RGB, 512 px square."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = spread_color(drawing)
    inside = np.asarray(alpha > 0.5, dtype=np.float32)
    light = _smooth(color @ LUMA) / 255
    cuts = hatching(period=CUT_PERIOD, duty=0.5, wobble=3 * noise(rng, blur=14))
    borders = inner_lines(drawing, width=DETAIL_WIDTH, blur=DETAIL_BLUR, threshold=40)

    red = _step(0.72 - light) * inside
    solid = _step(0.34 - light)
    black = np.maximum(solid, _step(0.54 - light) * cuts) * inside
    # A border is printed where it meets light areas, and carved where it meets dark ones.
    black = np.where(solid > 0.5, black * (1 - borders), np.maximum(black, borders * inside))
    black = np.maximum(black, outline(drawing, width=LINE_WIDTH))

    worn = np.clip(1.3 + 0.3 * noise(rng, blur=1.6), 0, 1)
    canvas = PAPER * (1 + 0.008 * noise(rng, blur=2) + 0.008 * noise(rng, blur=40))[..., None]
    canvas = blend(canvas, RED, 0.95 * red * worn)
    return to_image(blend(canvas, BLACK, black * worn))


def _smooth(plane: Plane) -> Plane:
    soft = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8)).filter(
        ImageFilter.MedianFilter(9)
    )
    return np.asarray(soft.filter(ImageFilter.GaussianBlur(3)), dtype=np.float32)


def _step(difference: Plane) -> Plane:
    """0 to 1 over a narrow range around zero."""
    return np.asarray(np.clip(0.5 + difference / 0.03, 0, 1))
