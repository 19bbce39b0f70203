"""Drawn styles that the embedded base never saw, made from openly licensed artwork.

Each is a filter over plain drawings, so the true image of any subject in any style is known, and
an adapter can be checked on held-out subjects. Two of them are the example styles of Brushwork.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tools.examples.drawings import DRAW, DRAWN_SUBJECTS, meant_drawing
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
from tools.starter.artwork import ArtworkSubject, render_drawing

HELD_OUT = 60
HELD_OUT_SEED = 20_261_125
NIGHT = np.array([20, 14, 44], dtype=np.float32)
TUBE_WIDTH = 22
BLUE = np.array([32, 68, 138], dtype=np.float32)
PALE = np.array([226, 236, 248], dtype=np.float32)
VIOLET = np.array([120, 84, 168], dtype=np.float32)


def draw_in_neon(svg: str, *, seed: int) -> Image.Image:
    """The drawing as glowing tubes in its own colors before a night sky, RGB, 512 px square."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = spread_color(drawing)
    vivid = _vivid(color)
    inner = inner_lines(drawing, width=TUBE_WIDTH / 2, blur=5, threshold=40)
    tube = np.maximum(outline(drawing, width=TUBE_WIDTH), 0.8 * inner)
    canvas = NIGHT * (1 + 0.08 * rng.standard_normal((SIZE, SIZE, 1)))
    canvas = canvas + vivid * (0.22 * alpha + 0.9 * _blurred(tube, 26))[..., None]
    return to_image(blend(canvas, 0.35 * vivid + 0.65 * 255, tube))


def draw_as_blueprint(svg: str, *, seed: int) -> Image.Image:
    """The drawing as pale lines with hatched shade on blue paper with a grid, RGB, 512 px."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = spread_color(drawing)
    dark = alpha * np.clip(1 - color.mean(axis=-1) / 170, 0, 1)
    lines = np.maximum(
        outline(drawing, width=9), 0.9 * inner_lines(drawing, width=7, blur=4, threshold=30)
    )
    strokes = hatching(period=26, duty=0.4, wobble=2 * noise(rng, blur=30)) * dark
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    grid = 0.16 * ((rows % 64 < 3) | (columns % 64 < 3)) * (1 - 0.8 * alpha)
    paper = BLUE * (1 + 0.05 * noise(rng, blur=30))[..., None]
    ink = np.maximum.reduce([lines, 0.7 * strokes, grid])
    return to_image(blend(paper, np.broadcast_to(PALE, paper.shape), np.clip(ink, 0, 1)))


def draw_in_glass(svg: str, *, seed: int) -> Image.Image:
    """The drawing as panes of vivid glass in thick lead on a violet window, RGB, 512 px."""
    rng = np.random.default_rng(seed)
    drawing = render_drawing(svg, SIZE, margin=MARGIN)
    color, alpha = spread_color(drawing)
    lead = np.maximum(
        outline(drawing, width=26), inner_lines(drawing, width=18, blur=6, threshold=44)
    )
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    seams = (np.abs((rows + columns) % 170 - 85) < 5) | (np.abs((rows - columns) % 170 - 85) < 5)
    light = (1 + 0.16 * noise(rng, blur=14))[..., None]
    canvas = blend(VIOLET * light, (0.35 * color + 0.65 * _vivid(color)) * light, alpha)
    return to_image(blend(canvas, np.zeros_like(canvas), np.maximum(lead, seams * (1 - alpha))))


STYLES: dict[str, Callable[..., Image.Image]] = {**DRAW, "neon": draw_in_neon}

DRAWN = {**STYLES, "blueprint": draw_as_blueprint, "glass": draw_in_glass}
"""With the two that no choice of a measure or a limit has seen."""


def draw_style(style: str, subjects: Sequence[ArtworkSubject], folder: Path) -> tuple[Path, Path]:
    """(training images, held-out images): two folders with a `metadata.jsonl` each.

    The training images show the subjects of the example style; the held-out ones show other
    subjects, the same in every style.
    """
    by_name = {subject.name: subject for subject in subjects}
    others = sorted(by_name.keys() - set(DRAWN_SUBJECTS))
    held_out = random.Random(HELD_OUT_SEED).sample(others, HELD_OUT)
    folders = folder / style / "trained", folder / style / "held-out"
    for target, names in zip(folders, (DRAWN_SUBJECTS, held_out), strict=True):
        if not (target / "metadata.jsonl").is_file():
            _draw_all(style, [by_name[name] for name in names], target)
    return folders


def _draw_all(style: str, subjects: Sequence[ArtworkSubject], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, subject in enumerate(subjects):
        seed = zlib.crc32(f"{style} {subject.name}".encode())
        picture = DRAWN[style](meant_drawing(subject), seed=seed)
        picture.save(target / f"{number:02}.png")
        rows.append({"file_name": f"{number:02}.png", "text": f"{subject.name}, {style} style"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "metadata.jsonl").write_text(lines, encoding="utf-8")


def _blurred(plane: Plane, radius: float) -> Plane:
    mask = Image.fromarray((plane * 255).astype(np.uint8))
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def _vivid(color: Plane) -> Plane:
    """The same hues at full brightness and saturation; gray becomes a cold blue."""
    least, most = color.min(axis=-1, keepdims=True), color.max(axis=-1, keepdims=True)
    hue = (color - least) / np.maximum(most - least, 1)
    gray = np.array([0.45, 0.75, 1.0], dtype=np.float32)
    share = np.clip((most - least) / 60, 0, 1)
    return np.asarray(255 * (share * hue + (1 - share) * gray))
