"""Compares LoRA with full fine-tuning of the same base: `python -m bench.lora_vs_full`.

On the embedded base, at its own size, and three styles that it never saw (bench/styles.py): 24
captioned images to train on, 60 other subjects in the same style held out. Every rank and every
weight of the base are trained by the same loop for as many steps on the same batches, each in its
own process.

Full fine-tuning gets the best of its learning rates on each style, by held-out loss at the end. A
LoRA gets the best of its rates at the rank of the preset Quick (or at the only `--rank`), which the
others then use too; it is in the layers that this preset trains, or in `--targets`.

held-out loss   the squared error on the held-out subjects, at the same noise and noise levels
gain            how far the loss fell below the base's, as a share of how far full fine-tuning's did
style distance  between generated images of held-out subjects and the true ones (see starter/style)

The artwork comes from npm; `--artwork` names a folder with the tarballs. With `--out`, every
result is stored at once, and those of the same base are not trained again, so an interrupted bench
goes on. `--jobs 2` trains two at a time, each on `--threads` cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.full import BASE, TrainingTask
from bench.styles import STYLES, draw_style
from bench.training import ROOT, heading
from tools.starter.artwork import load_artwork
from worker.core.training.config import Targets
from worker.core.training.presets import Preset, preset_config

USUAL = preset_config(Preset.QUICK, resolution=BASE.resolution, images=24)
"""The parts of this base that the shortest preset trains, and their rank."""

RANKS = (2, 4, 8, 16)
FULL_RATES = (2.5e-5, 5e-5, 1e-4, 2e-4)
LORA_RATES = (5e-4, 1e-3, 2e-3)
STEPS = 250
MIB = 2**20
COLUMNS = (
    *("trained", "parameters", "share", "file", "peak memory", "CPU", "rate"),
    *("held-out loss", "gain", "style distance"),
)
Result = Mapping[str, Any]


@dataclass
class Bench:
    """Trains each task once and keeps the results."""

    folder: Path
    threads: int
    jobs: int = 1
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.known[row.pop("task")] = row

    def result(self, task: TrainingTask) -> Result:
        """The result of a task, from an earlier run if there was one."""
        if task.key not in self.known:
            print(f"  {task.key}", file=sys.stderr, flush=True)
            row = self._train(task)
            with self.writing, self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"task": task.key, **row}) + "\n")
            self.known[task.key] = row
        return self.known[task.key]

    def results(self, tasks: Iterable[TrainingTask]) -> list[Result]:
        """The results of several tasks in their order, `jobs` of them trained at a time."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self.result, tasks))

    def best(self, tasks: Sequence[TrainingTask]) -> TrainingTask:
        """The task with the lowest final held-out loss."""
        return min(tasks, key=lambda task: float(self.result(task)["loss"]))

    @property
    def _file(self) -> Path:
        """The results with this base; another one has a file of its own."""
        return self.folder / f"results-{BASE.fingerprint[:12]}.jsonl"

    def _train(self, task: TrainingTask) -> dict[str, Any]:
        words = json.dumps(asdict(task) | {"threads": self.threads})
        done = subprocess.run(
            [sys.executable, "-m", "bench.full", words],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise SystemExit(f"“{task.key}” ended with exit status {done.returncode}.")
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all selected tasks and print a table for each style."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--style", action="append", choices=STYLES, help="only this (repeatable)")
    parser.add_argument("--rank", action="append", type=int, help="only this (repeatable)")
    parser.add_argument("--targets", choices=list(Targets), default=USUAL.targets, help="a LoRA's")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--full-rate", action="append", type=float, help="instead of the usual")
    parser.add_argument("--lora-rate", action="append", type=float, help="instead of the usual")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; default: 1")
    parser.add_argument("--artwork", type=Path, help="folder with the npm tarballs")
    parser.add_argument("--out", type=Path, help="folder that keeps images and results")
    options = parser.parse_args(arguments)
    print(heading("bench.lora_vs_full"))
    with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        subjects = load_artwork(options.artwork)
        bench = Bench(folder, options.threads, options.jobs)
        for style in options.style or STYLES:
            trained, held_out = draw_style(style, subjects, folder)
            plan = StylePlan(style, str(trained), str(held_out), options.steps, options.targets)
            for line in table(bench, plan, options):
                print(line, flush=True)


@dataclass(frozen=True, slots=True)
class StylePlan:
    """A style's images and the number of training steps."""

    style: str
    trained: str
    held_out: str
    steps: int
    targets: str = USUAL.targets

    def task(self, rank: int, rate: float, *, steps: int | None = None) -> TrainingTask:
        """Rank 0 trains every weight; 0 steps leave the base unchanged."""
        return TrainingTask(
            style=self.style,
            trained=self.trained,
            held_out=self.held_out,
            rank=rank,
            learning_rate=rate,
            steps=self.steps if steps is None else steps,
            options=(("targets", self.targets),) if rank else (),
        )


def tuned_rank(ranks: Sequence[int] | None) -> int:
    """The rank at which a LoRA's learning rate is chosen."""
    return ranks[0] if ranks and len(ranks) == 1 else USUAL.rank


def table(bench: Bench, plan: StylePlan, options: argparse.Namespace) -> Iterator[str]:
    """The lines of one style's table, in Markdown."""
    full_rates = options.full_rate or FULL_RATES
    lora_rates = options.lora_rate or LORA_RATES
    untrained = plan.task(0, full_rates[0], steps=0)
    full_tasks = [plan.task(0, rate) for rate in full_rates]
    lora_tasks = [plan.task(tuned_rank(options.rank), rate) for rate in lora_rates]
    before = bench.results([untrained, *full_tasks, *lora_tasks])[0]
    full, lora = bench.best(full_tasks), bench.best(lora_tasks)
    yield f"\n**{plan.style}**, {plan.steps} steps of 8 images, LoRA in {plan.targets}\n"
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    loss, distance = f"{before['loss']:.4f}", f"{before['distance']:.2f}"
    yield "| " + " | ".join(["nothing", *["–"] * 6, loss, "0 %", distance]) + " |"
    chosen = [plan.task(rank, lora.learning_rate) for rank in options.rank or RANKS]
    for task, result in zip((*chosen, full), bench.results((*chosen, full)), strict=True):
        yield row(task, result, before, bench.result(full))


def row(task: TrainingTask, result: Result, before: Result, full: Result) -> str:
    """One line: the task, its cost, its result."""
    cells = [
        f"rank {task.rank}" if task.rank else "everything",
        f"{result['trained']:,}",
        f"{result['trained'] / result['of']:.2%}",
        f"{result['file_bytes'] / MIB:.2f} MiB",
        f"{result['peak_bytes'] / MIB:.0f} MiB",
        f"{result['cpu_seconds']:.0f} s",
        f"{task.learning_rate:g}",
        f"{result['loss']:.4f}",
        f"{gain(result, before, full):.1%}",
        f"{result['distance']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def gain(result: Result, before: Result, full: Result) -> float:
    """The reduction of held-out loss as a share of full fine-tuning's reduction."""
    return float((before["loss"] - result["loss"]) / (before["loss"] - full["loss"]))


if __name__ == "__main__":
    main()
