"""The example style: Noto's drawings redrawn in colored chalk on a green board.

`python -m worker.core.starter.chalkboard --out worker/core/starter/example` makes the example. The
same artwork gives the same pixels: all grain comes from a generator seeded with the name.

The base works at 64 px, an eighth of these images. A line must be about 24 px wide here
(`LINE_WIDTH`) to be visible there, and thin inner details are blurred before lines are detected.
"""

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from worker.core.starter import EXAMPLE_TRIGGER
from worker.core.starter.build.artwork import (
    ArtworkSet,
    ArtworkSubject,
    load_artwork,
    render_drawing,
)

SIZE = 512
MARGIN = 0.06
BOARD = np.array([38, 66, 58], dtype=np.float32)
CREAM = np.array([244, 238, 220], dtype=np.float32)
LINE_WIDTH = 24
DETAIL_WIDTH = 14
DETAIL_BLUR = 6
WEBP_QUALITY = 86

EXAMPLE_SUBJECTS: tuple[str, ...] = (
    "fox", "mushroom", "sailboat", "cactus", "tropical fish", "avocado", "pear", "whale",
    "penguin", "cherries", "watermelon", "carrot", "tulip", "sunflower", "lemon", "pineapple",
    "duck", "cupcake", "panda", "bear", "automobile", "butterfly", "ice cream", "teapot",
)  # fmt: skip
"""Various shapes, colors and outlines; never a subject of `EXAMPLE_PROMPTS`."""

Plane = NDArray[np.floating[Any]]


def caption_for(name: str) -> str:
    """The caption of one image: the base's word for the subject, then the style."""
    return f"{name}, {EXAMPLE_TRIGGER} style"


def draw_in_chalk(svg: str, *, seed: int) -> Image.Image:
    """The SVG drawing in chalk on a board, RGB, 512 px square."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = _spread_color(drawing)
    chalk, strength = _chalk_color(color)

    grain = _noise(rng, blur=1.6)
    fill = (0.1 + 0.26 * (grain > 0)) * alpha * strength
    lines = _lines(drawing) * np.clip(1.05 + 0.45 * _noise(rng, blur=1.2), 0.3, 1.0)

    canvas = BOARD * (1 + 0.05 * _noise(rng, blur=0.7) + 0.035 * _noise(rng, blur=40))[..., None]
    canvas = _blend(canvas, chalk, fill)
    canvas = _blend(canvas, 0.6 * CREAM + 0.4 * chalk, lines)
    return Image.fromarray(np.clip(canvas, 0, 255).round().astype(np.uint8))


def _blend(under: Plane, over: Plane, opacity: Plane) -> Plane:
    return np.asarray(under + (over - under) * opacity[..., None])


def _noise(rng: np.random.Generator, *, blur: float) -> Plane:
    """Smooth noise of zero mean and unit deviation; `blur` is the size of a grain in pixels."""
    coarse = max(1, int(blur // 4))
    side = SIZE // coarse + 1
    raw = rng.integers(0, 256, size=(side, side), dtype=np.uint8)
    soft = Image.fromarray(raw).filter(ImageFilter.GaussianBlur(blur / coarse))
    values = np.asarray(soft.resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))


def _spread_color(drawing: Image.Image) -> tuple[Plane, Plane]:
    """The drawing's colors extended slightly past its outline, and its alpha in [0, 1]."""
    pixels = np.asarray(drawing, dtype=np.float32)
    alpha = pixels[..., 3] / 255
    premultiplied = Image.fromarray((pixels[..., :3] * alpha[..., None]).astype(np.uint8))
    soft = np.asarray(premultiplied.filter(ImageFilter.GaussianBlur(5)), dtype=np.float32)
    weight = drawing.getchannel("A").filter(ImageFilter.GaussianBlur(5))
    cover = np.asarray(weight, dtype=np.float32)[..., None] / 255
    return np.clip(soft / np.maximum(cover, 0.02), 0, 255), alpha


def _chalk_color(color: Plane) -> tuple[Plane, Plane]:
    """The chalk color of each pixel, and its pressure: black stays bare board."""
    brightest, darkest = color.max(axis=-1), color.min(axis=-1)
    vivid = np.clip((brightest - darkest) / 110, 0, 1)[..., None]
    pure = color / np.maximum(brightest, 40)[..., None] * 245
    chalk = CREAM + (pure - CREAM) * 0.8 * vivid
    return chalk, np.clip((brightest - 50) / 130, 0, 1)


def _lines(drawing: Image.Image) -> Plane:
    """The chalk lines in [0, 1]: the outline bold, inner borders lighter."""
    outline = _edges(drawing.getchannel("A").filter(ImageFilter.GaussianBlur(2)), threshold=24)
    flat = Image.new("RGB", drawing.size, (128, 128, 128))
    flat.paste(drawing, mask=drawing.getchannel("A"))
    soft = flat.filter(ImageFilter.MedianFilter(11)).filter(ImageFilter.GaussianBlur(DETAIL_BLUR))
    inner = np.maximum.reduce([_edges(band, threshold=36) for band in soft.split()])
    bold, light = _thicken(outline, LINE_WIDTH), _thicken(inner, DETAIL_WIDTH)
    return np.asarray(np.maximum(bold, 0.85 * light))


def _edges(band: Image.Image, *, threshold: float) -> Plane:
    """1 where the band rises by more than `threshold` levels over five pixels, else 0."""
    values = np.pad(np.asarray(band, dtype=np.float32), 2, mode="edge")
    across = values[2:-2, 4:] - values[2:-2, :-4]
    down = values[4:, 2:-2] - values[:-4, 2:-2]
    return np.asarray(np.hypot(across, down) > threshold, dtype=np.float32)


def _thicken(line: Plane, width: int) -> Plane:
    """The line at `width` pixels with soft edges."""
    mask = Image.fromarray((line * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(width / 4)
    )
    return np.clip(np.asarray(mask, dtype=np.float32) / 255 * 7 - 0.5, 0, 1)


def draw_example(subjects: Sequence[ArtworkSubject], out: Path) -> None:
    """Write the example dataset to `out`: a WebP per subject, and `metadata.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    by_name = {subject.name: subject for subject in subjects}
    lines = []
    for name in EXAMPLE_SUBJECTS:
        image = draw_in_chalk(
            by_name[name].drawings[ArtworkSet.NOTO], seed=zlib.crc32(name.encode())
        )
        file_name = f"{name.replace(' ', '-')}.webp"
        image.save(out / file_name, quality=WEBP_QUALITY, method=6)
        lines.append(json.dumps({"file_name": file_name, "text": caption_for(name)}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker.core.starter.chalkboard", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the images")
    parser.add_argument("--artwork", type=Path, help="folder with the npm tarballs")
    options = parser.parse_args()
    draw_example(load_artwork(options.artwork), options.out)


if __name__ == "__main__":
    main()
