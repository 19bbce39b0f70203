"""Small artwork and real renders, so that no test here needs the network or the big sets."""

import zlib
from pathlib import Path

import pytest
from PIL import Image

from worker.core.starter import EXAMPLE
from worker.core.starter.build.artwork import ArtworkSet, ArtworkSubject, read_subjects
from worker.core.starter.chalkboard import draw_in_chalk

FIXTURES = Path(__file__).parent / "fixtures"
HELD_OUT = ("castle", "rocket", "red apple", "house", "frog", "evergreen tree")


@pytest.fixture(scope="session")
def subjects() -> list[ArtworkSubject]:
    """A dozen subjects, each drawn by three hands."""
    return read_subjects(FIXTURES / "subjects.json")


@pytest.fixture(scope="session")
def example_pictures() -> list[Image.Image]:
    """The pictures of the example style."""
    return [Image.open(path).convert("RGB") for path in sorted(EXAMPLE.glob("*.webp"))]


@pytest.fixture(scope="session")
def held_out_chalk(subjects: list[ArtworkSubject]) -> list[Image.Image]:
    """Chalk drawings of subjects that the example never shows."""
    return [
        draw_in_chalk(subject.drawings[ArtworkSet.NOTO], seed=zlib.crc32(subject.name.encode()))
        for subject in subjects
        if subject.name in HELD_OUT
    ]


def cut(strip: Path) -> list[Image.Image]:
    """The square pictures of a strip, from left to right."""
    with Image.open(strip) as opened:
        image = opened.convert("RGB")
    side = image.height
    return [image.crop((left, 0, left + side, side)) for left in range(0, image.width, side)]


@pytest.fixture(scope="session")
def base_renders() -> list[Image.Image]:
    """What the base drew for `EXAMPLE_PROMPTS`, guidance 3.5, 20 steps, seed 1."""
    return cut(FIXTURES / "base_renders.png")


@pytest.fixture(scope="session")
def trained_renders() -> list[Image.Image]:
    """The same prompts at weight 1 of an adapter trained for 140 steps."""
    return cut(FIXTURES / "trained_renders.png")
