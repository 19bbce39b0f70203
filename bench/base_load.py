"""Measures the memory of loading a base model: `python -m bench.base_load`.

Writes a base with the exact shapes of Stable Diffusion 1.5 and random weights (up to 4.3 GB at a
time, removed afterwards) and loads it in fresh processes, side by side:

mapped   each file is mapped, its tensors are copied and cast: the usual way
ours     each tensor is read straight into the type that is needed

In bf16 only the UNet is bf16. With `--train` and `--generate` the process also takes a training
step and generates an image of 128 px with two steps. The peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.training import ROOT, heading

LAYOUTS = ("folder", "file")
DTYPES = ("fp32", "bf16")
COLUMNS = ("after import", "peak", "weights", "wall s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the selected cases and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="only this (repeatable)")
    parser.add_argument("--stored", default="fp32", choices=("fp32", "fp16"), help="type on disk")
    parser.add_argument("--train", action="store_true", help="take a training step")
    parser.add_argument("--generate", action="store_true", help="generate an image")
    options = parser.parse_args(arguments)
    work = "train" if options.train else "generate" if options.generate else "load"
    print(heading("bench.base_load"))
    print(f"\nSD 1.5 stored in {options.stored}, {work}; GiB")
    print(f"{'':26}" + "".join(f"{column:>14}" for column in COLUMNS))
    for layout in options.layout or LAYOUTS:
        with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder:
            path = _write(layout, options.stored, Path(folder))
            for dtype in DTYPES:
                for way in ("mapped", "ours") if work == "load" else ("ours",):
                    task = {"way": way, "path": str(path), "dtype": dtype, "work": work}
                    (found,) = measure([task])
                    _print_row(f"{layout}, {dtype}, {way}", found)


def measure(tasks: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The memory of tasks done one after another in a fresh process, in bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load_contender", json.dumps(tasks)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _write(layout: str, stored: str, folder: Path) -> Path:
    from bench.checkpoints import write_folder, write_single_file
    from worker.core.torch_dtypes import TORCH_DTYPES

    write: Callable[..., Path] = write_folder if layout == "folder" else write_single_file
    place = folder / ("base" if layout == "folder" else "base.safetensors")
    return write(place, TORCH_DTYPES[stored])


def _print_row(name: str, found: dict[str, float]) -> None:
    sizes = [found[key] / 2**30 for key in ("before", "peak", "weights")]
    cells = [*(f"{size:.2f}" for size in sizes), f"{found['seconds']:.1f}"]
    print(f"{name:26}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
