"""Brings images of any size and mode into the form that a network reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.core.eyes.interface import EyesError

MAX_STRETCH = 20
"""Sides longer than this many times the other are refused: nothing could be seen of them."""


def check_images(images: Sequence[Image.Image]) -> None:
    """Raise EyesError unless there are images, and each has something to see."""
    if isinstance(images, Image.Image) or not images:
        raise EyesError("There are no images to look at. Give a list with at least one.")
    for position, image in enumerate(images, start=1):
        width, height = image.size
        if max(width, height) > MAX_STRETCH * max(1, min(width, height)):
            raise EyesError(
                f"Image {position} of {len(images)} is {width} × {height} pixels: too narrow to "
                f"see anything. One side may be at most {MAX_STRETCH} times the other."
            )


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, transparent parts on white.

    Pillow cuts gray images of 16 bits off at 255, so those are brought to 8 bits first.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        full = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray((values / full * 255).clip(0, 255).astype(np.uint8))
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        drawing = image.convert("RGBA")
        white = Image.new("RGBA", drawing.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, drawing).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> NDArray[np.float32]:
    """The whole image, (3, size, size) in [0, 1], with borders of its own edge color if it is not
    square."""
    rgb = as_rgb(image)
    scale = size / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    small = rgb.resize(
        (width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    )
    canvas = small
    if (width, height) != (size, size):
        canvas = Image.new("RGB", (size, size), _edge_color(small))
        canvas.paste(small, ((size - width) // 2, (size - height) // 2))
    pixels = np.asarray(canvas, dtype=np.float32) / np.float32(255)
    return pixels.transpose(2, 0, 1)


def _edge_color(image: Image.Image) -> tuple[int, int, int]:
    """The median color of the outermost pixels."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0).astype(int)
    return int(red), int(green), int(blue)
