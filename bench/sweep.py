"""Checks sweeps: `python -m bench.sweep --out FOLDER`.

Six configurations of the embedded base, ranks 4 and 8 at three rates, each with three seeds, on a
drawn style that it never saw. All train to the end, so that halving can be compared with the full
grid: does it pick the same winner, at which share of the steps? The rule of a sweep compares both.

Each training is a process of its own and gives a line of `results.jsonl`; what has one is not done
again, and `--table` prints what there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from bench.trainings import append_line, read_lines, read_options, train_missing
from bench.verdict import Kind, base_knows, train_plan

RESULTS = "results.jsonl"
STYLE = "linocut"
RANKS, RATES, SEEDS = (4, 8), (0.0005, 0.001, 0.002), (0, 1, 2)
STEPS, IMAGES, SUBJECTS = 300, 20, 16
PLANS = {
    f"rank {rank}, rate {rate}, seed {seed}": {"rank": rank, "learning_rate": rate, "seed": seed}
    for rank, rate, seed in product(RANKS, RATES, SEEDS)
}


def run_one(name: str, out: Path, *, scale: float, threads: int) -> dict[str, Any]:
    """Train and measure one plan in this process, at half and at the end."""
    import torch

    from bench.styles import draw_style
    from tools.starter.artwork import load_artwork
    from worker.core import starter
    from worker.core.evaluation.drawing import AdapterFile, FolderDrawing
    from worker.core.evaluation.evaluate import Captioned, Question, References
    from worker.core.eyes import open_eyes
    from worker.core.inference.pipeline import ResidentPipeline
    from worker.core.training.checkpoints import checkpoints_in
    from worker.core.training.data.images import open_image, read_folder
    from worker.core.training.events import ADAPTERS
    from worker.core.training.presets import default_guidance

    torch.set_num_threads(threads)
    started = time.monotonic()
    artwork = out / "artwork"
    subjects = load_artwork(artwork if artwork.is_dir() else None)
    shown, others = (read_folder(folder) for folder in draw_style(STYLE, subjects, out / "styles"))
    steps = round(STEPS * scale) // 2 * 2
    changes = {**PLANS[name], "alpha": PLANS[name]["rank"], "checkpoint_every": steps // 2}
    kind = Kind(name, steps, IMAGES, changes, held_out=0)
    folder = out / "trainings" / name.replace(", ", "-").replace(" ", "-")
    train_plan(kind, shown[:IMAGES], folder, scale=1.0)
    trained = time.monotonic() - started
    pipeline = ResidentPipeline.load(starter.PATH)
    guidance = default_guidance(pipeline.base.info.resolution)
    paths = checkpoints_in(folder / "checkpoints" / ADAPTERS)
    files = {str(int(path.stem.rpartition("-")[2])): AdapterFile(path) for path in paths}
    drawing = FolderDrawing(pipeline, folder / "evaluation", files, guidance=guidance)
    known = [one for one in others if base_knows(one.caption.partition(",")[0])][:SUBJECTS]
    images = [Captioned(open_image(one), one.caption) for one in shown[:IMAGES]]
    prompts = [one.caption for one in known]
    question = Question(prompts, [one.partition(",")[0] for one in prompts], images)
    references = References(question, drawing=drawing, eyes=open_eyes(device="cpu"))
    styles = {
        step: references.measure(step, drawing.images(step, prompts)).style_interval.mean
        for step in files
    }
    seconds = [round(trained), round(time.monotonic() - started - trained)]
    return {"name": name, "steps": steps, "styles": styles, "seconds": seconds}


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then print the table."""
    options = read_options(__doc__, PLANS, argv)
    results = options.out / RESULTS
    if options.one:
        done = run_one(options.one, options.out, scale=options.scale, threads=options.threads)
        append_line(results, done)
        return 0
    rows = {row["name"]: row for row in read_lines(results)}
    if not options.table:
        train_missing("bench.sweep", PLANS, options, done=rows)
        rows = {row["name"]: row for row in read_lines(results)}
    print("\n".join(report(rows)))
    return 0


def report(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of the table, and what the rule says of the full grid and of halving."""
    from worker.core.evaluation.recipes import Recipe, better_half, compare

    def recipes(place: int) -> list[Recipe]:
        found = []
        for rank, rate in product(RANKS, RATES):
            name = f"rank {rank}, rate {rate}"
            styles = {
                seed: float([*rows[f"{name}, seed {seed}"]["styles"].values()][place])
                for seed in SEEDS
            }
            found.append(Recipe(name, styles))
        return found

    half, full = recipes(0), recipes(-1)
    lines = ["| configuration | at half | at the end | seeds |", "|---|---|---|---|"]
    for one, end in zip(half, full, strict=True):
        seeds = ", ".join(f"{style:.2f}" for style in end.styles.values())
        lines.append(f"| {one.name} | {one.mean:.2f} | {end.mean:.2f} | {seeds} |")
    going = {one.name for one in better_half(half)}
    kept = [one for one in full if one.name in going]
    early = [one for one in half if one.name not in going]
    for title, found in (("full grid", compare(full)), ("halving", compare(kept, early))):
        share = 1 if title == "full grid" else (1 + len(kept) / len(full)) / 2
        lines.append(
            f"{title}: best {found.order[0].name}, winner {found.winner or 'none'}, ahead by "
            f"{found.gap:.3f} of {found.least:.3f} that is needed, spread {found.spread:.3f}, "
            f"{share:.0%} of the steps."
        )
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
