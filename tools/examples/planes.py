"""Image planes shared by the example styles: noise, borders, lines and layers.

A plane is a float array of (height, width), or (height, width, 3) for colors in [0, 255]. All
randomness comes from the caller's generator, so the same artwork gives the same pixels.

Widths are in pixels of a 512 px image. A base that works at 128 px sees a quarter of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIZE = 512
MARGIN = 0.07

Plane = NDArray[np.floating[Any]]


def blend(under: Plane, over: Plane, opacity: Plane) -> Plane:
    """The colors `over` laid on `under` with an opacity of (height, width) in [0, 1]."""
    return np.asarray(under + (over - under) * opacity[..., None])


def to_image(canvas: Plane) -> Image.Image:
    """The colors as an RGB image."""
    return Image.fromarray(np.clip(canvas, 0, 255).round().astype(np.uint8))


def noise(rng: np.random.Generator, *, blur: float) -> Plane:
    """Smooth noise of zero mean and unit deviation; `blur` is the size of a grain in pixels."""
    coarse = max(1, int(blur // 4))
    side = SIZE // coarse + 1
    raw = rng.integers(0, 256, size=(side, side), dtype=np.uint8)
    soft = Image.fromarray(raw).filter(ImageFilter.GaussianBlur(blur / coarse))
    values = np.asarray(soft.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))


def spread_color(drawing: Image.Image) -> tuple[Plane, Plane]:
    """The RGBA drawing's colors, extended slightly past its outline, and its alpha in [0, 1]."""
    pixels = np.asarray(drawing, dtype=np.float32)
    alpha = pixels[..., 3] / 255
    premultiplied = Image.fromarray((pixels[..., :3] * alpha[..., None]).astype(np.uint8))
    soft = np.asarray(premultiplied.filter(ImageFilter.GaussianBlur(3)), dtype=np.float32)
    weight = drawing.getchannel("A").filter(ImageFilter.GaussianBlur(3))
    cover = np.asarray(weight, dtype=np.float32)[..., None] / 255
    return np.clip(soft / np.maximum(cover, 0.02), 0, 255), alpha


def outline(drawing: Image.Image, *, width: float) -> Plane:
    """The line around the drawing in [0, 1], `width` pixels wide."""
    alpha = drawing.getchannel("A").filter(ImageFilter.GaussianBlur(2))
    return _thicken(_edges(alpha, threshold=24), width)


def inner_lines(drawing: Image.Image, *, width: float, blur: float, threshold: float) -> Plane:
    """The lines where colors meet inside the drawing; `blur` removes smaller details."""
    flat = Image.new("RGB", drawing.size, (128, 128, 128))
    flat.paste(drawing, mask=drawing.getchannel("A"))
    soft = flat.filter(ImageFilter.MedianFilter(9)).filter(ImageFilter.GaussianBlur(blur))
    borders = [_edges(band, threshold=threshold) for band in soft.split()]
    return _thicken(np.maximum.reduce(borders), width)


def hatching(*, period: int, duty: float, wobble: Plane) -> Plane:
    """Slanted strokes in [0, 1]: every `period` pixels across, half of that down; `duty` inked.

    The strokes keep their place from image to image, so hatched areas have the same few latents,
    which is what a small adapter can learn. `wobble`, in pixels, keeps them from looking ruled.
    """
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    phase = ((2 * rows + columns + wobble) / period) % 1
    distance = np.abs(phase - 0.5) * period / np.sqrt(5)
    return np.asarray(np.clip(0.5 + duty * period / (2 * np.sqrt(5)) - distance, 0, 1))


def _edges(band: Image.Image, *, threshold: float) -> Plane:
    """1 where the band rises by more than `threshold` levels over five pixels, else 0."""
    values = np.pad(np.asarray(band, dtype=np.float32), 2, mode="edge")
    across = values[2:-2, 4:] - values[2:-2, :-4]
    down = values[4:, 2:-2] - values[:-4, 2:-2]
    return np.asarray(np.hypot(across, down) > threshold, dtype=np.float32)


def _thicken(line: Plane, width: float) -> Plane:
    """The line at `width` pixels with soft edges."""
    mask = Image.fromarray((line * 255).astype(np.uint8))
    soft = mask.filter(ImageFilter.GaussianBlur(width / 4))
    return np.clip(np.asarray(soft, dtype=np.float32) / 255 * 7 - 0.5, 0, 1)
