"""Images that start from another one are those of diffusers' image-to-image pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.costs import wide_but
from tests.worker.base_shapes import base_shapes
from tests.worker.inference.conftest import SCHEDULES
from tests.worker.inference.test_samplers import OFFICIAL, Official
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core import starter
from worker.core.inference import batches
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled, RenderError
from worker.core.inference.pipeline import RenderedImage, ResidentPipeline
from worker.core.inference.source_images import fit_source
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.words import SamplerName

STEPS = 5


def drawing(width: int = 64, height: int = 64) -> Image.Image:
    image = Image.new("RGB", (width, height), (240, 230, 200))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), (200, 30, 40))
    return image


def config(**changes: Any) -> RenderConfig:
    small = {"width": 64, "height": 64, "steps": STEPS, "seed": 5, "strength": 0.6}
    return RenderConfig(**({"prompt": "red apple"} | small | changes))


def pixels(drawn: RenderedImage | Image.Image) -> NDArray[np.int16]:
    image = drawn if isinstance(drawn, Image.Image) else drawn.image
    return np.asarray(image).astype(np.int16)


def differ(one: RenderedImage | Image.Image, other: RenderedImage | Image.Image) -> int:
    """The largest difference, in levels."""
    return int(np.abs(pixels(one) - pixels(other)).max())


@pytest.mark.parametrize("schedule", wide_but(SCHEDULES, "v"))
def test_an_image_is_that_of_diffusers(
    schedule: str,
    schedule_folders: dict[str, Path],
    schedule_pipelines: dict[str, ResidentPipeline],
) -> None:
    """Of a base whose autoencoder has a posterior to sample."""
    folder, pipeline = schedule_folders[schedule], schedule_pipelines[schedule]
    assert_images_of_diffusers(folder, pipeline, OFFICIAL)


def test_an_image_of_the_embedded_base_is_that_of_diffusers(embedded: ResidentPipeline) -> None:
    """Its autoencoder has no posterior, which is nothing to a sampler: one is enough."""
    samplers = {SamplerName.EULER: OFFICIAL[SamplerName.EULER]}
    assert_images_of_diffusers(starter.PATH, embedded, samplers)


def assert_images_of_diffusers(
    folder: Path, pipeline: ResidentPipeline, samplers: Mapping[SamplerName, Official]
) -> None:
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    settings = dict(pipe.scheduler.config)
    drawn = []
    for sampler, (kind, changes) in samplers.items():
        if settings["rescale_betas_zero_snr"] and sampler.is_karras:
            continue  # diffusers takes most steps where there is nothing but noise
        pipe.scheduler = getattr(diffusers, kind).from_config(settings, **changes)
        for strength in (0.6, 1.0) if sampler is SamplerName.EULER else (0.6,):
            theirs = pipe(
                "red apple",
                image=drawing(),
                strength=strength,
                num_inference_steps=STEPS,
                guidance_scale=config().guidance,
                generator=torch.Generator().manual_seed(5),
            ).images[0]
            wanted = config(sampler=sampler, strength=strength)
            (ours,) = pipeline.render(wanted, source=drawing())
            assert differ(ours, theirs) <= 1, (sampler, strength)
            drawn.append(pixels(ours).tobytes())
    assert len(set(drawn)) == len(drawn)


def test_an_image_is_the_same_alone_and_in_a_batch(pipeline: ResidentPipeline) -> None:
    progress: list[tuple[int, int]] = []
    previews: list[int] = []
    among = pipeline.render(
        config(sampler="euler_a", count=3),
        source=drawing(),
        on_step=lambda done, total: not progress.append((done, total)),
        on_preview=lambda _, latents: previews.append(len(latents)),
    )
    assert progress == [(3, 9), (6, 9), (9, 9)]  # 3 of 5 steps
    assert previews == [3, 3, 3]
    for one in reversed(among):
        (alone,) = pipeline.render(config(sampler="euler_a", seed=one.seed), source=drawing())
        assert differ(one, alone) <= 1
    assert differ(among[0], among[1]) > 1
    with pytest.raises(RenderCanceled):
        pipeline.render(config(), source=drawing(), on_step=lambda *_: False)
    with pipeline.stoppable(lambda: True), pytest.raises(RenderCanceled):  # while it is encoded
        pipeline.render(config(strength=0.0), source=drawing())


@pytest.mark.parametrize("together", [True, False])
def test_a_strip_starts_from_the_image_as_each_weight_alone(
    *, together: bool, pipeline: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 64 * 64)
    adapter = random_adapter(base_shapes(pipeline.base), strength=0.05)
    stacks = [[LoadedAdapter("a", adapter, weight)] for weight in (0.0, 0.5, 1.0)]
    strip = pipeline.render_weights(config(), stacks, source=drawing())
    for stack, drawn in zip(stacks, strip, strict=True):
        pipeline.set_adapters(stack)
        (alone,) = pipeline.render(config(), source=drawing())
        assert differ(drawn, alone) <= 1
    assert differ(strip[0], strip[2]) > 1


def test_the_strength_goes_from_the_original_to_another_image(embedded: ResidentPipeline) -> None:
    calls: list[object] = []
    hook = embedded.base.denoiser.register_forward_pre_hook(lambda *_: calls.append(None))
    changed, count = [], []
    for strength in (0.0, 0.19, 0.4, 0.7, 1.0):
        (drawn,) = embedded.render(config(strength=strength, guidance=1), source=drawing())
        changed.append(float(np.abs(pixels(drawn) - pixels(drawing())).mean()))
        count.append(len(calls))
        calls.clear()
    hook.remove()
    assert count == [0, 0, 2, 3, 5]  # 5 steps times the strength
    assert changed[0] == changed[1] < 12  # what the autoencoder loses
    assert changed[1] < changed[2] < changed[4]


def test_the_original_fills_the_size_that_is_asked_for(pipeline: ResidentPipeline) -> None:
    clear = drawing(200, 100).convert("RGBA")
    clear.putpixel((100, 10), (0, 0, 0, 0))
    fitted = fit_source(clear, 100, 100)
    assert (fitted.mode, fitted.size) == ("RGB", (100, 100))
    assert fitted.getpixel((50, 10)) == (255, 255, 255)  # the middle, on white
    (wide,) = pipeline.render(config(width=96, height=64), source=drawing(300, 40).convert("L"))
    assert wide.image.size == (96, 64)


def test_a_strength_needs_an_image(pipeline: ResidentPipeline) -> None:
    with pytest.raises(RenderError, match="image to start from is missing"):
        pipeline.render(config())
    for strength in (-0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="strength"):
            config(strength=strength)
    assert config(steps=20).steps_run == 12
    assert RenderConfig(prompt="x").steps_run == 20
