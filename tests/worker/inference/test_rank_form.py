"""A batch whose images have adapters of their own gives what merged weights give, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worker.base_shapes import base_shapes
from tests.worker.inference.test_batches import unet_calls
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.inference import rank_form
from worker.core.inference.batches import WantedImage, concat_conditioning
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled
from worker.core.inference.pipeline import RenderedImage, ResidentPipeline
from worker.core.inference.rank_form import AdaptersBeside
from worker.core.inference.sampling import image_generators, initial_noise, predict_noise
from worker.core.lora_files.compatible import AdapterMismatchError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import Part

STEPS = 2
BLOCKS = {Part.INPUT: 0.5, Part.MIDDLE: 0.0, Part.OUTPUT: -1.25}
Stacks = Sequence[Sequence[LoadedAdapter]]


def config(**changes: Any) -> RenderConfig:
    return RenderConfig(**({"prompt": "red apple", "seed": 6, "steps": STEPS} | changes))


def pixels(rendered: RenderedImage) -> NDArray[np.int16]:
    return np.asarray(rendered.image).astype(np.int16)


def make_stacks(pipeline: ResidentPipeline) -> Stacks:
    """One adapter or two of other ranks, for linear and convolution layers and both encoders.

    One has other weights in the blocks of the UNet.
    """
    shapes = base_shapes(pipeline.base)
    chalk = random_adapter(shapes, rank=4, strength=0.05, seed=1)
    lines = random_adapter(shapes, rank=2, strength=0.05, seed=2, choose=lambda key: "attn" in key)
    return [
        [LoadedAdapter("chalk", chalk, 1.0)],
        [LoadedAdapter("chalk", chalk, 0.5, 0.0), LoadedAdapter("lines", lines, -0.5)],
        [],
        [LoadedAdapter("lines", lines, 1.5, block_weights=BLOCKS)],
        [LoadedAdapter("chalk", chalk, 0.0, 2.0)],
    ]


def one_by_one(
    pipeline: ResidentPipeline, stacks: Stacks, wanted: RenderConfig
) -> list[RenderedImage]:
    drawn = []
    for stack in stacks:
        pipeline.set_adapters(stack)
        drawn += pipeline.render(wanted)
    pipeline.set_adapters([])
    return drawn


@pytest.mark.parametrize("base", ["starter", "sd15", "sdxl"])
def test_a_call_of_the_unet_is_that_of_merged_weights(
    base: str, shallow_sdxl_folder: Path, request: pytest.FixtureRequest
) -> None:
    pipeline: ResidentPipeline
    if base == "sdxl":
        pipeline = ResidentPipeline.load(shallow_sdxl_folder)
    else:
        pipeline = request.getfixturevalue({"starter": "embedded", "sd15": "pipeline"}[base])
    stacks, wanted = make_stacks(pipeline), config(guidance=3.0)
    unet, vae = pipeline.base.denoiser, pipeline.base.vae
    width, height = pipeline.image_size(wanted)
    beside = AdaptersBeside(pipeline._merged, stacks)
    assert beside.pays()
    level = torch.tensor(500)
    with torch.inference_mode():
        images: list[WantedImage] = pipeline._want_beside(wanted, beside)
        generators = image_generators([6] * len(stacks))
        noise = initial_noise(unet, vae, generators, width=width, height=height)
        text = concat_conditioning([image.conditioning for image in images])
        with beside.on_images(0, images):
            together = predict_noise(
                pipeline._network, unet, text, noise, level, width=width, height=height
            )
        for index, stack in enumerate(stacks):
            pipeline.set_adapters(stack)
            (image,) = pipeline._want(wanted)
            merged = predict_noise(
                pipeline._network,
                unet,
                image.conditioning,
                noise[:1],
                level,
                width=width,
                height=height,
            )
            rows = together[[index, index + len(stacks)]]  # without and with the prompt
            assert (rows - merged).abs().max() < 1e-5


def test_a_strip_of_weights_is_generated_in_one_batch(pipeline: ResidentPipeline) -> None:
    stacks = make_stacks(pipeline)
    weights = {name: tensor.clone() for name, tensor in pipeline.base.denoiser.state_dict().items()}
    expected = one_by_one(pipeline, stacks, config())
    progress: list[tuple[int, int]] = []
    previews: list[tuple[int, int]] = []
    with unet_calls(pipeline) as rows:
        strip = pipeline.render_weights(
            config(count=3),  # which says nothing here
            stacks,
            on_step=lambda done, total: not progress.append((done, total)),
            on_preview=lambda first, latents: previews.append((first, len(latents))),
        )
    assert rows == [2 * len(stacks)] * STEPS
    assert progress == [(5, 10), (10, 10)]
    assert previews == [(0, 5)] * STEPS
    assert [rendered.seed for rendered in strip] == [6] * len(stacks)
    for rendered, alone in zip(strip, expected, strict=True):
        assert np.abs(pixels(rendered) - pixels(alone)).max() <= 1
    assert np.abs(pixels(strip[0]) - pixels(strip[1])).max() > 8
    pipeline.set_adapters([])
    now = pipeline.base.denoiser.state_dict()
    assert all(torch.equal(now[name], before) for name, before in weights.items())
    assert np.array_equal(pixels(pipeline.render(config())[0]), pixels(expected[2]))


def test_a_strip_that_does_not_fit_is_halved_and_keeps_its_weights(
    pipeline: ResidentPipeline,
) -> None:
    stacks, wanted = make_stacks(pipeline), config(sampler="euler_a")  # which adds noise
    expected = one_by_one(pipeline, stacks, wanted)
    with unet_calls(pipeline, fits=4) as rows:
        strip = pipeline.render_weights(wanted, stacks)
    assert rows == [10, 4, 4, 4, 4, 2, 2]
    for rendered, alone in zip(strip, expected, strict=True):
        assert np.abs(pixels(rendered) - pixels(alone)).max() <= 1


def test_where_a_batch_does_not_pay_the_weights_are_merged_one_after_another(
    pipeline: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = make_stacks(pipeline)
    expected = one_by_one(pipeline, stacks, config())
    monkeypatch.setattr(rank_form, "MAX_ADDED_SHARE", 0.0)
    seen: list[tuple[int, int]] = []
    previews: list[int] = []
    with unet_calls(pipeline) as rows:
        strip = pipeline.render_weights(
            config(),
            stacks,
            on_step=lambda done, total: not seen.append((done, total)),
            on_preview=lambda first, _: previews.append(first),
        )
    assert rows == [2] * STEPS * len(stacks)
    assert seen == [(done, 10) for done in range(1, 11)]
    assert previews == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for rendered, alone in zip(strip, expected, strict=True):
        assert np.array_equal(pixels(rendered), pixels(alone))


def test_a_canceled_strip_leaves_nothing_behind(pipeline: ResidentPipeline) -> None:
    pipeline.set_adapters([])
    before = pixels(pipeline.render(config())[0])
    with pytest.raises(RenderCanceled):
        pipeline.render_weights(config(), make_stacks(pipeline), on_step=lambda *_: False)
    pipeline.set_adapters([])
    assert np.array_equal(pixels(pipeline.render(config())[0]), before)


def test_an_adapter_of_another_base_stops_a_strip_before_its_first_image(
    pipeline: ResidentPipeline,
) -> None:
    foreign = random_adapter({"unet.mid_block.attentions.0.proj_in": (320, 768)}, choose=bool)
    stacks = [*make_stacks(pipeline), [LoadedAdapter("foreign", foreign)]]
    with unet_calls(pipeline) as rows, pytest.raises(AdapterMismatchError):
        pipeline.render_weights(config(), stacks)
    with unet_calls(pipeline), pytest.raises(AdapterMismatchError):
        pipeline.render_weights(config(width=1_024, height=1_024), stacks)  # one by one
    assert rows == []
