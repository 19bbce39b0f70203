"""The eyes that ship, on a few images; all figures are in the README beside their weights.

tests/tools/test_eyes_weights.py shows them drawings.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.core import starter
from worker.core.eyes import Eyes, UnknownText, name_images, open_eyes, similarity
from worker.core.eyes.embedded import WEIGHTS

SIDE = 128
EXAMPLES = sorted(Path(starter.__file__).parent.rglob("metadata.jsonl"))


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return open_eyes(device="cpu")


def test_they_are_small_and_know_many_names(eyes: Eyes) -> None:
    assert WEIGHTS.stat().st_size <= 12_000_000
    assert len(eyes.names) > 1100
    assert len(set(eyes.names)) == len(eyes.names)


@pytest.mark.parametrize("captions", EXAMPLES, ids=lambda path: path.parent.name)
def test_they_see_through_the_example_styles(eyes: Eyes, captions: Path) -> None:
    """Each image is closer to its own caption than to three in four of the others."""
    rows = [json.loads(line) for line in captions.read_text("utf-8").splitlines()][::3]
    images = [Image.open(captions.parent / row["file_name"]) for row in rows]
    found = similarity(eyes.embed_images(images), eyes.embed_texts([row["text"] for row in rows]))
    closer = (found > np.diag(found)[:, None]).sum(axis=1)
    assert closer.mean() < len(rows) / 4


def test_noise_gets_no_confident_name(eyes: Eyes) -> None:
    rng = np.random.default_rng(0)
    noise = [
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(4)
    ]
    plain = [Image.new("RGB", (SIDE, SIDE), color) for color in ("white", "navy")]
    for guesses in name_images(eyes, [*noise, *plain]):
        assert guesses[0].confidence < 0.55


def test_they_do_not_pretend_to_know_other_words(eyes: Eyes) -> None:
    texts = ["lighthouse", "chalkboard style", "a person", "quenfrabble", "灯台"]
    assert eyes.knows(texts) == [False] * len(texts)
    with pytest.raises(UnknownText, match="“lighthouse”"):
        eyes.embed_texts(["castle", "lighthouse"])
