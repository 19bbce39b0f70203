"""Test if the overlap of two adapters predicts the damage: `python -m bench.stack_overlap`.

Trains one adapter for each of eight looks made of the two example styles: each with two seeds, its
negative, and with its color channels exchanged. Every pair of them is a stack. Its overlap is the
cosine of both weight changes (`worker/core/lora_files/tools/overlap.py`). Its damage is measured by
the embedded eyes on images of both adapters at weight 1 and of each one alone, in two ways:

lost subject  how much less confident they are of the subject than in the images of the worse one
lost style    1 - the cosine of an image of both to the image of the style that is farther away

Each training and each pair gives a line in the folder `--out`. What has one is not done again, and
an interrupted training goes on from its checkpoint. With `--scale` trainings are shorter. The table
ends with Spearman's rank correlations of the overlap with each damage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from bench.trainings import LEAST_STEPS, append_line, read_lines, read_options, train_missing

SUBJECTS = ("castle", "rocket", "house", "bicycle", "owl", "frog")
"""Subjects that the base knows well and that no example contains."""
SEED, STEPS, GUIDANCE = 7, 12, 2.0
NOTABLE = 0.5
"""The cosine from which on the playground calls two layers alike."""
NEEDED_PAIRS, NEEDED_CORRELATION = 10, 0.7
"""A pair of weights would be suggested with this correlation over this many pairs."""
TRAINED, MEASURED = "trained.jsonl", "pairs.jsonl"


def keep(image: Image.Image) -> Image.Image:
    """The image as it is."""
    return image


def exchange_channels(image: Image.Image) -> Image.Image:
    """The image with green as red, blue as green and red as blue."""
    red, green, blue = image.split()
    return Image.merge("RGB", (green, blue, red))


@dataclass(frozen=True)
class Look:
    """A training of an adapter: an example style through a filter, and the settings."""

    name: str
    style: str
    change: Callable[[Image.Image], Image.Image] = keep
    seed: int = 0
    rank: int = 4


LOOKS = {
    look.name: look
    for look in (
        Look("chalk", "chalkboard"),
        Look("chalk-again", "chalkboard", seed=1),
        Look("chalk-negative", "chalkboard", ImageOps.invert),
        Look("chalk-exchanged", "chalkboard", exchange_channels, seed=2),
        Look("lino", "linocut"),
        Look("lino-again", "linocut", seed=1, rank=8),
        Look("lino-negative", "linocut", ImageOps.invert, seed=1),
        Look("lino-exchanged", "linocut", exchange_channels, seed=2),
    )
}


def write_images(look: Look, folder: Path) -> None:
    """Write the training images of a look, with its name as the trigger word."""
    from worker.core.starter.examples import EXAMPLES

    example = EXAMPLES[look.style]
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for line in (example.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        target = f"{Path(row['file_name']).stem}.png"
        with Image.open(example.folder / row["file_name"]) as image:
            look.change(image.convert("RGB")).save(folder / target)
        text = row["text"].replace(f"{example.trigger} style", f"{look.name} style")
        lines.append(json.dumps({"file_name": target, "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_config(look: Look, *, resolution: int, images: int, scale: float) -> Any:
    """The TrainConfig of a look: the quick preset, shortened by `scale`."""
    from worker.core.training.presets import Preset, preset_config

    usual = preset_config(Preset.QUICK, resolution=resolution, images=images)
    steps = max(LEAST_STEPS, round(usual.steps * scale))
    return usual.model_copy(
        update={
            "steps": steps,
            "warmup_steps": round(usual.warmup_steps * steps / usual.steps),
            "checkpoint_every": steps,
            "sample_every": 0,
            "seed": look.seed,
            "rank": look.rank,
            "alpha": float(look.rank),
        }
    )


def train_one(look: Look, out: Path, *, scale: float, threads: int) -> dict[str, Any]:
    """Train the adapter of a look in this process; returns its line of the results."""
    import torch

    from worker.core import starter
    from worker.core.bases.inspect import inspect_base
    from worker.core.training.data.images import read_folder
    from worker.core.training.events import Commands, Event
    from worker.core.training.load import load_for_training
    from worker.core.training.train import train

    class Listener:
        """Neither shows progress nor interrupts."""

        def on_event(self, event: Event) -> None:
            pass

        def poll(self) -> Commands:
            return Commands()

    torch.set_num_threads(threads)
    folder = out / look.name
    write_images(look, folder / "images")
    images = read_folder(folder / "images")
    resolution = inspect_base(starter.PATH).resolution
    config = make_config(look, resolution=resolution, images=len(images), scale=scale)
    trained = train(
        config,
        images,
        Listener(),
        base=load_for_training(starter.PATH, device="cpu", config=config),
        out=folder,
        cache=folder / "cache",
    )
    assert trained.path is not None
    return {"name": look.name, "steps": trained.steps, "path": str(trained.path.relative_to(out))}


def measure_pairs(out: Path, names: Sequence[str]) -> None:
    """Measure the pairs of these looks that have no result yet."""
    from worker.core import starter
    from worker.core.eyes import open_eyes
    from worker.core.inference.pipeline import ResidentPipeline
    from worker.core.lora_files import canonical
    from worker.core.lora_files.loaded import LoadedAdapter

    done = {tuple(row["pair"]) for row in read_lines(out / MEASURED)}
    missing = [pair for pair in combinations(names, 2) if pair not in done]
    if not missing:
        return
    paths = {row["name"]: out / row["path"] for row in read_lines(out / TRAINED)}
    adapters = {name: LoadedAdapter(name, canonical.load_adapter(paths[name])) for name in names}
    pipeline, eyes = ResidentPipeline.load(starter.PATH), open_eyes()
    alone = {name: _look_at(eyes, _draw(pipeline, [adapters[name]])) for name in names}
    for pair in missing:
        stack = [adapters[name] for name in pair]
        both = _look_at(eyes, _draw(pipeline, stack))
        row = {"pair": pair, **overlap_of(*stack), **damage_of(both, [alone[n] for n in pair])}
        append_line(out / MEASURED, row)


def _draw(pipeline: Any, stack: Sequence[Any]) -> list[Image.Image]:
    """An image of each subject with these adapters, all of one seed."""
    from worker.core.inference.config import RenderConfig

    pipeline.set_adapters(stack)
    words = ", ".join(f"{loaded.name} style" for loaded in stack)
    images = []
    for subject in SUBJECTS:
        config = RenderConfig(
            prompt=f"{subject}, {words}", seed=SEED, steps=STEPS, guidance=GUIDANCE
        )
        images += [rendered.image for rendered in pipeline.render(config)]
    return images


@dataclass(frozen=True)
class Seen:
    """The eyes' view of the images: their confidence in each subject, and the embeddings.

    Confidences are those among all subjects that are drawn here.
    """

    confidences: Sequence[float]
    embeddings: Any


def _look_at(eyes: Any, images: Sequence[Image.Image]) -> Seen:
    from worker.core.eyes.naming import name_images

    guesses = name_images(eyes, images, SUBJECTS, top=len(SUBJECTS))
    confidences = [
        next(guess.confidence for guess in row if guess.name == subject)
        for subject, row in zip(SUBJECTS, guesses, strict=True)
    ]
    return Seen(confidences, eyes.embed_images(images))


def overlap_of(first: Any, second: Any) -> dict[str, float]:
    """The overlap of two adapters: the cosine, and the share of layers that are alike."""
    from worker.core.lora_files.tools.overlap import measure_overlap

    found = measure_overlap(first, second)
    alike = sum(layer.cosine >= NOTABLE for layer in found.layers)
    return {
        "cosine": round(found.cosine, 4),
        "highest": round(max(layer.cosine for layer in found.layers), 4),
        "alike": round(alike / len(found.layers), 4),
        "inputs": round(float(np.mean([layer.inputs for layer in found.layers])), 4),
        "outputs": round(float(np.mean([layer.outputs for layer in found.layers])), 4),
    }


def damage_of(both: Seen, alone: Sequence[Seen]) -> dict[str, float]:
    """The damage of a stack, as means over the subjects."""
    worse = min(float(np.mean(one.confidences)) for one in alone)
    cosines = [float(np.mean(np.sum(both.embeddings * one.embeddings, axis=1))) for one in alone]
    return {
        "subject_alone": round(worse, 4),
        "lost_subject": round(worse - float(np.mean(both.confidences)), 4),
        "lost_style": round(1 - min(cosines), 4),
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    ranks = []
    for values in (np.asarray(first), np.asarray(second)):
        order = np.sort(values)
        low, high = (np.searchsorted(order, values, side=side) for side in ("left", "right"))
        ranks.append((low + high - 1) / 2)
    one, two = (rank - rank.mean() for rank in ranks)
    length = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return float((one * two).sum()) / length if length else 0.0


def is_predicted(rows: Sequence[Mapping[str, Any]]) -> bool:
    """True if the overlap predicts each damage well enough to suggest weights by it."""
    cosines = [row["cosine"] for row in rows]
    return len(rows) >= NEEDED_PAIRS and all(
        rank_correlation(cosines, [row[damage] for row in rows]) >= NEEDED_CORRELATION
        for damage in ("lost_subject", "lost_style")
    )


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the pairs by their overlap, and whether it predicts the damage."""
    print("| Pair | Cosine | Highest layer | Layers ≥ 0.5 | Lost subject | Lost style |")
    print("|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row["cosine"]):
        print(
            f"| {' + '.join(row['pair'])} | {row['cosine']:.2f} | {row['highest']:.2f} "
            f"| {row['alike']:.0%} | {row['lost_subject']:+.2f} | {row['lost_style']:.2f} |"
        )
    for overlap in ("cosine", "highest", "alike", "outputs"):
        found = [
            f"{rank_correlation([row[overlap] for row in rows], [row[name] for row in rows]):+.2f}"
            for name in ("lost_subject", "lost_style")
        ]
        print(f"{overlap}: {found[0]} with the lost subject, {found[1]} with the lost style")
    verdict = "predicts" if is_predicted(rows) else "does not predict"
    print(f"Over {len(rows)} pairs the overlap {verdict} the damage.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bench, or print its table."""
    options = read_options(__doc__, LOOKS, argv)
    out, scale = options.out, options.scale
    if options.one:
        found = train_one(LOOKS[options.one], out, scale=scale, threads=options.threads)
        append_line(out / TRAINED, found)
        return
    if not options.table:
        done = {row["name"] for row in read_lines(out / TRAINED)}
        train_missing("bench.stack_overlap", LOOKS, options, done=done)
        measure_pairs(out, list(LOOKS))
    print_table(read_lines(out / MEASURED))


if __name__ == "__main__":
    main()
