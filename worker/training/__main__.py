"""`python -m worker.training config.json`: a training with no web, database or broker."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from worker.training.config import TrainJob
from worker.training.events import (
    BaseFacts,
    CheckpointSaved,
    Commands,
    Control,
    Event,
    Notice,
    StepDone,
)

INTERRUPTED = 75  # EX_TEMPFAIL: saved, start it again to go on
FAILED = 1


class Console:
    """Prints a training's progress; SIGTERM and Ctrl-C make it save and leave."""

    def __init__(self) -> None:
        self._control = Control.CONTINUE
        self._live = sys.stdout.isatty()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)

    def on_event(self, event: Event) -> None:
        """Print a line, or renew the last one on a terminal."""
        if isinstance(event, StepDone):
            self._print_step(event)
        elif isinstance(event, BaseFacts):
            share = event.trainable_parameters / event.base_parameters
            print(
                f"Training {event.trainable_parameters:,} of {event.base_parameters:,} "
                f"parameters ({share:.2%})."
            )
        elif isinstance(event, CheckpointSaved):
            self._print(f"Checkpoint {event.path} ({event.size_bytes / 1e6:.1f} MB)")
        elif isinstance(event, Notice):
            self._print(event.text)

    def poll(self) -> Commands:
        """What a signal asked for."""
        return Commands(self._control)

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        self._control = Control.SAVE_AND_EXIT

    def _print_step(self, event: StepDone) -> None:
        left = (event.total - event.step) / event.steps_per_second
        line = (
            f"step {event.step}/{event.total}  loss {event.loss:.4f}  "
            f"{event.steps_per_second:.2f} steps/s  {left:.0f} s left"
        )
        if self._live:
            end = "\n" if event.step == event.total else ""
            print(f"\r\x1b[K{line}", end=end, flush=True)
        elif event.step in (1, event.total) or event.step % 10 == 0:
            print(line, flush=True)

    def _print(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if self._live else line, flush=True)


def main(arguments: list[str]) -> int:
    """Train what the file says: 0 done, 75 interrupted and saved, 1 failed with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("job", type=Path, help="JSON: model, data, out, cache, config")
    try:
        job = TrainJob.model_validate_json(parser.parse_args(arguments).job.read_bytes())
    except OSError as error:
        return _failed(f"The job cannot be read: {error}.")
    except ValidationError as error:
        return _failed("; ".join(_reasons(error)))
    console = Console()
    return _train(job, console)


def _train(job: TrainJob, console: Console) -> int:
    # waiting threads must not spin: on shared cores that costs ten times the work itself.
    # Read when torch loads its threads, hence before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from worker.bases.family import BaseModelError
    from worker.bases.load import load_base
    from worker.bases.threads import use_fastest_threads
    from worker.training.data import read_folder
    from worker.training.errors import TrainingError
    from worker.training.loop import Outcome, train

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        images = read_folder(job.data)
        base = load_base(job.model)
        if device == "cpu":
            use_fastest_threads(
                base, batch_size=job.config.batch_size, at_most=torch.get_num_threads()
            )
        trained = train(
            job.config, images, console, base=base, out=job.out, cache=job.cache, device=device
        )
    except (TrainingError, BaseModelError) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"A file could not be read or written: {error}.")
    if trained.outcome is Outcome.INTERRUPTED:
        print(f"Interrupted after step {trained.steps}; start it again to go on.")
        return INTERRUPTED
    peak = trained.peak_memory_bytes / 2**20
    print(f"{trained.path} ({trained.steps} steps, {trained.seconds:.0f} s, {peak:.0f} MiB)")
    return 0


def _reasons(error: ValidationError) -> list[str]:
    return [
        f"{'.'.join(str(part) for part in reason['loc']) or 'job'}: {reason['msg']}"
        for reason in error.errors()
    ]


def _failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
