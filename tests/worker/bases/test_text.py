"""Prompts are encoded as the real pipelines do it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

import worker.core.starter
from worker.core.bases.load import load_base
from worker.core.bases.text import count_truncated, encode_prompts
from worker.core.bases.tokenizer import clip_tokenizer


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


def test_sdxl_prompts_are_what_the_pipeline_encodes(sdxl_folder: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_folder, torch_dtype=torch.float32)
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt(
            "a red apple", device="cpu", do_classifier_free_guidance=False
        )
        found = encode_prompts(load_base(sdxl_folder), ["a red apple"], device="cpu")
    assert found.pooled is not None
    assert torch.allclose(found.hidden, hidden, atol=1e-5)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_gradients_reach_a_text_encoder_that_trains() -> None:
    base = load_base(worker.core.starter.PATH, components=["text_encoder"])
    base.text_encoders[0].requires_grad_(True)
    encode_prompts(base, ["red apple"], device="cpu").hidden.sum().backward()
    assert base.text_encoders[0].encoder.layers[0].mlp.fc1.weight.grad.abs().sum() > 0


def test_tokens_beyond_the_encoders_length_are_counted() -> None:
    base = load_base(worker.core.starter.PATH, components=["text_encoder"])
    assert count_truncated(base, "red apple") == 0
    assert count_truncated(base, " ".join(["apple"] * 30)) == 30 + 2 - 24


def test_a_tokenizer_of_vocabulary_and_merges_is_read(sd15_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd15_folder, tmp_path / "base")
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
