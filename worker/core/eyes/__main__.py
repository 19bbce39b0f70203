"""`python -m worker.core.eyes`: names what images show, or compares images and texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from worker.core.eyes import EMBEDDED, EyesError, name_images, open_eyes, similarity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with a message on standard error."""
    options = build_parser().parse_args(arguments)
    try:
        (_name if options.command == "name" else _compare)(options)
    except EyesError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of both commands."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.core.eyes", description=__doc__, allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--eyes", default=EMBEDDED, metavar="MODEL", help="folder or Hub id of a CLIP or DINO model"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    name = commands.add_parser(
        "name",
        help="print the likeliest names of each image",
        parents=[common],
        allow_abbrev=False,
    )
    name.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    name.add_argument("--among", metavar="NAMES", help="candidates, separated by commas")
    name.add_argument("--top", type=int, default=5, help="names for each image (5)")
    compare = commands.add_parser(
        "compare",
        help="print the similarity of images to a text",
        parents=[common],
        allow_abbrev=False,
    )
    compare.add_argument("text", help="what they should show; or the path of an image")
    compare.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    return parser


def _name(options: argparse.Namespace) -> None:
    images = [_open(path) for path in options.images]
    among = options.among
    candidates = (
        None if among is None else [word for part in among.split(",") if (word := part.strip())]
    )
    eyes = open_eyes(options.eyes)
    for path, guesses in zip(
        options.images, name_images(eyes, images, candidates, top=options.top), strict=True
    ):
        print(
            path, ", ".join(f"{guess.name} {guess.confidence:.0%}" for guess in guesses), sep=": "
        )


def _compare(options: argparse.Namespace) -> None:
    images = [_open(path) for path in options.images]
    eyes = open_eyes(options.eyes)
    if Path(options.text).is_file():
        wanted = eyes.embed_images([_open(Path(options.text))])
    else:
        wanted = eyes.embed_texts([options.text])
    for path, value in zip(
        options.images, similarity(eyes.embed_images(images), wanted)[:, 0], strict=True
    ):
        print(f"{path}: {value:.3f}")


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise EyesError(f"{path} does not exist.") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise EyesError(f"{path} is no image that can be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
