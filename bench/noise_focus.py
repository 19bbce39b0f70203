"""Compares shares of noise levels: `python -m bench.noise_focus --out FOLDER`.

Each style of `bench.verdict` is trained with `noise_focus` -0.5, 0 and 0.5, once for each seed, and
the last checkpoint is measured as there: style, adherence, copy ratio, loss on held-out images, and
the distance to the true images. A training is compared with that of focus 0 on the same style and
seed. All run in this process; what has a line in `results.jsonl` is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.trainings import append_line, read_lines, read_options
from bench.verdict import RESULTS, STYLES, Kind, run_one, truth_of

FOCUSES = (0.0, -0.5, 0.5)
SEEDS = (0, 1)
STEPS = 240


def name_of(style: str, seed: int, focus: float) -> str:
    """The name of a training."""
    return f"{style}, focus {focus:g}, seed {seed}"


PLANS = {
    name_of(style, seed, focus): (
        style,
        Kind(
            f"focus {focus:g}",
            STEPS,
            changes={"noise_focus": focus, "seed": seed, "checkpoint_every": 0},
        ),
    )
    for seed in SEEDS
    for style in STYLES
    for focus in FOCUSES
}
MEASURES = ("style", "adherence", "copy ratio", "held-out loss", "truth")


def figures(row: Mapping[str, Any]) -> NDArray[np.floating]:
    """The measures of the last checkpoint of a training."""
    last = row["checkpoints"][-1]
    names = ("adherence", "copy_ratio", "held_out_loss")
    truth = truth_of(row)[-1].mean()
    return np.array([last["style"]["mean"], *(last[name] for name in names), truth])


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the trainings of each style and seed, then the mean differences from focus 0."""
    from worker.core.evaluation.intervals import t_quantile

    focuses = sorted(FOCUSES)
    found = {row["name"]: figures(row) for row in rows}
    groups = []
    print(f"Each cell: focus {', '.join(f'{focus:g}' for focus in focuses)}\n")
    print(f"| Training | {' | '.join(MEASURES)} |")
    print(f"|---|{'---|' * len(MEASURES)}")
    for seed in SEEDS:
        for style in STYLES:
            names = [name_of(style, seed, focus) for focus in focuses]
            if not found.keys() >= set(names):
                continue
            values = np.array([found[name] for name in names])
            groups.append(values - values[focuses.index(0.0)])
            cells = [", ".join(f"{one:.3f}" for one in measure) for measure in values.T]
            print(f"| {style}, seed {seed} | {' | '.join(cells)} |")
    if len(groups) < 2:
        return
    for changes, focus in zip(np.swapaxes(groups, 0, 1), focuses, strict=True):
        if not focus:
            continue
        error = changes.std(axis=0, ddof=1) / np.sqrt(len(groups))
        reach = t_quantile(0.95, len(groups) - 1) * error
        print(f"\nfocus {focus:g} against 0 in {len(groups)} trainings, 95 %")
        for measure, mean, half in zip(MEASURES, changes.mean(axis=0), reach, strict=True):
            print(f"{measure}: {mean:+.3f} ± {half:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bench, or print its table."""
    options = read_options(__doc__, PLANS, argv)
    path, names = options.out / RESULTS, [options.one] if options.one else list(PLANS)
    done = {row["name"] for row in read_lines(path) if row["scale"] == options.scale}
    for name in names:
        if name not in done and not options.table:
            row = run_one(
                name, options.out, scale=options.scale, threads=options.threads, plans=PLANS
            )
            append_line(path, row)
    print_table([row for row in read_lines(path) if row["scale"] == options.scale])


if __name__ == "__main__":
    main()
