"""Trains healthy and ruined runs and checks which are called ruined: `python -m bench.ruined`.

Twenty runs that a person could want, over the three presets of the embedded base and both example
styles, must give no false alarm. Five ways to ruin a run, written down here before the first of
them was tried, must all be caught: the result is called ruined, or the run fails by itself.

Each run is trained in a process of its own and gives a line of `results.jsonl` in the folder
`--out`; runs that have one are not trained again, and an interrupted one goes on from its
checkpoint. With `--scale` the runs are shorter, and the table says how long each was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.trainings import LEAST_STEPS, append_line, read_lines, read_options, train_missing

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Plan:
    """A run: a preset on an example style, with the settings that a person changed."""

    name: str
    preset: str
    style: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    times_rate: float = 1.0
    is_ruinous: bool = False


HEALTHY = (
    Plan("quick chalkboard", "quick", "chalkboard"),
    Plan("quick linocut", "quick", "linocut"),
    Plan("rank 16", "quick", "chalkboard", {"rank": 16, "alpha": 16.0, "seed": 1}),
    Plan("rank 32, half the rate", "quick", "linocut", {"rank": 32, "alpha": 32.0}, 0.5),
    Plan("Prodigy", "quick", "chalkboard", {"optimizer": "prodigy", "seed": 2}),
    Plan("Adafactor", "quick", "linocut", {"optimizer": "adafactor"}),
    Plan("schedule-free", "quick", "chalkboard", {"optimizer": "adamw_schedule_free"}),
    Plan("LoKr", "quick", "linocut", {"kind": "lokr", "seed": 3}),
    Plan("twice the rate", "quick", "chalkboard", {"seed": 4}, 2.0),
    Plan("64 px", "quick", "linocut", {"resolution": 64}),
    Plan("balanced chalkboard", "balanced", "chalkboard"),
    Plan("balanced linocut", "balanced", "linocut"),
    Plan("batch 4", "balanced", "linocut", {"batch_size": 4, "seed": 5}),
    Plan("LoRA+ 4", "balanced", "chalkboard", {"lora_plus_ratio": 4.0}),
    Plan("average", "balanced", "linocut", {"ema_decay": 0.98}),
    Plan("thorough chalkboard", "thorough", "chalkboard"),
    Plan("thorough linocut", "thorough", "linocut"),
    Plan("min-SNR", "thorough", "chalkboard", {"loss_weighting": "min_snr", "batch_size": 4}),
    Plan("pseudo-Huber", "thorough", "linocut", {"loss": "huber", "batch_size": 4}),
    Plan("flip, dropout", "thorough", "chalkboard", {"flip": True, "caption_dropout": 0.2}),
)
RUINOUS = (
    Plan("rate ×30", "quick", "chalkboard", times_rate=30, is_ruinous=True),
    Plan("rate ×500", "quick", "linocut", times_rate=500, is_ruinous=True),
    Plan(
        "alpha 64 times the rank, no warm-up",
        "quick",
        "chalkboard",
        {"alpha": 256.0, "warmup_steps": 0, "weight_decay": 0.5},
        is_ruinous=True,
    ),
    Plan(
        "rate ×100 in bf16",
        "quick",
        "linocut",
        {"precision": "bf16", "batch_size": 2},
        100,
        is_ruinous=True,
    ),
    Plan(
        "wrong prediction type", "quick", "chalkboard", {"prediction_type": "epsilon"},
        is_ruinous=True,
    ),
)  # fmt: skip
PLANS = {plan.name: plan for plan in (*HEALTHY, *RUINOUS)}


def make_config(plan: Plan, *, resolution: int, images: int, scale: float) -> Any:
    """The TrainConfig of a plan: that of its preset with the changes, shortened by `scale`."""
    from worker.core.starter.examples import EXAMPLES
    from worker.core.training.config import TrainConfig
    from worker.core.training.presets import Preset, for_optimizer, preset_config, usual_form

    preset = preset_config(
        Preset(plan.preset),
        resolution=resolution,
        images=images,
        prompt_form=usual_form(EXAMPLES[plan.style].trigger),
    )
    usual = for_optimizer(preset, plan.changes.get("optimizer"))
    steps = max(LEAST_STEPS, round(usual.steps * scale))
    every = max(1, steps // 2)
    values = usual.model_dump(mode="json") | {
        "steps": steps,
        "warmup_steps": round(usual.warmup_steps * steps / usual.steps),
        "checkpoint_every": every,
        "sample_every": 0,
        "learning_rate": min(1.0, usual.learning_rate * plan.times_rate),
    }
    return TrainConfig.model_validate(values | dict(plan.changes))


def train_one(plan: Plan, folder: Path, *, scale: float, threads: int) -> dict[str, Any]:
    """Train one plan in this process; returns its line of the results."""
    import torch

    from worker.core import starter
    from worker.core.bases.inspect import inspect_base
    from worker.core.starter.examples import EXAMPLES
    from worker.core.training.data.images import read_folder
    from worker.core.training.errors import TrainingError
    from worker.core.training.events import Commands, Event, FixedLoss
    from worker.core.training.load import load_for_training
    from worker.core.training.train import train

    torch.set_num_threads(threads)
    images = read_folder(EXAMPLES[plan.style].folder)
    info = inspect_base(starter.PATH)
    config = make_config(plan, resolution=info.resolution, images=len(images), scale=scale)
    losses: dict[int, float] = {}
    rises: dict[int, float] = {}

    class Listener:
        """Notes the losses on the fixed images; the others are not needed."""

        def on_event(self, event: Event) -> None:
            if isinstance(event, FixedLoss):
                losses[event.step], rises[event.step] = event.loss, round(event.rise, 3)

        def poll(self) -> Commands:
            return Commands()

    found: dict[str, Any] = {
        "name": plan.name,
        "scale": scale,
        "steps": config.steps,
        "learning_rate": config.learning_rate,
    }
    started = time.monotonic()
    try:
        trained = train(
            config,
            images,
            Listener(),
            base=load_for_training(starter.PATH, device="cpu", config=config),
            out=folder,
            cache=folder.parent / "cache",
        )
    except TrainingError as error:
        found |= {"verdict": "failed", "reason": str(error)}
    else:
        verdict = "ruined" if trained.verdict.reason else "healthy"
        found |= {"verdict": verdict, "reason": trained.verdict.reason}
    return found | {
        "losses": losses,
        "rises": rises,
        "samples": sample_variations(folder / "samples"),
        "seconds": round(time.monotonic() - started),
    }


def sample_variations(folder: Path) -> dict[str, list[float]]:
    """The variation of the contrast of patches in each sample, by step: small in noise."""
    import numpy as np
    from PIL import Image

    from worker.core.training.ruined import contrast_variation, reduced

    found = {}
    for row in sorted(folder.glob("step-*")):
        values = []
        for path in sorted(row.glob("*.png")):
            with Image.open(path) as image:
                pixels = reduced(image)
            is_flat = not np.ptp(pixels)
            values.append(0.0 if is_flat else round(contrast_variation(pixels), 2))
        found[str(int(row.name.removeprefix("step-")))] = values
    return found


def read_results(out: Path) -> list[dict[str, Any]]:
    """The measurements so far, the newest line of each run."""
    rows = read_lines(out / RESULTS)
    return list({(row["name"], row["scale"]): row for row in rows}.values())


def is_right(row: Mapping[str, Any]) -> bool:
    """True when a healthy run raised no alarm, or a ruinous one was caught."""
    return (row["verdict"] != "healthy") is PLANS[row["name"]].is_ruinous


def loss_ratio(row: Mapping[str, Any]) -> float | None:
    """The last loss on the fixed images divided by the base model's; None if it failed before."""
    losses = {int(step): loss for step, loss in row["losses"].items()}
    last = max(losses, default=0)
    return losses[last] / losses[0] if last else None


def last_rise(row: Mapping[str, Any]) -> float | None:
    """The same for the quarter of the noise levels where it is highest."""
    rises: dict[str, float] = row.get("rises", {})
    last = max(rises, key=int, default="0")
    return rises[last] if int(last) else None


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what ran, and how many of how many."""
    print("| Run | Preset, style | Steps | Loss | In the worst quarter | Samples | Verdict |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        plan, ratio = PLANS[row["name"]], loss_ratio(row)
        last, rise = max(row["samples"], key=int, default="0"), last_rise(row)
        variation = min(row["samples"].get(last, []), default=None)
        print(
            f"| {plan.name} | {plan.preset}, {plan.style} | {row['steps']} "
            f"| {'–' if ratio is None else f'×{ratio:.2f}'} "
            f"| {'–' if rise is None else f'×{rise:.2f}'} "
            f"| {'–' if variation is None else f'{variation:.2f}'} "
            f"| {row['verdict']}{'' if is_right(row) else ' (wrong)'} |"
        )
    for title, plans in (("healthy", HEALTHY), ("ruinous", RUINOUS)):
        names = {plan.name for plan in plans}
        ran = [row for row in rows if row["name"] in names]
        right = sum(map(is_right, ran))
        print(f"{title}: {right} of {len(ran)} right; {len(ran)} of {len(plans)} ran.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bench, or print its table."""
    options = read_options(__doc__, PLANS, argv)
    out, scale = options.out, options.scale
    if options.one:
        folder = out / f"{options.one.replace(' ', '-')}-{scale:g}"
        plan = PLANS[options.one]
        append_line(out / RESULTS, train_one(plan, folder, scale=scale, threads=options.threads))
        return
    if not options.table:
        done = {row["name"] for row in read_results(out) if row["scale"] == scale}
        names = [plan.name for plan in (*RUINOUS, *HEALTHY)]
        train_missing("bench.ruined", names, options, done=done)
    print_table([row for row in read_results(out) if row["scale"] == scale])


if __name__ == "__main__":
    main()
