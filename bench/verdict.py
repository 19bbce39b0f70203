"""Checks the recommendations of `brushwork evaluate`: `python -m bench.verdict --out FOLDER`.

On the embedded base and five drawn styles that it never saw (bench/styles.py); no choice of a
measure or a limit has seen blueprint and glass. For each style six trainings: four healthy ones, of
which three can be trained too far (a constant rate, three times the rate, 8 images for 400 steps);
one of three images that copies; one whose rate ruins it. Each gives five checkpoints.

The truth is the distance of each image to the true image of its subject, which the style's filter
draws from the same artwork, in features that no measure uses: the products of random filters'
responses, and colors. Printed beside the recommendation: always the last checkpoint, the one of the
lowest held-out loss, and the expectation of a random one. A choice is right if it is the best by
truth, or its paired interval over the subjects includes the best.

Each healthy run also gives a sheet for blind choices: rows in a random order, their key in the
results. Answers stand in `choices.json`: {judge: {run: letters of the best and of those that look
equally good}}. Ten runs are measured on 24 other subjects too: two halves are to differ by
no more than their intervals say.

Each run is a process of its own and gives a line of `results.jsonl`; what has one is not run again.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from string import ascii_uppercase as LETTERS
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.trainings import LEAST_STEPS, append_line, read_lines, read_options, train_missing

RESULTS = "results.jsonl"
STYLES = ("chalkboard", "linocut", "neon", "blueprint", "glass")
UNSEEN = ("blueprint", "glass")
CHOICES_FILE = "choices.json"
SUBJECTS = 24
SHOWN = 8  # subjects in the sheet of a blind choice
CHECKPOINTS = 5
HELD_OUT = 4
HALVES = ("usual", "constant rate")  # kinds that are measured on other subjects too
MAX_SHARE = 0.5  # that a training holds out
Values = NDArray[np.floating]


@dataclass(frozen=True)
class Kind:
    """A way to train on each style: steps, images to train on, and changes of the preset Quick."""

    name: str
    steps: int
    images: int = 20
    changes: Mapping[str, Any] = field(default_factory=dict)
    expected: str = "healthy"
    held_out: int = HELD_OUT

    @property
    def share(self) -> float:
        """The share of the images to hold out; 0 where training takes none."""
        share = self.held_out / (self.images + self.held_out)
        return share if share <= MAX_SHARE else 0.0


KINDS = (
    Kind("usual", 240),
    Kind("constant rate", 240, changes={"lr_scheduler": "constant"}),
    Kind("rate ×3", 160, changes={"learning_rate": 6e-3, "lr_scheduler": "constant"}),
    Kind("8 images", 400, 8),
    Kind("copy", 240, 3, {"learning_rate": 3e-3, "lr_scheduler": "constant"}, "copies", 8),
    Kind("ruined", 50, changes={"learning_rate": 4e-2, "warmup_steps": 0}, expected="ruined"),
)
PLANS = {f"{style}, {kind.name}": (style, kind) for style in STYLES for kind in KINDS}


def run_one(
    name: str,
    out: Path,
    *,
    scale: float,
    threads: int,
    plans: Mapping[str, tuple[str, Kind]] = PLANS,
) -> dict[str, Any]:
    """Train and evaluate one plan in this process; returns its line of the results."""
    import torch

    from bench.styles import draw_style
    from tools.starter.artwork import load_artwork
    from worker.core import starter
    from worker.core.evaluation.drawing import AdapterFile, FolderDrawing
    from worker.core.evaluation.evaluate import Captioned, Question, References, evaluate
    from worker.core.eyes import open_eyes
    from worker.core.inference.pipeline import ResidentPipeline
    from worker.core.starter.sheet import contact_sheet
    from worker.core.training.checkpoints import checkpoints_in
    from worker.core.training.data.images import open_image, read_folder
    from worker.core.training.data.split import split
    from worker.core.training.events import ADAPTERS
    from worker.core.training.presets import default_guidance

    torch.set_num_threads(threads)
    style, kind = plans[name]
    artwork = out / "artwork"
    subjects = load_artwork(artwork if artwork.is_dir() else None)
    shown, others = (read_folder(folder) for folder in draw_style(style, subjects, out / "styles"))
    used = shown[: kind.images + kind.held_out]
    started = time.monotonic()
    folder = out / "trainings" / name.replace(", ", "-").replace(" ", "-")
    if kind.share:
        losses = train_plan(kind, used, folder, scale=scale)
        trained, held_out = split(used, kind.share, seed=kind.changes.get("seed", 0))
    else:
        trained, held_out = used[: kind.images], used[kind.images :]
        losses = train_plan(kind, trained, folder, scale=scale)
    pipeline = ResidentPipeline.load(starter.PATH)
    guidance = default_guidance(pipeline.base.info.resolution)
    paths = checkpoints_in(folder / "checkpoints" / ADAPTERS)
    files = {str(int(path.stem.rpartition("-")[2])): AdapterFile(path) for path in paths}
    drawing = FolderDrawing(pipeline, folder / "evaluation", files, guidance=guidance)
    names = [one.caption.partition(",")[0] for one in others]
    known = [at for at, one in enumerate(names) if base_knows(one)]

    def ask(places: Sequence[int]) -> Question:
        """Subjects at these places of the ones that nothing was trained on."""
        return Question(
            [others[at].caption for at in places],
            [names[at] for at in places],
            [Captioned(open_image(one), one.caption) for one in trained],
            [Captioned(open_image(one), one.caption) for one in held_out],
        )

    chosen, question = known[:SUBJECTS], ask(known[:SUBJECTS])
    eyes = open_eyes(device="cpu")
    report = evaluate(question, [*files], drawing=drawing, eyes=eyes)
    order, again = [*files], dict[str, Values]()
    random.Random(zlib.crc32(name.encode())).shuffle(order)
    if kind.name in HALVES:
        other = ask(known[SUBJECTS : 2 * SUBJECTS])
        references = References(other, drawing=drawing, eyes=eyes)
        for step in files:
            drawn = drawing.images(step, other.prompts)
            again[step] = references.measure(step, drawn).style.parts
    if kind.expected == "healthy":
        columns = question.subjects[:SHOWN]
        images = [drawing.images(step, question.prompts)[:SHOWN] for step in order]
        dataset = drawing.through_autoencoder([one.image for one in question.trained[:SHOWN]])
        sheet = contact_sheet(["dataset", *LETTERS[: len(order)]], columns, [dataset, *images])
        (out / "sheets").mkdir(exist_ok=True)
        sheet.save(out / "sheets" / f"{folder.name}.png")
    true = drawing.through_autoencoder([open_image(others[at]) for at in chosen])
    rows = []
    for one in report.candidates:
        ratio = None if one.memory is None else one.memory.ratio
        truth = distances(drawing.images(one.name, question.prompts), true)
        rows.append(
            {
                "step": int(one.name),
                "style": asdict(one.style_interval),
                "parts": rounded(one.style.parts),
                "other_parts": rounded(again.get(one.name, np.array([]))),
                "adherence": one.mean_adherence,
                "adherence_parts": [] if one.adherence is None else rounded(one.adherence),
                "memory": asdict(one.memory) if one.memory else {"distances": (), "ratio": None},
                "copy_ratio": ratio,
                "held_out_loss": losses.get(int(one.name)),
                "truth": rounded(truth),
            }
        )
    return {
        "name": name,
        "scale": scale,
        "checkpoints": rows,
        "sheet": dict(zip(LETTERS, map(int, order), strict=False)),
        "seconds": round(time.monotonic() - started),
    }


def rounded(values: Values) -> list[float]:
    """Numbers for a line of the results."""
    return [round(value, 5) for value in values.tolist()]


def train_plan(
    kind: Kind, images: Sequence[Any], folder: Path, *, scale: float
) -> dict[int, float]:
    """Train on images, of which the kind's share is held out; returns the loss on those by step."""
    from worker.core import starter
    from worker.core.bases.inspect import inspect_base
    from worker.core.training.config import TrainConfig
    from worker.core.training.events import Commands, Event, ValidationDone
    from worker.core.training.load import load_for_training
    from worker.core.training.presets import Preset, preset_config
    from worker.core.training.train import train

    steps = max(LEAST_STEPS, round(kind.steps * scale))
    usual = preset_config(Preset.QUICK, resolution=inspect_base(starter.PATH).resolution, images=24)
    values = usual.model_dump(mode="json") | {
        "steps": steps,
        "batch_size": min(4, kind.images),
        "warmup_steps": steps // 20,
        "checkpoint_every": steps // CHECKPOINTS,
        "sample_every": 0,
        "sample_prompts": [],
        "validation_share": kind.share,
        "seed": 0,
    }
    config = TrainConfig.model_validate(values | dict(kind.changes))
    losses: dict[int, float] = {}

    class Listener:
        """Notes the held-out losses; the other events are not needed."""

        def on_event(self, event: Event) -> None:
            if isinstance(event, ValidationDone):
                losses[event.step] = event.loss

        def poll(self) -> Commands:
            return Commands()

    base = load_for_training(starter.PATH, device="cpu", config=config)
    train(config, images, Listener(), base=base, out=folder, cache=folder.parent / "cache")
    return losses


def base_knows(subject: str) -> bool:
    """True if the embedded base was taught this subject by its name."""
    from worker.core.starter.prompt_words import read_prompt

    found = read_prompt(subject)
    return found.has_subject and not found.unknown


def distances(images: Sequence[Image.Image], true: Sequence[Image.Image]) -> Values:
    """For each image its distance to the true one: the mean log of that of filters and colors."""
    pairs = [(describe(one), describe(other)) for one, other in zip(images, true, strict=True)]
    return np.array(
        [
            np.mean([np.log(np.linalg.norm(a - b)) for a, b in zip(*pair, strict=True)])
            for pair in pairs
        ]
    )


def describe(image: Image.Image) -> tuple[Values, Values]:
    """Products of 32 random filters' responses (Gatys et al. 2016), and the spread of colors."""
    rng = np.random.default_rng(20_261_130)
    pixels = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)) / 255 - 0.5
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (7, 7, 3))[::2, ::2, 0]
    filters = rng.standard_normal((7 * 7 * 3, 32)) / 12
    seen = np.maximum(windows.reshape(-1, 7 * 7 * 3) @ filters, 0)
    edges = np.linspace(-0.5, 0.5, 7)
    colors, _ = np.histogramdd(pixels.reshape(-1, 3), bins=(edges, edges, edges))
    return seen.T @ seen / len(seen), np.sqrt(colors / colors.sum())


def truth_of(row: Mapping[str, Any]) -> Values:
    """The truth of each checkpoint, (checkpoints, subjects); less is better."""
    return np.array([one["truth"] for one in row["checkpoints"]])


def is_right(row: Mapping[str, Any], place: int) -> bool:
    """True if this checkpoint is the best by truth, or cannot be told from it."""
    from worker.core.evaluation.intervals import mean_interval

    truth = truth_of(row)
    best = int(np.argmin(truth.mean(axis=1)))
    found = mean_interval(truth[place] - truth[best], comparisons=len(truth) - 1)
    return place == best or found.low is None or found.low <= 0


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def with_choice(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the results with the choice that today's rule makes of its measures."""
    from worker.core.evaluation.choice import Candidate, choose
    from worker.core.evaluation.measures import Memory
    from worker.core.evaluation.style import StyleScore

    candidates = [
        Candidate(
            str(one["step"]),
            StyleScore(one["style"]["mean"], np.array(one["parts"])),
            np.array(one["adherence_parts"]) if one["adherence_parts"] else None,
            Memory(**one["memory"]),
        )
        for one in row["checkpoints"]
    ]
    return {**row, "choice": asdict(choose(candidates))}


def recommended(row: Mapping[str, Any]) -> int | None:
    """The place of the recommended checkpoint; None if none was."""
    names = [str(one["step"]) for one in row["checkpoints"]]
    chosen = row["choice"]["name"]
    return None if chosen is None else names.index(chosen)


def least_loss(row: Mapping[str, Any]) -> int | None:
    """The place of the checkpoint with the lowest held-out loss."""
    losses = [one["held_out_loss"] for one in row["checkpoints"]]
    return None if None in losses else int(np.argmin(losses))


CHOICES: Mapping[str, Callable[[Mapping[str, Any]], int | None]] = {
    "recommended": recommended,
    "the last": lambda row: len(row["checkpoints"]) - 1,
    "lowest held-out loss": least_loss,
}


def agreement(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How often an interval of a difference held, and of how many.

    Each difference of neighbors is measured on two halves of the subjects: the two means are to
    differ by no more than the intervals of both, added as their squares.
    """
    from worker.core.evaluation.intervals import mean_interval

    held = total = 0
    for row in rows:
        for one, other in pairwise(row["checkpoints"]):
            if not one["other_parts"]:
                continue
            halves = [
                mean_interval(np.array(other[key]) - np.array(one[key]))
                for key in ("parts", "other_parts")
            ]
            reach = np.hypot(*[(half.high or 0) - half.mean for half in halves])
            held += abs(halves[0].mean - halves[1].mean) <= reach
            total += 1
    return held, total


def print_blind(
    rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Mapping[str, str]]
) -> None:
    """How often each way to choose takes a checkpoint that a judge would keep."""
    for judge, chosen in choices.items():
        seen = [(row, kept_by(row, chosen[row["name"]])) for row in rows if row["name"] in chosen]
        found = [
            f"{name} {sum(choose(row) in kept for row, kept in seen)}"
            for name, choose in CHOICES.items()
        ]
        chance = sum(len(kept) / len(row["checkpoints"]) for row, kept in seen)
        print(f"{judge}, of {len(seen)}: {', '.join(found)}, a random one {chance:.1f}")


def kept_by(row: Mapping[str, Any], letters: str) -> set[int]:
    """The places of the checkpoints behind the letters of a sheet."""
    steps = [one["step"] for one in row["checkpoints"]]
    return {steps.index(row["sheet"][letter]) for letter in letters}


def print_table(
    rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Mapping[str, str]]
) -> None:
    """Print each run, then how often each way to choose was right."""
    print("| Run | Steps | Style | Copy ratio | Best by truth | Recommended | Left out |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        points, choice = row["checkpoints"], row["choice"]
        best = points[int(np.argmin(truth_of(row).mean(axis=1)))]["step"]
        chosen = recommended(row)
        mark = "" if chosen is None or is_right(row, chosen) else " (wrong)"
        ratios = [one["copy_ratio"] for one in points if one["copy_ratio"] is not None]
        cells = [
            row["name"],
            ", ".join(str(one["step"]) for one in points),
            ", ".join(f"{one['style']['mean']:.2f}" for one in points),
            ", ".join(f"{ratio:.2f}" for ratio in ratios),
            str(best),
            f"{choice['name'] or 'none'}{mark}",
            ", ".join(
                f"{name}: {why.partition(' ')[0].strip(':')}"
                for name, why in choice["left_out"].items()
            ),
        ]
        print(f"| {' | '.join(cells)} |")
    for title, styles in (("all styles", STYLES), ("unseen styles", UNSEEN)):
        print_summary(title, [row for row in rows if PLANS[row["name"]][0] in styles], choices)


def print_summary(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    choices: Mapping[str, Mapping[str, str]],
) -> None:
    """How often each way to choose was right among healthy runs, and what was caught."""
    healthy = [row for row in rows if PLANS[row["name"]][1].expected == "healthy"]
    if not healthy:
        return
    print(f"\n{title}: {len(healthy)} healthy runs")
    for name, choose in CHOICES.items():
        places = [(row, choose(row)) for row in healthy]
        right = sum(place is not None and is_right(row, place) for row, place in places)
        print(f"{name}: right in {right} of {len(healthy)}")
    chance = [
        np.mean([is_right(row, at) for at in range(len(row["checkpoints"]))]) for row in healthy
    ]
    print(f"a random one: right in {sum(chance):.1f} of {len(healthy)} on average")
    ranks = [
        rank_correlation(
            [-one["style"]["mean"] for one in row["checkpoints"]], truth_of(row).mean(axis=1)
        )
        for row in healthy
    ]
    print(f"rank correlation of style and truth within a run: {np.mean(ranks):.2f} on average")
    print("{} of {} differences of neighbors agree on two halves".format(*agreement(healthy)))
    print_blind(healthy, choices)
    print_alarms(healthy, choices)
    for expected, word in (("copies", "draws"), ("ruined", "ruined")):
        bad = [row for row in rows if PLANS[row["name"]][1].expected == expected]
        caught = sum(
            any(why.startswith(word) for why in row["choice"]["left_out"].values()) for row in bad
        )
        print(f"{expected}: {caught} of {len(bad)} caught")


def print_alarms(
    rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Mapping[str, str]]
) -> None:
    """In how many healthy runs a checkpoint is left out, and in how many wrongly."""
    alarms = equal = kept = 0
    for row in rows:
        steps = [str(one["step"]) for one in row["checkpoints"]]
        places = {steps.index(name) for name in row["choice"]["left_out"]}
        letters = [chosen.get(row["name"], "") for chosen in choices.values()]
        alarms += bool(places)
        equal += any(is_right(row, place) for place in places)
        kept += any(places & kept_by(row, kept_rows) for kept_rows in letters)
    print(f"a checkpoint left out in {alarms} of {len(rows)} healthy runs")
    print(f"of these, not told from the best by the truth: {equal}; kept by a judge: {kept}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bench, or print its table."""
    options = read_options(__doc__, PLANS, argv)
    out, scale = options.out, options.scale
    if options.one:
        append_line(out / RESULTS, run_one(options.one, out, scale=scale, threads=options.threads))
        return
    rows = [row for row in read_lines(out / RESULTS) if row["scale"] == scale]
    if not options.table:
        train_missing("bench.verdict", PLANS, options, done={row["name"] for row in rows})
        rows = [row for row in read_lines(out / RESULTS) if row["scale"] == scale]
    rows = [with_choice(row) for row in rows]
    answers = out / CHOICES_FILE
    print_table(rows, json.loads(answers.read_text()) if answers.is_file() else {})


if __name__ == "__main__":
    main()
