"""`brushwork train` (`python -m worker.core.training`): training without web or database."""

import os
import shutil
import sys
from collections.abc import Sequence

from worker.core.device import choose_device
from worker.core.lean_imports import lean_imports
from worker.core.training.command_line.console import Console, print_failure
from worker.core.training.command_line.flags import ArgumentsError, TrainArguments, parse_arguments


def main(words: Sequence[str]) -> int:
    """Train as the command line says; 0 done, 75 interrupted and saved, 1 failed.

    With `--evaluate` the comparison of its checkpoints replaces this process at the end.
    """
    try:
        arguments = parse_arguments(words)
    except ArgumentsError as error:
        return print_failure(error)
    console = Console(sys.stdout, columns=shutil.get_terminal_size().columns)
    console.listen()
    # waiting threads must not spin: on shared cores that costs ten times the work itself. torch
    # reads this when it loads its threads, hence it is set before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with lean_imports(choose_device(arguments.device)):  # after the flags, which need no torch
        from worker.core.training.command_line.run import run

    code = run(arguments, console)
    if arguments.evaluate and code == 0:
        sys.stdout.flush()
        os.execv(sys.executable, _evaluation(arguments))
    return code


def _evaluation(arguments: TrainArguments) -> list[str]:
    """The command that says which checkpoint of this training to keep."""
    words = ["--device", arguments.device, "--threads", str(arguments.threads)]
    words += ["--base-model", str(arguments.model)]
    for folder in arguments.data:
        words += ["--data", f"{folder.path}:{folder.repeats}"]
    if arguments.regularization:
        words += ["--regularization", str(arguments.regularization)]
    if arguments.trigger_word:
        words += ["--trigger-word", arguments.trigger_word]
    return [sys.executable, "-m", "worker.core.evaluate_folder", *words, str(arguments.out)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
