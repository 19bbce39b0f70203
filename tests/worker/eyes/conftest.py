"""Eyes with random weights and few names, for what does not depend on what they have learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from worker.core.eyes.embedded import EmbeddedEyes

NAMES = ("cat", "red apple", "house")


@pytest.fixture(scope="session")
def random_eyes() -> EmbeddedEyes:
    """Eyes with three names that see nothing in particular."""
    import torch

    from worker.core.eyes.efficientnet import EfficientNetLite0, EyesHead
    from worker.core.eyes.embedded import EmbeddedEyes
    from worker.core.eyes.vocabulary import build_vocabulary

    torch.manual_seed(3)
    vocabulary = build_vocabulary(NAMES, ((), ("apple",), ()), (("animal",), ("fruit",), ()))
    return EmbeddedEyes(EfficientNetLite0(), EyesHead(len(NAMES)), vocabulary, scale=12.5)


@pytest.fixture(scope="session")
def weights(random_eyes: EmbeddedEyes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their file."""
    from worker.core.eyes.embedded import save_embedded

    path = tmp_path_factory.mktemp("eyes") / "eyes.safetensors"
    save_embedded(random_eyes, path)
    return path


@pytest.fixture
def images() -> list[Image.Image]:
    """Five different images."""
    made = []
    for number in range(5):
        image = Image.new("RGB", (96, 80), (40 * number, 90, 200 - 30 * number))
        ImageDraw.Draw(image).ellipse((10 * number, 8, 60, 70), fill=(250, 60 * number % 255, 20))
        made.append(image)
    return made
