"""Images of the example styles, and what the base draws for their prompts."""

from pathlib import Path

import pytest
from PIL import Image

from worker.core.starter.examples import EXAMPLES

FIXTURES = Path(__file__).parent / "fixtures"

Images = list[Image.Image]


def load_example_images() -> dict[str, Images]:
    """The images of each example style, by its key."""
    return {
        key: [Image.open(path).convert("RGB") for path in sorted(example.folder.glob("*.webp"))]
        for key, example in EXAMPLES.items()
    }


def load_base_renders() -> Images:
    """Images of the base for the prompts of an example at weight 0."""
    return cut(FIXTURES / "base_renders.webp")


def cut(strip: Path) -> Images:
    """The square images of a strip, from left to right."""
    with Image.open(strip) as opened:
        image = opened.convert("RGB")
    side = image.height
    return [image.crop((left, 0, left + side, side)) for left in range(0, image.width, side)]


@pytest.fixture(scope="session")
def example_images() -> dict[str, Images]:
    return load_example_images()


@pytest.fixture(scope="session")
def base_renders() -> Images:
    return load_base_renders()
