"""`brushwork evaluate` (`python -m worker.core.evaluate_folder`): which checkpoint to keep."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from worker.core.bases.family import BaseModelError
from worker.core.device import choose_device
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.report import plain, text
from worker.core.eyes import EMBEDDED, EyesError
from worker.core.inference.errors import RenderError
from worker.core.lean_imports import lean_imports
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.weights import MAX_WEIGHT, weight_problem
from worker.core.training.command_line.console import INTERRUPTED, print_failure
from worker.core.training.command_line.flags import (
    ArgumentsError,
    parse_device,
    parse_threads,
    resolve_model,
)
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
        "--data", type=Path, action="append", required=True, metavar="FOLDER[:REPEATS]",
        help="its --data: the images; several times, if it was",
    )  # fmt: skip
    parser.add_argument(
        "--regularization", type=Path, metavar="FOLDER", help="its --regularization, if it had that"
    )
    parser.add_argument(
        "--trigger-word", metavar="WORD", help="the word of the captions that names the style"
    )
    parser.add_argument(
        "--subjects", type=int, default=SUBJECTS, metavar="N",
        help=f"prompts for each checkpoint, at least 6 (default: {SUBJECTS})",
    )  # fmt: skip
    parser.add_argument(
        "--prompt-set", type=Path, metavar="FILE",
        help="draw the subjects in this file, one in each line, in place of proposed ones",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=int, default=CHECKPOINTS, metavar="N",
        help=f"at most so many, spread over the training (default: {CHECKPOINTS})",
    )  # fmt: skip
    parser.add_argument("--step", type=int, metavar="N", help="only the checkpoint of this step")
    parser.add_argument(
        "--weights", type=_parse_weights, metavar="0.5,0.75,1",
        help="compare weights of the last checkpoint, or of --step, in place of checkpoints: where "
        "the style starts to show, is best, and breaks",
    )  # fmt: skip
    parser.add_argument(
        "--eyes", default=EMBEDDED, metavar="MODEL", help="folder or Hub id of a CLIP or DINO model"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--device", type=parse_device, default="auto", metavar="DEVICE")
    parser.add_argument("--threads", type=parse_threads, default=0, metavar="N")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Evaluate and print; 0 done, 1 failed with a message, 75 interrupted."""
    options = build_parser().parse_args(words)
    options.model = resolve_model(options.model)
    device = choose_device(options.device)
    try:
        with lean_imports(device):
            from worker.core.evaluate_folder.training_folder import evaluate_training

        report, sheet = evaluate_training(options, device, _print_progress)
    except (
        AdapterError, ArgumentsError, BaseModelError, EvaluationError, EyesError, NotMeasured,
        RenderError, TrainingError,
    ) as error:  # fmt: skip
        return print_failure(error)
    except OSError as error:
        return print_failure(f"A file could not be read or written: {error}.")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on.", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(plain(report)) if options.json else text(report, sheet))
    return 0


def _parse_weights(text: str) -> list[float]:
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if not weights or any(weight_problem(weight) for weight in weights):
        raise ArgumentTypeError(
            f"must be numbers from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not {text!r}"
        )
    return weights


def _print_progress(done: int, total: int) -> None:
    """Count images in one line, if somebody watches."""
    if sys.stderr.isatty() and done <= total:
        end = "\n" if done == total else "\r"
        print(f"Image {done} of {total}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
