"""Measures the cost of training against a plain loop: `python -m bench.training`.

Prints ratios that were measured side by side in one run on this machine: Brushwork's training core
against "the plain way" (bench/plain.py), which encodes every image and caption again in each step
as diffusers' official script does. Both take turns, each in its own process.

tiny      8.8 M UNet with random weights, 64 px: CPU time of a step, held-out loss, peak memory
starter   the same with the embedded base on its example style
sd15      the exact shapes of Stable Diffusion 1.5 with random weights, 128 px, batch 1
cache     a second run on the same images: calls of the encoders, time of the first step
dataset   24 images and 10,000: the start with all encoded, and a step
memory    whether a long run grows

Times are the process's CPU time on all its threads; wall time is marked "wall".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from worker.runtime.device import describe_processor

ROOT = Path(__file__).parents[1]
WARM_UP = 3  # steps that are not counted; one where steps are few
FEW = 12
LONG_RUN = (200, 1_000)
DATASETS = (24, 10_000)
Times = Mapping[str, float]


@dataclass
class Contender:
    """A process that trains step by step."""

    process: subprocess.Popen[str]
    complaints: IO[str]
    steps: list[dict[str, float]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    def step(self) -> None:
        """Let it take one step and record its time."""
        assert self.process.stdin
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.steps.append(self._answer())

    def finish(self) -> None:
        """Wait for its result."""
        self.end = self._answer()["end"]
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)  # type: ignore[no-any-return]
        self.complaints.seek(0)
        print(self.complaints.read(), file=sys.stderr)
        raise SystemExit(f"A contender ended without an answer (exit {self.process.wait()}).")


@contextmanager
def contender(way: str, base: str, folder: Path, **task: Any) -> Iterator[Contender]:
    """Start a contender; it is stopped when the context ends."""
    words = json.dumps({"way": way, "base": base, "folder": str(folder), **task})
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "bench.contender", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(task["threads"])},
        ) as process,
    ):
        try:
            yield Contender(process, complaints)
        finally:
            process.kill()


@dataclass(frozen=True)
class Side:
    """The results of one contender over all its runs."""

    steps: Sequence[Times]
    ends: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, runs: Sequence[Contender]) -> Side:
        """Combine runs, without their first steps."""
        return cls([step for run in runs for step in counted(run.steps)], [run.end for run in runs])

    def median(self, what: str) -> float:
        """Milliseconds of a step."""
        return statistics.median(step[what] for step in self.steps) * 1_000

    def least(self, what: str) -> float:
        """Milliseconds of the shortest step."""
        return min(step[what] for step in self.steps) * 1_000

    def ending(self, what: str) -> float:
        """The median over the runs of a final value."""
        return statistics.median(end[what] for end in self.ends)


def counted(steps: Sequence[Times]) -> Sequence[Times]:
    """The steps that count: without the first few, which build caches."""
    return steps[WARM_UP if len(steps) > FEW else 1 :]


def ratio(ours: float, plain: float) -> float:
    """Our cost as a share of the plain loop's; below 1 is less."""
    return ours / plain


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the selected parts and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this (repeatable)")
    parser.add_argument("--steps", type=int, help="steps of a run (tiny, starter 60; sd15 5)")
    parser.add_argument(
        "--repeats", type=int, default=2, help="runs of each contender (default: 2)"
    )
    parser.add_argument("--precision", default="auto", help="ours: auto, fp32 or bf16")
    parser.add_argument("--pictures", type=int, default=DATASETS[1], help="the large dataset")
    parser.add_argument("--long", type=int, default=LONG_RUN[1], help="steps of the long run")
    options = parser.parse_args(arguments)
    print(heading())
    for part in options.part or PARTS:
        with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder:
            PARTS[part](options, Path(folder))


def heading(module: str = "bench.training") -> str:
    """The machine, versions, date and command of the figures."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "peft"))
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return "\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {describe_processor()}, {os.cpu_count()} "
            f"cores (load before: {os.getloadavg()[0]:.1f})",
            f"Python {platform.python_version()}, {packages}",
            command,
        ]
    )


def tiny(options: argparse.Namespace, folder: Path) -> None:
    """Batch 4, rank 8, attention only, one thread, the fastest for so small a base."""
    _in_turns("tiny", options, folder, learning_rate=1e-3)


def starter(options: argparse.Namespace, folder: Path) -> None:
    """The same with the embedded base."""
    _in_turns("starter", options, folder, learning_rate=1e-3)


def sd15(options: argparse.Namespace, folder: Path) -> None:
    """One process after another, as each needs some gigabytes; all cores."""
    steps = options.steps or 5
    task = {"steps": steps, "batch_size": 1, "threads": os.cpu_count() or 1, "rank": 8}
    ways = {
        "ours": ("ours", {"precision": options.precision}),
        "plain": ("plain", {}),
        "plain, bf16": ("plain", {"precision": "bf16"}),
    }
    runs: dict[str, list[Contender]] = {name: [] for name in ways}
    for repeat in range(options.repeats):
        for name, (way, more) in ways.items():
            if name == "plain, bf16" and repeat:
                continue
            with contender(way, "sd15", folder, **task, **more) as run:
                for _ in range(steps):
                    run.step()
                run.finish()
            runs[name].append(run)
    sides = {name: Side.of(run) for name, run in runs.items()}
    print(f"\nsd15: 860 M UNet, 128 px, batch 1, rank 8, {task['threads']} threads, {steps} steps")
    compare(sides)


def cache(_options: argparse.Namespace, folder: Path) -> None:
    """A run on new images, then one on the same."""
    task = {"steps": 1, "batch_size": 4, "threads": 1, "prepare": True}
    print("\ncache: two runs on the same 18 images in one process")
    for base in ("tiny", "starter"):
        with contender("ours", base, folder / base, **task) as run:
            run.step()
            run.finish()
        for name, values in (("first run", run.end["first_run"]), ("second run", run.end)):
            calls = f"VAE {values['vae_calls']}, text encoder {values['text_calls']}"
            line(f"{base}, {name}", f"{calls} calls; first step after {values['first_step']:.2f} s")


def dataset(options: argparse.Namespace, folder: Path) -> None:
    """All images encoded before; each has its own caption."""
    steps = options.steps or 30
    print("\ndataset: tiny, batch 4, all images encoded before")
    for count in (DATASETS[0], options.pictures):
        task = {"steps": steps, "batch_size": 4, "threads": 1, "prepare": True, "pictures": count}
        with contender("ours", "tiny", folder / str(count), **task) as run:
            for _ in range(steps):
                run.step()
            run.finish()
        side, values = Side.of([run]), run.end
        calls = f"encoder calls: VAE {values['vae_calls']}, text {values['text_calls']}"
        line(f"{count:,} images: first step after", f"{values['first_step']:.2f} s ({calls})")
        line(f"{count:,} images: a step", f"{side.median('cpu'):.0f} ms CPU")


def memory(options: argparse.Namespace, folder: Path) -> None:
    """Resident memory after some steps and after many."""
    last = options.long
    early = max(1, last * LONG_RUN[0] // LONG_RUN[1])
    print("\nmemory: tiny, batch 1")
    with contender("ours", "tiny", folder, steps=last, batch_size=1, threads=1) as run:
        for _ in range(last):
            run.step()
        run.finish()
    for step in (early, last):
        line(f"resident after {step:,} steps", f"{run.steps[step - 1]['rss_mib']:.0f} MiB")
    line("peak", f"{run.end['peak_mib']:.0f} MiB")


PARTS = {
    "tiny": tiny,
    "starter": starter,
    "sd15": sd15,
    "cache": cache,
    "dataset": dataset,
    "memory": memory,
}


def _in_turns(
    base: str, options: argparse.Namespace, folder: Path, *, learning_rate: float
) -> None:
    """Both contenders at once, each sleeping while the other takes its step."""
    steps = options.steps or 60
    task = {"steps": steps, "batch_size": 4, "threads": 1, "rank": 8, "held_out": True}
    task |= {"learning_rate": learning_rate}
    ours: list[Contender] = []
    plain: list[Contender] = []
    for _ in range(options.repeats):
        with (
            contender("ours", base, folder, precision=options.precision, **task) as one,
            contender("plain", base, folder, **task) as other,
        ):
            for _ in range(steps):
                one.step()
                other.step()
            one.finish()
            other.finish()
        ours.append(one)
        plain.append(other)
    print(f"\n{base}: batch 4, rank 8, attention, 1 thread, {options.repeats} x {steps} steps")
    sides = {"ours": Side.of(ours), "plain": Side.of(plain)}
    compare(sides)
    before = sides["plain"].ending("base_loss")
    for name, side in sides.items():
        line(f"held-out loss, {name}", f"{side.ending('held_out_loss'):.4f} (base {before:.4f})")
    parts = sides["plain"].ends[-1]["parts"]
    total = sum(parts.values())
    line(
        "the plain way's step, by part",
        ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in parts.items()),
    )
    alone = 1_000 * parts["step"] / steps
    line("ours by its part `step` alone", f"{ratio(sides['ours'].median('cpu'), alone):.2f}")


def compare(sides: Mapping[str, Side]) -> None:
    """A line for each contender, as shares of `plain`."""
    plain = sides["plain"]
    columns = ("CPU ms", "ratio", "least", "ratio", "wall ms", "ratio", "least", "peak MiB")
    print(f"{'':14}" + "".join(f"{column:>9}" for column in columns))
    for name, side in sides.items():
        cells = []
        for figure in (
            lambda side: side.median("cpu"),
            lambda side: side.least("cpu"),
            lambda side: side.median("wall"),
        ):
            cells += [f"{figure(side):.0f}", f"{ratio(figure(side), figure(plain)):.2f}"]
        cells += [f"{side.least('wall'):.0f}", f"{side.ending('peak_mib'):.0f}"]
        label = f"{name} ({side.ends[0]['precision']})" if name != "plain, bf16" else name
        print(f"{label:14}" + "".join(f"{cell:>9}" for cell in cells))


def line(what: str, value: str) -> None:
    """One figure."""
    print(f"{what:<40} {value}", flush=True)


if __name__ == "__main__":
    main()
