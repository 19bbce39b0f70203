"""`python -m tools.examples NAME --out FOLDER` draws an example style again."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools.examples.drawings import draw_example
from tools.starter.artwork import ArtworkError, load_artwork
from worker.core.starter.examples import EXAMPLES


def main(argv: Sequence[str] | None = None) -> None:
    """Draw one example into a folder."""
    parser = argparse.ArgumentParser(prog="python -m tools.examples", description=__doc__)
    parser.add_argument("name", choices=EXAMPLES, help="the example style")
    parser.add_argument("--out", type=Path, required=True, help="folder for the images")
    parser.add_argument("--artwork", type=Path, help="folder with the npm tarballs")
    options = parser.parse_args(argv)
    try:
        draw_example(EXAMPLES[options.name], load_artwork(options.artwork), options.out)
    except ArtworkError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
