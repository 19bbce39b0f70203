"""Prompts with weights and long prompts, for each family's text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core import starter
from worker.core.bases.load import LoadedBase, encode_prompts, load_base
from worker.core.families.text_states import TextStates
from worker.core.inference import weighted_prompts
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.prompt_syntax import parse_prompt
from worker.core.inference.weighted_prompts import MAX_CHUNKS, encode_prompt, find_unread
from worker.core.lora_files.loaded import LoadedAdapter

PLAIN = "a red apple, on a table"


@pytest.fixture(scope="module", params=["starter", "sd15", "sdxl"])
def base(
    request: pytest.FixtureRequest, shallow_sd15_folder: Path, shallow_sdxl_folder: Path
) -> LoadedBase:
    folders = {
        "starter": starter.PATH,
        "sd15": shallow_sd15_folder,
        "sdxl": shallow_sdxl_folder,
    }
    return load_base(folders[request.param])


def encoded(base: LoadedBase, prompt: str, **options: Any) -> TextStates:
    with torch.inference_mode():
        return encode_prompt(base, parse_prompt(prompt), device="cpu", **options)


def trained(base: LoadedBase, prompt: str, **options: Any) -> TextStates:
    with torch.inference_mode():
        return encode_prompts(base, [prompt], device="cpu", **options)


def size_of(base: LoadedBase) -> int:
    """The number of words of one token that fit in one chunk."""
    return 22 if base.info.resolution == 128 else 75


@pytest.mark.parametrize("prompt", [PLAIN, "", "smile :)", "()", "🍎 👩‍🚀"])
def test_a_prompt_without_weights_is_encoded_as_in_training(base: LoadedBase, prompt: str) -> None:
    found, expected = encoded(base, prompt), trained(base, prompt.replace("()", ""))
    assert torch.equal(found.hidden, expected.hidden)
    if expected.pooled is not None:
        assert found.pooled is not None
        assert torch.equal(found.pooled, expected.pooled)


def test_a_weight_moves_only_the_states_of_its_words(base: LoadedBase) -> None:
    plain, empty = trained(base, PLAIN).hidden[0], trained(base, "").hidden[0]
    heavy = encoded(base, "a (red:1.5) apple, on a table").hidden[0]
    changed = (heavy != plain).any(dim=1).nonzero().flatten().tolist()
    assert changed == [2]  # start, "a", "red"
    assert torch.allclose(heavy[2], empty[2] + 1.5 * (plain[2] - empty[2]), atol=1e-6)
    light = encoded(base, "a (red:0) apple, on a table").hidden[0]
    assert torch.allclose(light[2], empty[2], atol=1e-6)


def test_weights_work_with_clip_skip(base: LoadedBase) -> None:
    if base.info.family == "sdxl":
        return  # it has its own
    plain = trained(base, PLAIN, clip_skip=2).hidden
    assert torch.equal(encoded(base, PLAIN, clip_skip=2).hidden, plain)
    heavy = encoded(base, "a (red:1.5) apple, on a table", clip_skip=2).hidden
    assert (heavy != plain).any(dim=2).sum() == 1


def test_a_long_prompt_is_encoded_in_chunks(base: LoadedBase) -> None:
    size = size_of(base)
    first, second = " ".join(["apple"] * size), " ".join(["castle"] * 3)
    found = encoded(base, f"{first} {second}")
    parts = [trained(base, first), trained(base, second)]
    assert torch.allclose(
        found.hidden, torch.cat([part.hidden for part in parts], dim=1), atol=1e-5
    )
    if parts[0].pooled is not None:
        assert found.pooled is not None
        assert torch.allclose(found.pooled, parts[0].pooled, atol=1e-5)
    assert find_unread(base, parse_prompt(f"{first} {second}")) == ""
    broken = encoded(base, "apple BREAK castle castle castle").hidden
    assert torch.allclose(broken[:, broken.shape[1] // 2 :], parts[1].hidden, atol=1e-5)


def test_a_chunk_ends_after_a_comma_or_a_word(base: LoadedBase) -> None:
    size = size_of(base)

    def first_chunk(prompt: str) -> int:
        return len(weighted_prompts._chunk_for_all(base, parse_prompt(prompt))[0].chunks[0].ids)

    some, more = " ".join(["apple"] * (size - 3)), " ".join(["frog"] * 9)
    assert first_chunk(f"{some} {more}") == size
    assert first_chunk(f"{some}, {more}") == size - 2  # the comma is a token
    odd = "zxqvjkwpzxqvjkwpzxqvjkwp"  # one word of many tokens
    assert first_chunk(f"{some} {odd} {more}") == size - 3


def test_words_that_no_chunk_holds_are_reported(base: LoadedBase) -> None:
    size = size_of(base)
    long = " ".join(["apple"] * (size * MAX_CHUNKS)) + " the end BREAK and more"
    assert find_unread(base, parse_prompt(long)) == "the end and more"
    assert encoded(base, long).hidden.shape[1] == MAX_CHUNKS * trained(base, "").hidden.shape[1]


@pytest.mark.parametrize("negative", ["", "blur", "apple " * 90])
@pytest.mark.parametrize("prompt", ["red apple", "red apple " * 40])
def test_prompt_and_negative_prompt_may_differ_in_length(
    prompt: str, negative: str, pipeline: ResidentPipeline
) -> None:
    config = RenderConfig(prompt=prompt, negative_prompt=negative, steps=1, seed=1)
    (rendered,) = pipeline.render(config)
    assert rendered.truncated == ""


def test_sdxl_makes_an_image_of_a_long_prompt(smallest_sdxl_folder: Path) -> None:
    config = RenderConfig(prompt="(red:1.3) apple " * 60, steps=1, width=64, height=64)
    assert ResidentPipeline.load(smallest_sdxl_folder).render(config)[0].image.size == (64, 64)


def test_a_heavier_word_changes_the_image_more(pipeline: ResidentPipeline) -> None:
    def drawn(prompt: str) -> Any:
        config = RenderConfig(prompt=prompt, steps=3, seed=5)
        return np.asarray(pipeline.render(config)[0].image).astype(int)

    plain = drawn("red apple")
    assert np.array_equal(drawn("(red:1) apple"), plain)
    changes = [np.abs(drawn(f"(red:{weight}) apple") - plain).mean() for weight in (1.2, 1.6, 2.5)]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_an_adapter_of_the_text_encoder_changes_weighted_prompts_too(
    pipeline: ResidentPipeline,
) -> None:
    config = RenderConfig(prompt="(red:1.4) apple", steps=1, seed=1)
    before = np.asarray(pipeline.render(config)[0].image)
    words = random_adapter(
        base_shapes(pipeline.base),
        strength=0.05,
        choose=lambda key: key.startswith("text_encoder."),
    )
    pipeline.set_adapters([LoadedAdapter("words", words, 0.0, 3.0)])
    changed = np.asarray(pipeline.render(config)[0].image)
    pipeline.set_adapters([])
    assert not np.array_equal(changed, before)
    assert np.array_equal(np.asarray(pipeline.render(config)[0].image), before)
