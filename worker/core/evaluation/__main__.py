"""`brushwork evaluate` (`python -m worker.core.evaluation`): which checkpoint to keep."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.core.bases.family import BaseModelError
from worker.core.device import choose_device
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.eyes import EMBEDDED, EyesError
from worker.core.inference.errors import RenderError
from worker.core.lean_imports import lean_imports
from worker.core.lora_files.errors import AdapterError
from worker.core.training.command_line.flags import parse_device, parse_threads, resolve_model
from worker.core.training.errors import TrainingError

DESCRIPTION = """\
Say which checkpoint of a training on a folder is the one to keep: draw the same subjects, which the
images do not show, with each of them, and compare style, adherence to the prompts, and copying.

Needs the output folder of `brushwork train` and the images that it learned from. What is drawn is
kept in OUT/evaluation: the same command goes on where it was stopped.
"""
SUBJECTS = 24
CHECKPOINTS = 5


def build_parser() -> ArgumentParser:
    """The argument parser of the command."""
    parser = ArgumentParser("brushwork evaluate", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("out", type=Path, metavar="OUT", help="the --out of the training")
    parser.add_argument(
        "--base-model", "--model", dest="model", type=Path, required=True, metavar="FOLDER|FILE",
        help="the base model of the training, as for brushwork train",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="its --data: the images"
    )
    parser.add_argument(
        "--trigger-word", metavar="WORD", help="the word of the captions that names the style"
    )
    parser.add_argument(
        "--subjects", type=int, default=SUBJECTS, metavar="N",
        help=f"prompts for each checkpoint, at least 6 (default: {SUBJECTS})",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=int, default=CHECKPOINTS, metavar="N",
        help=f"at most so many, spread over the training (default: {CHECKPOINTS})",
    )  # fmt: skip
    parser.add_argument(
        "--eyes", default=EMBEDDED, metavar="MODEL", help="folder or Hub id of a CLIP or DINO model"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--device", type=parse_device, default="auto", metavar="DEVICE")
    parser.add_argument("--threads", type=parse_threads, default=0, metavar="N")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Evaluate and print; 0 done, 1 with a message on standard error."""
    options = build_parser().parse_args(words)
    options.model = resolve_model(options.model)
    device = choose_device(options.device)
    try:
        with lean_imports(device):
            from worker.core.evaluation.training_folder import evaluate_training

        report, renders = evaluate_training(options, device, _print_progress)
    except (
        AdapterError, BaseModelError, EvaluationError, EyesError, NotMeasured, RenderError,
        TrainingError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(_plain(report)) if options.json else _text(report, renders, options))
    return 0


def _plain(report: Any) -> dict[str, Any]:
    rows = [
        {
            "name": one.name,
            "style": asdict(one.style_interval),
            "adherence": one.mean_adherence,
            "variety": variety,
            "copy_ratio": None if one.memory is None else one.memory.ratio,
        }
        for one, variety in zip(report.candidates, report.varieties, strict=True)
    ]
    return {"candidates": rows, "choice": asdict(report.choice), "not_measured": report.notes}


def _text(report: Any, sheet: Path, options: Namespace) -> str:
    lines = [f"{'':<12} {'style (0 base, 1 dataset)':<26} prompts  variety  copy ratio"]
    for row in _plain(report)["candidates"]:
        style = row["style"]
        span = f"{style['mean']:.2f} ({style['low']:.2f} to {style['high']:.2f})"
        parts = [_number(row[name]) for name in ("adherence", "variety", "copy_ratio")]
        lines.append(f"{row['name']:<12} {span:<26} {parts[0]:>7}  {parts[1]:>7}  {parts[2]:>10}")
    choice = report.choice
    lines += [f"{name}: {reason}." for name, reason in choice.left_out.items()]
    lines += [*report.notes, f"The images: {sheet}", f"Recommended: {choice.name or 'none'}."]
    return "\n".join([*lines, choice.reason])


def _print_progress(done: int, total: int) -> None:
    """Count images in one line, if somebody watches."""
    if sys.stderr.isatty() and done <= total:
        end = "\n" if done == total else "\r"
        print(f"Image {done} of {total}", end=end, file=sys.stderr, flush=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
