"""The resident pipeline draws what the real pipelines draw, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from PIL import Image

import worker.core.starter
from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import metadata, random_adapter
from worker.core.families.family import BaseFamily
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled, RenderError
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.weighted_prompts import MAX_CHUNKS
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.export import export
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.words import FileFormat, WeightDtype

STEPS = 3


def config(**changes: Any) -> RenderConfig:
    return RenderConfig(**({"prompt": "red apple", "seed": 5, "steps": STEPS} | changes))


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


def picture(pipeline: ResidentPipeline, **changes: Any) -> NDArray[np.int16]:
    return pixels(pipeline.render(config(**changes))[0].image)


def official(pipe: Any, **changes: Any) -> NDArray[np.int16]:
    """The same picture by diffusers' own pipeline."""
    settings = config(**changes)
    pipe.set_progress_bar_config(disable=True)
    return pixels(
        pipe(
            settings.prompt,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            width=settings.width,
            height=settings.height,
            generator=torch.Generator().manual_seed(settings.seed),
        ).images[0]
    )


def open_official(kind: Any, folder: Path) -> Any:
    pipe = kind.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def adapter_for(pipeline: ResidentPipeline, **options: Any) -> LoraAdapter:
    return random_adapter(base_shapes(pipeline.base), **({"strength": 0.05} | options))


def test_the_base_draws_what_diffusers_draws(embedded: ResidentPipeline) -> None:
    pipe = open_official(StableDiffusionPipeline, worker.core.starter.PATH)
    assert np.abs(picture(embedded) - official(pipe)).max() <= 1
    wide = {"width": 96, "height": 64, "guidance": 1.0}
    assert np.abs(picture(embedded, **wide) - official(pipe, **wide)).max() <= 1


def test_clip_skip_reads_the_text_without_its_last_layers(
    embedded: ResidentPipeline,
) -> None:
    pipe = open_official(StableDiffusionPipeline, worker.core.starter.PATH)
    encoder = getattr(pipe.text_encoder, "text_model", pipe.text_encoder).encoder
    encoder.layers = encoder.layers[:-1]
    drawn = picture(embedded, clip_skip=2)
    assert np.abs(drawn - official(pipe)).max() <= 1
    assert np.abs(drawn - picture(embedded)).max() > 10


def test_more_layers_than_there_are_cannot_be_skipped(pipeline: ResidentPipeline) -> None:
    with pytest.raises(RenderError, match="CLIP skip is 4, but this base has 3"):
        picture(pipeline, clip_skip=4)


@pytest.mark.parametrize("layout", ["starter", "sd15", "sdxl"])
def test_diffusers_draws_the_same_with_our_downloads(
    layout: str,
    small_starter: Path,
    shallow_sd15_folder: Path,
    sdxl_folder: Path,
    tmp_path: Path,
) -> None:
    folders = {"starter": small_starter, "sd15": shallow_sd15_folder, "sdxl": sdxl_folder}
    folder = folders[layout]
    family = BaseFamily.SDXL if layout == "sdxl" else BaseFamily.SD1
    kind = StableDiffusionXLPipeline if layout == "sdxl" else StableDiffusionPipeline
    ours, pipe = ResidentPipeline.load(folder), open_official(kind, folder)
    adapter = adapter_for(ours, strength=1.0 if layout == "starter" else 0.05)  # in few layers
    plain = picture(ours, steps=2)
    assert np.abs(plain - official(pipe, steps=2)).max() <= 1
    ours.set_adapters([LoadedAdapter("a", adapter)])
    changed = picture(ours, steps=2)
    assert np.abs(changed - plain).max() > 8
    for format in (FileFormat.KOHYA, FileFormat.PEFT):
        file = tmp_path / f"{format}.safetensors"
        export(
            adapter, file, format=format, dtype=WeightDtype.FP32, metadata=metadata(family=family)
        )
        pipe.load_lora_weights(file, use_safetensors=True)
        assert np.abs(changed - official(pipe, steps=2)).max() <= 1
        pipe.unload_lora_weights()


def test_weights_back_at_zero_draw_the_bases_picture_to_the_bit(
    pipeline: ResidentPipeline,
) -> None:
    before = picture(pipeline)
    adapter = adapter_for(pipeline)
    pipeline.set_adapters([LoadedAdapter("a", adapter, 1.0, 1.0)])
    with_adapter = picture(pipeline)
    pipeline.set_adapters([LoadedAdapter("a", adapter, 0.0, 0.0)])
    assert np.array_equal(picture(pipeline), before)
    assert not np.array_equal(with_adapter, before)
    pipeline.set_adapters([LoadedAdapter("a", adapter, 1.0, 1.0)])
    assert np.array_equal(picture(pipeline), with_adapter)


def test_a_text_encoder_adapter_changes_the_prompt_that_was_cached(
    pipeline: ResidentPipeline,
) -> None:
    before = picture(pipeline)
    words = adapter_for(pipeline, choose=lambda key: key.startswith("text_encoder."))
    pipeline.set_adapters([LoadedAdapter("words", words, 0.0, 3.0)])
    changed = picture(pipeline)
    assert not np.array_equal(changed, before)
    pipeline.set_adapters([LoadedAdapter("words", words, 0.0, -3.0)])
    assert not np.array_equal(picture(pipeline), changed)


def test_the_prompt_is_encoded_once(
    pipeline: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encoder = pipeline.base.text_encoders[0]
    forward = encoder.forward

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return forward(*args, **options)

    monkeypatch.setattr(encoder, "forward", counted)
    for seed in range(3):
        picture(pipeline, prompt="a prompt of its own", seed=seed, steps=1)
    assert len(calls) == 1 + ("" not in {key[0] for key in pipeline._prompts})


@pytest.mark.parametrize(("guidance", "batch"), [(0.0, 1), (1.0, 1), (1.5, 2)])
def test_guidance_of_one_or_less_needs_no_second_pass(
    pipeline: ResidentPipeline, guidance: float, batch: int
) -> None:
    sizes: list[int] = []
    hook = pipeline.base.denoiser.register_forward_pre_hook(
        lambda _, inputs: sizes.append(len(inputs[0]))
    )
    picture(pipeline, guidance=guidance)
    hook.remove()
    assert sizes == [batch] * STEPS


def test_the_negative_prompt_counts_only_with_guidance(pipeline: ResidentPipeline) -> None:
    assert not np.array_equal(picture(pipeline, negative_prompt="green"), picture(pipeline))
    without = picture(pipeline, guidance=1.0)
    assert np.array_equal(picture(pipeline, guidance=1.0, negative_prompt="green"), without)


def stop_after(steps: int) -> tuple[list[tuple[int, int]], Callable[[int, int], bool]]:
    seen: list[tuple[int, int]] = []

    def on_step(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < steps

    return seen, on_step


def test_a_canceled_picture_stops_between_two_steps(pipeline: ResidentPipeline) -> None:
    before = picture(pipeline)
    seen, on_step = stop_after(STEPS + 1)
    with pytest.raises(RenderCanceled):
        pipeline.render(config(count=2), on_step=on_step)
    assert seen == [(2, 2 * STEPS), (4, 2 * STEPS)]  # two images in a batch
    assert np.array_equal(picture(pipeline), before)


def test_a_canceled_image_stops_between_two_layers(pipeline: ResidentPipeline) -> None:
    before = picture(pipeline)
    asked: list[int] = []
    seen, on_step = stop_after(1_000)

    def should_stop() -> bool:
        asked.append(len(seen))
        return len(asked) == 60

    with pipeline.stoppable(should_stop), pytest.raises(RenderCanceled):
        pipeline.render(config(), on_step=on_step)
    assert len(asked) == 60  # not asked again
    assert len(seen) < STEPS
    asked.clear()
    with pipeline.stoppable(lambda: bool(asked.append(len(seen)))):
        pipeline.render(config(), on_step=on_step)
    calls = max(asked.count(done) for done in set(asked))
    assert calls > 20  # in each call of the UNet
    assert np.array_equal(picture(pipeline), before)


def test_the_end_of_a_prompt_that_does_not_fit_is_reported(embedded: ResidentPipeline) -> None:
    long = " ".join(["apple"] * (22 * MAX_CHUNKS) + ["on a board"])
    assert embedded.render(config(prompt=long, steps=1))[0].truncated == "on a board"
    negative = embedded.render(config(negative_prompt=long, steps=1))[0]
    assert negative.truncated == "on a board"
    assert embedded.render(config(steps=1))[0].truncated == ""


def test_sdxl_gets_the_size_of_the_image(smallest_sdxl_folder: Path) -> None:
    ours = ResidentPipeline.load(smallest_sdxl_folder)
    pipe = open_official(StableDiffusionXLPipeline, smallest_sdxl_folder)
    wide = {"width": 96, "height": 64}
    assert np.abs(picture(ours, **wide) - official(pipe, **wide)).max() <= 1


def test_invalid_numbers_end_in_a_sentence(pipeline: ResidentPipeline) -> None:
    bias = pipeline.base.denoiser.conv_out.bias
    before = bias.clone()
    bias.fill_(torch.nan)
    with pytest.raises(RenderError, match="smaller adapter weights"):
        picture(pipeline)
    bias.copy_(before)
