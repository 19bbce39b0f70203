"""Three drawn styles that the embedded base never saw, made from openly licensed artwork.

Each is a filter over Noto's drawings, so the true image of any subject in any style is known, and
an adapter can be checked on held-out subjects. `chalkboard` is the example style of Brushwork.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from worker.core.starter.build.artwork import ArtworkSet, ArtworkSubject, render_drawing
from worker.core.starter.chalkboard import EXAMPLE_SUBJECTS, draw_in_chalk

SIZE = 512
MARGIN = 0.06
LINE_WIDTH = 22
HELD_OUT = 60
HELD_OUT_SEED = 20_261_125

NIGHT = np.array([20, 14, 44], dtype=np.float32)
PAPER = np.array([240, 228, 204], dtype=np.float32)
INK = np.array([46, 38, 70], dtype=np.float32)

Plane = NDArray[np.floating[Any]]


def draw_in_neon(svg: str, *, seed: int) -> Image.Image:
    """The drawing as glowing tubes in its own colors before a night sky, RGB, 512 px square."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = _color_and_alpha(drawing)
    vivid = _vivid(_blurred(color, 12))
    tube = _outline(drawing)
    glow = _blurred(tube, 26) * 0.9
    canvas = NIGHT * (1 + 0.08 * rng.standard_normal((SIZE, SIZE, 1)))
    canvas = canvas + vivid * (0.22 * alpha + glow)[..., None]
    core = 0.35 * vivid + 0.65 * 255
    return _picture(_over(canvas, core, tube))


def draw_as_linocut(svg: str, *, seed: int) -> Image.Image:
    """The drawing printed in one dark ink on paper, with cuts across the shades; RGB, 512 px."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = _color_and_alpha(drawing)
    light = _blurred(color @ np.array([0.299, 0.587, 0.114], dtype=np.float32), 5) / 255
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    cuts = 0.5 + 0.5 * np.sin((rows + 0.6 * columns) * (2 * np.pi / 44))
    inked = np.asarray(light < 0.25 + 0.45 * cuts, dtype=np.float32) * (alpha > 0.5)
    inked = np.maximum(_blurred(inked, 3), _outline(drawing))
    worn = 0.86 + 0.14 * (rng.standard_normal((SIZE, SIZE)) > -1)
    return _picture(_over(PAPER * np.ones((SIZE, SIZE, 1)), INK, inked * worn))


STYLES: dict[str, Callable[..., Image.Image]] = {
    "chalkboard": draw_in_chalk,
    "neon": draw_in_neon,
    "linocut": draw_as_linocut,
}


def draw_style(style: str, subjects: Sequence[ArtworkSubject], folder: Path) -> tuple[Path, Path]:
    """(training images, held-out images): two folders with a `metadata.jsonl` each.

    The training images show the subjects of the example style; the held-out ones show other
    subjects, the same in every style.
    """
    by_name = {subject.name: subject for subject in subjects}
    others = sorted(by_name.keys() - set(EXAMPLE_SUBJECTS))
    held_out = random.Random(HELD_OUT_SEED).sample(others, HELD_OUT)
    folders = folder / style / "trained", folder / style / "held-out"
    for target, names in zip(folders, (EXAMPLE_SUBJECTS, held_out), strict=True):
        if not (target / "metadata.jsonl").is_file():
            _draw_all(style, [by_name[name] for name in names], target)
    return folders


def _draw_all(style: str, subjects: Sequence[ArtworkSubject], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, subject in enumerate(subjects):
        seed = zlib.crc32(f"{style} {subject.name}".encode())
        picture = STYLES[style](subject.drawings[ArtworkSet.NOTO], seed=seed)
        picture.save(target / f"{number:02}.png")
        rows.append({"file_name": f"{number:02}.png", "text": f"{subject.name}, {style} style"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "metadata.jsonl").write_text(lines, encoding="utf-8")


def _color_and_alpha(drawing: Image.Image) -> tuple[Plane, Plane]:
    pixels = np.asarray(drawing, dtype=np.float32)
    alpha = pixels[..., 3] / 255
    return pixels[..., :3] * alpha[..., None] + 255 * (1 - alpha[..., None]), alpha


def _outline(drawing: Image.Image) -> Plane:
    """A bold line around the drawing and lighter ones at its inner borders, in [0, 1]."""
    flat = Image.new("RGB", drawing.size, (128, 128, 128))
    flat.paste(drawing, mask=drawing.getchannel("A"))
    soft = flat.filter(ImageFilter.MedianFilter(11)).filter(ImageFilter.GaussianBlur(5))
    around = _border(drawing.getchannel("A").filter(ImageFilter.GaussianBlur(2)), threshold=24)
    inside = np.maximum.reduce([_border(band, threshold=40) for band in soft.split()])
    return np.maximum(_bold(around, LINE_WIDTH), 0.8 * _bold(inside, LINE_WIDTH / 2))


def _border(band: Image.Image, *, threshold: float) -> Plane:
    slope = np.hypot(*np.gradient(np.asarray(band, dtype=np.float32)))
    return np.asarray(slope * 4 > threshold, dtype=np.float32)


def _bold(line: Plane, width: float) -> Plane:
    return np.clip(_blurred(line, width / 4) * 7 - 0.5, 0, 1)


def _blurred(plane: Plane, radius: float) -> Plane:
    bands = plane if plane.ndim == 3 else plane[..., None]
    scale = 255 / max(float(bands.max()), 1e-6)
    soft = [
        np.asarray(
            Image.fromarray((bands[..., band] * scale).astype(np.uint8)).filter(
                ImageFilter.GaussianBlur(radius)
            ),
            dtype=np.float32,
        )
        / scale
        for band in range(bands.shape[-1])
    ]
    return np.stack(soft, axis=-1) if plane.ndim == 3 else soft[0]


def _vivid(color: Plane) -> Plane:
    """The same hues at full brightness and saturation; gray becomes a cold blue."""
    least, most = color.min(axis=-1, keepdims=True), color.max(axis=-1, keepdims=True)
    hue = (color - least) / np.maximum(most - least, 1)
    gray = np.array([0.45, 0.75, 1.0], dtype=np.float32)
    share = np.clip((most - least) / 60, 0, 1)
    return np.asarray(255 * (share * hue + (1 - share) * gray))


def _over(under: Plane, over: Plane, opacity: Plane) -> Plane:
    return np.asarray(under + (over - under) * opacity[..., None])


def _picture(canvas: Plane) -> Image.Image:
    return Image.fromarray(np.clip(canvas, 0, 255).round().astype(np.uint8))
