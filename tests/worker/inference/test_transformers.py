"""Images of a base with a transformer: drawn as diffusers' own pipeline draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImagePipeline
from numpy.typing import NDArray

from tests.worker.base_shapes import base_shapes
from tests.worker.bases.tiny_zimage import save_zimage
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.evaluation.drawing import FolderDrawing
from worker.core.evaluation.subjects import STEPS
from worker.core.families.family import BaseFamily
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderError
from worker.core.inference.pipeline import ResidentPipeline, default_precision, weight_bytes
from worker.core.inference.precision import _merge_probe
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.words import RenderPrecision, SamplerName

SIZE = {"width": 48, "height": 64}
LONG = "a red fox in the snow, " * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_zimage(tmp_path_factory.mktemp("base") / "z")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> ResidentPipeline:
    return ResidentPipeline.load(folder)


def config(**changes: Any) -> RenderConfig:
    usual = {"prompt": "a red fox", "seed": 5, "steps": 3, "sampler": SamplerName.EULER, **SIZE}
    return RenderConfig(**(usual | changes))


def picture(pipeline: ResidentPipeline, **changes: Any) -> NDArray[np.int16]:
    return np.asarray(pipeline.render(config(**changes))[0].image).astype(np.int16)


def test_guidance_is_counted_as_other_programs_do(pipeline: ResidentPipeline, folder: Path) -> None:
    """diffusers adds its guidance to the prediction with the prompt: one less."""
    pipe = ZImagePipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for guidance in (4.0, 1.0):
        expected = pipe(
            prompt="a red (fox:1.2)",
            negative_prompt="snow",
            num_inference_steps=3,
            guidance_scale=guidance - 1,
            generator=torch.Generator().manual_seed(5),
            **SIZE,
        ).images[0]
        made = picture(
            pipeline, prompt="a red (fox:1.2)", negative_prompt="snow", guidance=guidance
        )
        assert np.abs(made - np.asarray(expected).astype(np.int16)).max() <= 1


def test_a_prompt_has_no_weights_and_its_end_is_named(pipeline: ResidentPipeline) -> None:
    weighted, plain = picture(pipeline, prompt="a (red:1.5) fox"), picture(pipeline)
    assert (weighted != plain).any()  # the model reads the brackets
    made = pipeline.render(config(prompt=LONG))[0]
    assert made.truncated
    assert LONG.strip().endswith(made.truncated)


def test_a_strip_of_weights_draws_what_single_images_show(pipeline: ResidentPipeline) -> None:
    adapter = random_adapter(base_shapes(pipeline.base), strength=0.3)
    stacks = [[LoadedAdapter("a", adapter, weight, weight)] for weight in (0.0, 1.0, 2.0)]
    strip = [np.asarray(one.image) for one in pipeline.render_weights(config(), stacks)]
    for stack, drawn in zip(stacks, strip, strict=True):
        pipeline.set_adapters(stack)
        assert np.abs(picture(pipeline) - drawn.astype(np.int16)).max() <= 1
    pipeline.set_adapters([])
    assert (strip[0] != strip[2]).any()


def test_a_gpu_draws_it_in_bf16_whose_text_encoder_is_no_larger() -> None:
    options = BaseFamily.ZIMAGE.facts.options
    assert default_precision("cuda", options) is RenderPrecision.BF16
    parts = {"unet": 10, "text_encoder": 10, "vae": 1}
    assert weight_bytes(parts, RenderPrecision.BF16, options) == 44
    assert weight_bytes(parts, RenderPrecision.BF16, BaseFamily.SDXL.facts.options) == 64


def test_the_probe_of_a_precision_finds_its_layers(pipeline: ResidentPipeline) -> None:
    assert _merge_probe(pipeline) == pytest.approx(1, abs=0.05)
    pipeline.set_adapters([])


def test_an_evaluation_draws_with_the_usual_sampler(
    pipeline: ResidentPipeline, tmp_path: Path
) -> None:
    (drawn,) = FolderDrawing(pipeline, tmp_path, {}, guidance=4.0).images(None, ["a red fox"])
    side = pipeline.base.info.resolution
    expected = picture(pipeline, seed=0, steps=STEPS, guidance=4.0, width=side, height=side)
    assert (np.asarray(drawn) == expected).all()


def test_sides_are_in_steps_of_two_patches(pipeline: ResidentPipeline) -> None:
    with pytest.raises(RenderError, match="use multiples of 16"):
        pipeline.render(config(width=40))
