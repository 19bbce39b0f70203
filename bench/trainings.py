"""The base of benches of many trainings: options, a process for each training, result lines."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEAST_STEPS = 20  # of a training, however it is shortened


@dataclass(frozen=True)
class Options:
    """The options of a bench; `one`: the training to do in this process."""

    out: Path
    scale: float
    threads: int
    table: bool
    one: str | None


def read_options(
    description: str | None, names: Iterable[str], argv: Sequence[str] | None
) -> Options:
    """The options as they were given; the folder of the results exists afterwards."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the preset's steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--table", action="store_true", help="only print what ran so far")
    parser.add_argument("--one", choices=list(names), help="train only this, in this process")
    given = parser.parse_args(argv)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    return Options(out, given.scale, given.threads, given.table, given.one)


def train_missing(
    module: str, names: Iterable[str], options: Options, *, done: Collection[str]
) -> None:
    """Do the trainings that have no result yet, each in a process of its own."""
    words = ["--out", str(options.out), "--scale", str(options.scale)]
    words += ["--threads", str(options.threads)]
    for name in names:
        if name not in done:
            command = [sys.executable, "-m", module, "--one", name, *words]
            subprocess.run(command, check=True, cwd=ROOT)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; none if there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
