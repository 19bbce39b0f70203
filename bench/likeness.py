"""Checks "styles like this": `python -m bench.likeness --out FOLDER`.

Trains an adapter of the embedded base twice in each of twenty drawn styles: with another seed, on
the other half of the images, with another trigger word. Five styles are those of `bench.styles`,
fifteen are filters whose colors and strokes are drawn by lot (`Look`), three of each palette. For
each adapter all others are sorted by nearness, and the place of its twin is counted, by measures:

style       what the registry sorts by (`worker.core.likeness`), of images of shared prompts
cover       the same of one image, the first
pixels      mean, deviation and gradients of the colors, of the shared prompts or of the cover
weights     the cosine of both changes of the base's weights

The same is done from outside: all images that a twin was trained on, and one of them, against the
adapters that were trained on the other half.

Each training is a process of its own and gives a line of `results.jsonl`; what has one is not done
again, so the bench can be stopped at any time, and `--table` prints what there is.
"""

from __future__ import annotations

import colorsys
import json
import random
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.registry.likeness.similar import NEARLY_SAME
from bench.styles import DRAWN
from bench.trainings import LEAST_STEPS, append_line, read_lines, read_options, train_missing
from tools.examples.drawings import DRAWN_SUBJECTS, meant_drawing
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
from worker.core.evaluation.subjects import EVERYDAY
from worker.core.training.presets import SAMPLE_SUBJECTS

RESULTS = "results.jsonl"
LOOKS = 15
SHARING = 3  # looks of the same colors
LOT = 20_261_201
STEPS = 120
BATCH = 4
PROMPTS = (*SAMPLE_SUBJECTS, *[one for one in EVERYDAY if one not in SAMPLE_SUBJECTS][:3])
TWINS = ("a", "b")
WITHIN = 3  # places that the table counts a twin in
KEYS = ("drawn", "images")  # of a result: its images, and those that it was trained on
Values = NDArray[np.floating]


@dataclass(frozen=True)
class Look:
    """A filter over plain drawings; colors are RGB in [0, 255], widths are in pixels of 512."""

    ground: Plane
    ink: Plane
    keep: float
    levels: int
    line: int
    inner: int
    period: int
    grain: float
    strength: float

    @classmethod
    def by_lot(cls, number: int) -> Look:
        """The look of a number, always the same; three in a row share their colors."""
        palette, dice = (random.Random(LOT + seed) for seed in (number // SHARING, 100 + number))
        is_dark = palette.random() < 0.4
        return cls(
            ground=_color(palette, value=palette.uniform(0.08, 0.3) if is_dark else 0.95),
            ink=_color(palette, value=0.95 if is_dark else palette.uniform(0.1, 0.5)),
            keep=palette.choice((0.0, 0.3, 0.7, 1.0)),
            levels=dice.choice((0, 2, 3)),
            line=dice.choice((0, 8, 16, 28)),
            inner=dice.choice((0, 8, 14)),
            period=dice.choice((0, 0, 26, 60, 96)),
            grain=dice.choice((2, 14, 40)),
            strength=dice.choice((0.02, 0.08, 0.16)),
        )

    def draw(self, svg: str, *, seed: int) -> Image.Image:
        """The drawing in this look, RGB, 512 px square."""
        rng = np.random.default_rng(seed)
        drawing = render_drawing(svg, SIZE, margin=MARGIN)
        color, alpha = spread_color(drawing)
        light = (color @ LUMA)[..., None] / 255
        if self.levels:
            light = np.round(light * self.levels) / self.levels
        fill = self.keep * color + (1 - self.keep) * (self.ink + (self.ground - self.ink) * light)
        canvas = self.ground * np.ones((SIZE, SIZE, 1), dtype=np.float32)
        canvas = blend(canvas, fill, alpha)
        if self.period:
            wobble = 2 * noise(rng, blur=20)
            strokes = hatching(period=self.period, duty=0.4, wobble=wobble)
            canvas = blend(canvas, self.ink, strokes * alpha * (1 - light[..., 0]))
        if self.inner:
            lines = inner_lines(drawing, width=self.inner, blur=5, threshold=40)
            canvas = blend(canvas, self.ink, lines * alpha)
        if self.line:
            canvas = blend(canvas, self.ink, outline(drawing, width=self.line))
        return to_image(canvas * (1 + self.strength * noise(rng, blur=self.grain)[..., None]))


def _color(dice: random.Random, *, value: float) -> Plane:
    rgb = colorsys.hsv_to_rgb(dice.random(), dice.uniform(0.1, 0.7), value)
    return np.array(rgb, dtype=np.float32) * 255


STYLES = {**DRAWN, **{f"look {one:02}": Look.by_lot(one).draw for one in range(LOOKS)}}
PLANS = {f"{style}, {twin}": (style, twin) for style in STYLES for twin in TWINS}


def draw_half(style: str, twin: str, subjects: Mapping[str, Any], folder: Path) -> list[Path]:
    """The images that a twin is trained on: every second subject of the example styles."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, paths = [], []
    for name in DRAWN_SUBJECTS[TWINS.index(twin) :: 2]:
        path = folder / f"{name.replace(' ', '-')}.png"
        seed = zlib.crc32(f"{style} {name}".encode())
        STYLES[style](meant_drawing(subjects[name]), seed=seed).save(path)
        rows.append(json.dumps({"file_name": path.name, "text": f"{name}, {trigger(style, twin)}"}))
        paths.append(path)
    (folder / "metadata.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return paths


def trigger(style: str, twin: str) -> str:
    """The words that call a twin; no other adapter has the same."""
    return f"{style.replace(' ', '')}{twin} style"


def run_one(name: str, out: Path, *, scale: float, threads: int) -> dict[str, Any]:
    """Train and draw one twin in this process; returns its line of the results."""
    import torch

    from tools.starter.artwork import load_artwork
    from worker.core import starter
    from worker.core.evaluation.drawing import AdapterFile, FolderDrawing
    from worker.core.inference.pipeline import ResidentPipeline
    from worker.core.training.data.images import read_folder
    from worker.core.training.presets import default_guidance

    torch.set_num_threads(threads)
    style, twin = PLANS[name]
    started = time.monotonic()
    artwork = out / "artwork"
    subjects = {one.name: one for one in load_artwork(artwork if artwork.is_dir() else None)}
    folder = out / name.replace(", ", "-").replace(" ", "-")
    shown = draw_half(style, twin, subjects, folder / "images")
    path = _train(read_folder(folder / "images"), folder, seed=TWINS.index(twin), scale=scale)
    pipeline = ResidentPipeline.load(starter.PATH)
    guidance = default_guidance(pipeline.base.info.resolution)
    drawing = FolderDrawing(
        pipeline, folder / "drawn", {name: AdapterFile(path)}, guidance=guidance
    )
    drawn = drawing.images(name, [f"{one}, {trigger(style, twin)}" for one in PROMPTS])
    return {
        "name": name,
        "adapter": str(path.relative_to(out)),
        "images": [str(one.relative_to(out)) for one in shown],
        "drawn": [_kept(one, folder / f"{place}.png", out) for place, one in enumerate(drawn)],
        "seconds": round(time.monotonic() - started),
    }


def _kept(image: Image.Image, path: Path, out: Path) -> str:
    image.save(path)
    return str(path.relative_to(out))


def _train(images: Sequence[Any], folder: Path, *, seed: int, scale: float) -> Path:
    """Train with the preset Quick, on fewer steps and a smaller batch; the file of the adapter."""
    from worker.core import starter
    from worker.core.bases.inspect import inspect_base
    from worker.core.training.events import Commands, Event
    from worker.core.training.load import load_for_training
    from worker.core.training.presets import Preset, preset_config
    from worker.core.training.train import train

    class Listener:
        """Neither shows progress nor interrupts."""

        def on_event(self, event: Event) -> None:
            pass

        def poll(self) -> Commands:
            return Commands()

    steps = max(LEAST_STEPS, round(STEPS * scale))
    side = inspect_base(starter.PATH).resolution
    config = preset_config(Preset.QUICK, resolution=side, images=len(images)).model_copy(
        update={
            "steps": steps,
            "batch_size": BATCH,
            "warmup_steps": steps // 20,
            "checkpoint_every": steps,
            "sample_every": 0,
            "sample_prompts": [],
            "seed": seed,
        }
    )
    base = load_for_training(starter.PATH, device="cpu", config=config)
    trained = train(config, images, Listener(), base=base, out=folder, cache=folder / "cache")
    assert trained.path is not None
    return Path(trained.path)


@dataclass(frozen=True)
class Measured:
    """What is known of each adapter that was trained, in the order of `names`.

    `drawn` and `shown`: looks of its images and of those that it was trained on; `pixels`: their
    statistics; `weights` and `outputs`: cosines of each pair.
    """

    names: Sequence[str]
    drawn: Sequence[Values]
    shown: Sequence[Values]
    drawn_pixels: Sequence[Values]
    shown_pixels: Sequence[Values]
    weights: Values
    outputs: Values


def measure(out: Path, rows: Sequence[Mapping[str, Any]]) -> Measured:
    """Measure the images and weights of these results."""
    from worker.core.eyes import open_eyes
    from worker.core.likeness import measure_looks

    eyes = open_eyes(device="cpu")
    images = {key: [[_open(out / path) for path in row[key]] for row in rows] for key in KEYS}
    looks = {key: [measure_looks(eyes, of) for of in images[key]] for key in KEYS}
    pixels = {key: [np.stack([pixel_statistics(one) for one in of]) for of in images[key]]
              for key in KEYS}  # fmt: skip
    drawn, shown = KEYS
    return Measured(
        [row["name"] for row in rows],
        looks[drawn],
        looks[shown],
        pixels[drawn],
        pixels[shown],
        *weight_cosines([out / row["adapter"] for row in rows]),
    )


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def pixel_statistics(image: Image.Image) -> Values:
    """Mean and deviation of the colors and of their gradients, each channel apart: 12 numbers."""
    pixels = np.asarray(image.resize((128, 128), Image.Resampling.BOX), dtype=np.float32) / 255
    edges = np.hypot(*np.gradient(pixels, axis=(0, 1)))
    parts = [(one.mean(axis=(0, 1)), one.std(axis=(0, 1))) for one in (pixels, edges)]
    return np.concatenate([values for part in parts for values in part])


def weight_cosines(paths: Sequence[Path]) -> tuple[Values, Values]:
    """The cosines of the changes D of each pair, and those of D Dᵀ, which the seed shapes less."""
    from worker.core.lora_files.canonical import load_adapter

    modules = [{one.key: one for one in load_adapter(path).modules} for path in paths]
    changes, outputs = (np.zeros((len(paths), len(paths))) for _ in range(2))
    for key in modules[0]:
        deltas = np.stack([of[key].delta().flatten(1).numpy() for of in modules])
        flat = deltas.reshape(len(paths), -1)
        changes += flat @ flat.T
        squares = (deltas @ deltas.transpose(0, 2, 1)).reshape(len(paths), -1)
        outputs += squares @ squares.T
    return _cosines(changes), _cosines(outputs)


def _cosines(products: Values) -> Values:
    lengths = np.sqrt(np.diag(products))
    return np.asarray(products / np.outer(lengths, lengths))


def places(names: Sequence[str], away: Values) -> list[int]:
    """For each adapter with a twin the place of that among the others, nearest first, from 1.

    `away`: (n, n) distances from row to column; the adapter itself is not counted.
    """
    found = []
    for row, name in enumerate(names):
        style, twin = PLANS[name]
        other = f"{style}, {TWINS[1 - TWINS.index(twin)]}"
        if other in names:
            others = np.delete(away[row], row)
            found.append(1 + int((others < away[row][names.index(other)]).sum()))
    return found


def gaps(one: Sequence[Values], two: Sequence[Values], first: int, second: int) -> Values:
    """Distances of the means of the first so many images of each, (n, n); 0: of all of them."""
    means = [
        np.stack([of[: count or None].mean(axis=0) for of in looks])
        for looks, count in ((one, first), (two, second))
    ]
    return np.asarray(np.linalg.norm(means[0][:, None] - means[1], axis=2))


def tables(found: Measured) -> dict[str, Values]:
    """The distances of all pairs by every measure, by its name."""
    scale = np.concatenate([*found.drawn_pixels]).std(axis=0)
    pixels, own = (
        [of / scale for of in all_of] for all_of in (found.drawn_pixels, found.shown_pixels)
    )
    samples = len(SAMPLE_SUBJECTS)
    return {
        f"style of {len(PROMPTS)} shared prompts": gaps(found.drawn, found.drawn, 0, 0),
        f"style of {samples} sample prompts": gaps(found.drawn, found.drawn, samples, samples),
        "style of samples, to the covers of others": gaps(found.drawn, found.drawn, samples, 1),
        "style of the cover": gaps(found.drawn, found.drawn, 1, 1),
        "style of the twin's 12 training images": gaps(found.shown, found.drawn, 0, samples),
        "style of one of them": gaps(found.shown, found.drawn, 1, samples),
        f"pixels of {samples} sample prompts": gaps(pixels, pixels, samples, samples),
        "pixels of the cover": gaps(pixels, pixels, 1, 1),
        "pixels of the twin's 12 training images": gaps(own, pixels, 0, samples),
        "pixels of one of them": gaps(own, pixels, 1, samples),
        "weights": -found.weights,
        "weights, outputs alone": -found.outputs,
    }


def print_table(found: Measured) -> None:
    """Print the places of the twins by every measure, and the distances of twins and others."""
    styles = {PLANS[name][0] for name in found.names}
    print(f"{len(found.names)} trainings of {len(styles)} styles")
    print(f"| nearest by | twin is first | within {WITHIN} | mean place |\n|---|---|---|---|")
    for name, away in tables(found).items():
        found_at = places(found.names, away)
        first, near = (sum(at <= most for at in found_at) for most in (1, WITHIN))
        print(f"| {name} | {first} of {len(found_at)} | {near} | {np.mean(found_at):.1f} |")
    root = np.sqrt(found.drawn[0].shape[1])
    for count in (len(SAMPLE_SUBJECTS), 1):
        away = gaps(found.drawn, found.drawn, count, count) / root
        style_of = np.array([PLANS[name][0] for name in found.names])
        same = style_of[:, None] == style_of
        twins, others = away[same & ~np.eye(len(away), dtype=bool)], away[~same]
        near = [f"{(one <= NEARLY_SAME).mean():.1%}" for one in (twins, others)]
        print(f"{count} images: twins {twins.min():.2f} to {twins.max():.2f}, "
              f"median {np.median(twins):.2f}; others from {others.min():.2f}, "
              f"median {np.median(others):.2f}; nearly the same (up to {NEARLY_SAME:g}): "
              f"{near[0]} of twins, {near[1]} of others")  # fmt: skip
    style_of = np.array([PLANS[name] for name in found.names])
    seeds = style_of[:, 1][:, None] == style_of[:, 1]
    same = style_of[:, 0][:, None] == style_of[:, 0]
    for name, cosines in (("weights", found.weights), ("outputs", found.outputs)):
        print(f"{name}: cosine of twins {np.median(cosines[same & ~seeds]):.3f}, of other styles "
              f"with one seed {np.median(cosines[~same & seeds]):.3f}, "
              f"with two {np.median(cosines[~same & ~seeds]):.3f} (medians)")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bench, or print its table."""
    options = read_options(__doc__, PLANS, argv)
    results = options.out / RESULTS
    if options.one:
        row = run_one(options.one, options.out, scale=options.scale, threads=options.threads)
        append_line(results, row)
        return
    if not options.table:
        done = {row["name"] for row in read_lines(results)}
        train_missing("bench.likeness", PLANS, options, done=done)
    if rows := read_lines(results):
        print_table(measure(options.out, rows))


if __name__ == "__main__":
    main()
