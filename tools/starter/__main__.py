"""`python -m tools.starter --out FOLDER`: builds the embedded base from artwork."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tools.starter.artwork import fetch_artwork, load_artwork, ordinary_words, read_subjects
from tools.starter.base import Build, build_starter
from tools.starter.errors import BuildError
from tools.starter.hardware import choose_hardware
from tools.starter.recipe import Recipe, full_recipe, tiny_recipe
from tools.starter.workplace import available_memory, locked, require_memory

DEFAULT_MINUTES = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; the exit status is 1 when it cannot go on or was stopped."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        with locked(options.out) as checkpoints:
            recipe = _recipe(options)
            require_memory(recipe.memory, free=available_memory())
            build_starter(_plan(options, recipe, checkpoints), options.out)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.out} is ready after {(time.monotonic() - started) / 60:.0f} minutes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.starter", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished base")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help="total training time (300)"
    )
    length.add_argument("--tiny", action="store_true", help="a tiny model, in about a minute")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--artwork", type=Path, help="folder with the four npm tarballs")
    source.add_argument("--subjects", type=Path, help="JSON file of subjects, as in the tests")
    parser.add_argument("--start-from", type=Path, help="diffusers folder to train on from")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("--compile", action="store_true", help="compile the UNet (torch.compile)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    if options.tiny:
        return tiny_recipe(seed=options.seed)
    trained = options.start_from is not None
    return full_recipe(options.minutes, seed=options.seed, starts_trained=trained)


def _plan(options: argparse.Namespace, recipe: Recipe, checkpoints: Path) -> Build:
    """The build that the options describe; downloads the artwork when no folder is given."""
    if options.subjects:
        subjects, english = read_subjects(options.subjects), []
    else:
        artwork = options.artwork or checkpoints / "artwork"
        if options.artwork is None:
            fetch_artwork(artwork)
        subjects, english = load_artwork(artwork), ordinary_words(artwork)
    return Build(
        subjects,
        recipe,
        english,
        options.start_from,
        choose_hardware(device=options.device, compile=options.compile),
        _stop_on_signals(),
    )


def _stop_on_signals() -> Callable[[], bool]:
    """True after the first Ctrl-C or SIGTERM; a second one ends the process at once."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)
        print("Saving the state; once more to stop at once.", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: bool(seen)


if __name__ == "__main__":
    sys.exit(main())
