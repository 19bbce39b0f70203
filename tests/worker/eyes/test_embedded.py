from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from worker.core.eyes.efficientnet import WIDTH
from worker.core.eyes.embedded import FORMAT, EmbeddedEyes, load_embedded
from worker.core.eyes.interface import EyesError, UnknownText
from worker.core.eyes.naming import name_images


@pytest.fixture(scope="module")
def eyes(weights: Path) -> EmbeddedEyes:
    return load_embedded(weights, device="cpu")


def test_a_stored_pair_of_eyes_sees_what_it_saw_before(
    random_eyes: EmbeddedEyes, eyes: EmbeddedEyes, images: list[Image.Image]
) -> None:
    assert np.allclose(random_eyes.embed_images(images), eyes.embed_images(images), atol=0.01)
    assert eyes.scale == random_eyes.scale
    assert eyes.names == random_eyes.names
    assert eyes.vocabulary == random_eyes.vocabulary


def test_embeddings_have_unit_length_and_are_the_same_each_time(
    eyes: EmbeddedEyes, images: list[Image.Image]
) -> None:
    seen = eyes.embed_images(images)
    assert seen.shape == (len(images), WIDTH) == (len(images), eyes.dimensions)
    assert seen.dtype == np.float32
    assert np.allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-5)
    assert np.array_equal(seen, eyes.embed_images(images))


def test_the_look_of_an_image_is_the_mean_and_deviation_of_channels(
    eyes: EmbeddedEyes, images: list[Image.Image]
) -> None:
    found = eyes.channel_statistics(images * 8)
    assert [block.shape for block in found] == [(40, 2 * 40), (40, 2 * 40), (40, 2 * 80)]
    assert np.allclose(found[0][:5], eyes.channel_statistics(images)[0], atol=1e-4)
    plain = eyes.channel_statistics([Image.new("RGB", (64, 64), "white")])[0][0]
    assert plain[40:].mean() < found[0][0, 40:].mean()  # deviations


def test_an_image_is_seen_alike_alone_and_among_others(
    eyes: EmbeddedEyes, images: list[Image.Image]
) -> None:
    alone = np.concatenate([eyes.embed_images([image]) for image in images])
    assert np.allclose(eyes.embed_images(images * 8)[: len(images)], alone, atol=1e-4)


def test_texts_lie_where_their_names_do(eyes: EmbeddedEyes) -> None:
    points = eyes.embed_texts(["red apple", "apple, chalkboard style", "house"])
    assert points.shape == (3, WIDTH)
    assert np.array_equal(points[0], points[1])
    assert not np.allclose(points[0], points[2])


def test_unknown_texts_are_refused_by_name(eyes: EmbeddedEyes) -> None:
    assert eyes.knows(["cat", "lighthouse", "fruit"]) == [True, False, True]
    with pytest.raises(UnknownText, match="“lighthouse”"):
        eyes.embed_texts(["cat", "lighthouse"])


def test_it_names_among_its_own_names(eyes: EmbeddedEyes, images: list[Image.Image]) -> None:
    named = name_images(eyes, images)
    assert [{guess.name for guess in guesses} for guesses in named] == [set(eyes.names)] * 5


def test_no_image_is_an_error(eyes: EmbeddedEyes) -> None:
    with pytest.raises(EyesError, match="no images"):
        eyes.embed_images([])


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(EyesError, match=r"missing: .*gone\.safetensors.*Install Brushwork again"):
        load_embedded(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 7, 5000])
def test_damaged_weights_are_named(weights: Path, tmp_path: Path, kept: int) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(EyesError, match=r"damaged: .*cut\.safetensors"):
        load_embedded(cut)


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "lora.safetensors"
    save_file({"lora_up.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(EyesError, match="does not hold weights of the embedded eyes"):
        load_embedded(other)


def test_a_file_without_some_tensors_is_damaged(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    del tensors["network.stem.conv.weight"]
    less = tmp_path / "less.safetensors"
    about = {"format": FORMAT, "scale": "1", "vocabulary": '{"names": ["a"], "words": {}}'}
    save_file(tensors, less, metadata=about)
    with pytest.raises(EyesError, match="damaged"):
        load_embedded(less)
