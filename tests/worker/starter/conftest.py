"""Small artwork and real renders, so that no test here needs the network or the big sets."""

from pathlib import Path

import pytest
from PIL import Image

from worker.core.starter.build.artwork import (
    ArtworkSubject,
    lay_over,
    read_subjects,
    render_drawing,
)
from worker.core.starter.examples import EXAMPLES
from worker.core.starter.examples.drawings import draw_subject, meant_drawing
from worker.core.starter.examples.planes import MARGIN, SIZE

FIXTURES = Path(__file__).parent / "fixtures"
HELD_OUT = ("castle", "rocket", "red apple", "house", "frog", "evergreen tree")
SEEN_SIDE = 128

Images = list[Image.Image]


@pytest.fixture(scope="session")
def subjects() -> list[ArtworkSubject]:
    """A dozen subjects, each drawn by three hands."""
    return read_subjects(FIXTURES / "subjects.json")


@pytest.fixture(scope="session")
def held_out(subjects: list[ArtworkSubject]) -> list[ArtworkSubject]:
    """Subjects that no example shows."""
    return [subject for subject in subjects if subject.name in HELD_OUT]


@pytest.fixture(scope="session")
def example_images() -> dict[str, Images]:
    """The images of each example style, by its key."""
    return {
        key: [Image.open(path).convert("RGB") for path in sorted(example.folder.glob("*.webp"))]
        for key, example in EXAMPLES.items()
    }


@pytest.fixture(scope="session")
def true_images(held_out: list[ArtworkSubject]) -> dict[str, Images]:
    """What a perfect adapter would generate: drawings of subjects that the example never shows."""
    return {
        key: [
            draw_subject(example, subject).resize((SEEN_SIDE, SEEN_SIDE), Image.Resampling.BOX)
            for subject in held_out
        ]
        for key, example in EXAMPLES.items()
    }


def flat_images(subjects: list[ArtworkSubject], ground: tuple[int, int, int]) -> Images:
    """The plain drawings on a plain color."""
    return [
        lay_over(
            render_drawing(meant_drawing(subject), SIZE, margin=MARGIN),
            ground,
            SEEN_SIDE,
        )
        for subject in subjects
    ]


def cut(strip: Path) -> Images:
    """The square images of a strip, from left to right."""
    with Image.open(strip) as opened:
        image = opened.convert("RGB")
    side = image.height
    return [image.crop((left, 0, left + side, side)) for left in range(0, image.width, side)]


@pytest.fixture(scope="session")
def base_renders() -> Images:
    """What the base generated for the prompts of an example at weight 0."""
    return cut(FIXTURES / "base_renders.webp")
