"""Prompts are encoded as the real pipelines do it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

import worker.core.starter
from worker.core.bases.family import BaseModelError
from worker.core.bases.load import encode_prompts, load_base
from worker.core.bases.tokenizer import clip_tokenizer, end_after


def test_sd_prompts_are_what_the_pipeline_encodes() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        worker.core.starter.PATH, torch_dtype=torch.float32
    )
    base = load_base(worker.core.starter.PATH)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt("red apple", "cpu", 1, False)
        found = encode_prompts(base, ["castle", "red apple"], device="cpu")
    assert found.pooled is None
    assert torch.allclose(found.hidden[1:], expected, atol=1e-5)


def test_sdxl_prompts_are_what_the_pipeline_encodes(smallest_sdxl_folder: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        smallest_sdxl_folder, torch_dtype=torch.float32
    )
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(
            "a red apple", device="cpu", do_classifier_free_guidance=False
        )
        found = encode_prompts(load_base(smallest_sdxl_folder), ["a red apple"], device="cpu")
    assert found.pooled is not None
    assert torch.allclose(found.hidden, hidden, atol=1e-5)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_gradients_reach_a_text_encoder_that_trains() -> None:
    base = load_base(worker.core.starter.PATH, components=["text_encoder"])
    base.text_encoders[0].requires_grad_(True)
    encode_prompts(base, ["red apple"], device="cpu").hidden.sum().backward()
    assert base.text_encoders[0].encoder.layers[0].mlp.fc1.weight.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def short_worded(smallest_sd15_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose encoder has 77 positions, of which a prompt may fill 20 with words."""
    folder = shutil.copytree(smallest_sd15_folder, tmp_path_factory.mktemp("short") / "base")
    tokenizer = end_after(clip_tokenizer(length=77, pad="<|endoftext|>"), words=20)
    tokenizer.save_pretrained(folder / "tokenizer")
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("words", [0, 1, 20])
def test_positions_that_are_not_for_words_hold_padding(
    short_worded: Path, smallest_sd15_folder: Path, words: int
) -> None:
    base = load_base(short_worded, components=["text_encoder"])
    usual = load_base(smallest_sd15_folder, components=["text_encoder"])
    prompt = " ".join(["apple"] * words)
    found, expected = (encode_prompts(each, [prompt], device="cpu") for each in (base, usual))
    assert torch.equal(found.hidden, expected.hidden)


def test_a_long_prompt_is_cut_where_its_words_must_end(
    short_worded: Path, smallest_sd15_folder: Path
) -> None:
    base = load_base(short_worded, components=["text_encoder"])
    usual = load_base(smallest_sd15_folder, components=["text_encoder"])
    found = encode_prompts(base, [" ".join(["apple"] * 30)], device="cpu")
    expected = encode_prompts(usual, [" ".join(["apple"] * 20)], device="cpu")
    assert torch.equal(found.hidden, expected.hidden)
    pipeline = StableDiffusionPipeline.from_pretrained(short_worded, torch_dtype=torch.float32)
    with torch.no_grad():
        plain, _ = pipeline.encode_prompt(" ".join(["apple"] * 30), "cpu", 1, False)
    assert torch.allclose(plain, expected.hidden, atol=1e-5)


def test_the_embedded_base_reads_the_same_number_of_words_in_diffusers() -> None:
    base = load_base(worker.core.starter.PATH, components=["text_encoder"])
    (tokenizer,), (encoder,) = base.tokenizers, base.text_encoders
    long, cut = (" ".join(["castle"] * count) for count in (60, 22))
    found = encode_prompts(base, [long, cut], device="cpu").hidden
    assert found.shape[1] == encoder.config.max_position_embeddings == tokenizer.model_max_length
    assert torch.equal(found[0], found[1])
    ids = tokenizer(long, padding="max_length", max_length=found.shape[1], truncation=True)
    assert ids.input_ids.count(tokenizer.convert_tokens_to_ids("castle</w>")) == 22


def test_a_damaged_tokenizer_is_refused_with_the_reason(
    smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    (folder / "tokenizer/tokenizer_config.json").write_text("{")
    with pytest.raises(BaseModelError, match="tokenizer cannot be read"):
        load_base(folder, components=["text_encoder"])


def test_a_tokenizer_of_vocabulary_and_merges_is_read(
    smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(smallest_sd15_folder, tmp_path / "base")
    model = json.loads((folder / "tokenizer/tokenizer.json").read_text())["model"]
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (tokenizer,) = load_base(folder, components=["text_encoder"]).tokenizers
    expected = clip_tokenizer(length=77, pad="<|endoftext|>")
    assert tokenizer("a Red  castle!").input_ids == expected("a Red  castle!").input_ids


def test_the_shipped_vocabulary_is_clips() -> None:
    tokenizer = clip_tokenizer(length=77, pad="!")
    ids = tokenizer("a photo of a cat", padding="max_length").input_ids
    # openai/CLIP: tokenize("a photo of a cat")
    assert ids[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ids[7:] == [0] * 70
    assert len(tokenizer) == 49_408
