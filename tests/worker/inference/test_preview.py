"""Previews of a step show what the image will be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.costs import wide_but
from worker.core.families.family import BaseFamily
from worker.core.inference import pipeline as pipeline_module
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.preview import approximate_pixels, has_linear_map
from worker.core.inference.sampling import decode_latent, to_image
from worker.core.words import SamplerName

CONFIG = RenderConfig(prompt="red apple", seed=5, steps=4)


@pytest.mark.parametrize(
    "sampler", wide_but(SamplerName, SamplerName.DDIM, SamplerName.DPMPP_2M_KARRAS)
)
def test_the_preview_of_the_last_step_is_the_image(
    embedded: ResidentPipeline, sampler: SamplerName
) -> None:
    config = CONFIG.model_copy(update={"sampler": sampler})
    seen: list[tuple[int, Tensor]] = []
    drawn = embedded.render(config, on_preview=lambda first, latents: seen.append((first, latents)))
    assert [first for first, _ in seen] == [0] * CONFIG.steps
    previews = [np.asarray(embedded.preview_image(latents[0])).astype(int) for _, latents in seen]
    image = np.asarray(drawn[0].image).astype(int)
    distances = [np.abs(preview - image).mean() for preview in previews]
    if not sampler.is_karras:  # which begins where little can be seen
        assert distances == sorted(distances, reverse=True)  # each step is nearer
    assert distances[-1] < 0.5


def test_a_large_bases_preview_has_a_pixel_per_latent(
    embedded: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = torch.randn(4, 12, 16)
    monkeypatch.setattr(pipeline_module, "is_small", lambda _: False)
    assert embedded.preview_image(latent).size == (16, 12)
    unusual = torch.randn(12, 16, 16)  # latents without published factors are decoded
    assert embedded.preview_image(unusual).size == (
        to_image(decode_latent(embedded.base.vae, unusual)).size
    )


def test_the_published_factors_give_the_published_colors() -> None:
    large, small = BaseFamily.SDXL.facts.linear_map, BaseFamily.SD1.facts.linear_map
    assert to_image(approximate_pixels(torch.zeros(4, 1, 1), large)).getpixel((0, 0)) == (
        (150, 140, 130)
    )
    one = torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1)
    assert to_image(approximate_pixels(one, large)).getpixel((0, 0)) == (210, 200, 190)
    assert approximate_pixels(one, small).flatten().tolist() == pytest.approx([0.298, 0.207, 0.208])


def test_the_latents_of_a_transformer_have_a_map_of_their_own() -> None:
    linear = BaseFamily.ZIMAGE.facts.linear_map
    assert has_linear_map(torch.zeros(16, 2, 3), linear)
    assert not has_linear_map(torch.zeros(4, 2, 3), linear)
    packed = BaseFamily.KLEIN.facts.linear_map
    assert has_linear_map(torch.zeros(128, 2, 3), packed)
    four = torch.arange(128).view(128, 1, 1).float() % 4  # neighbors are one pixel of their mean
    assert torch.allclose(
        approximate_pixels(four, packed), approximate_pixels(torch.full((128, 1, 1), 1.5), packed)
    )
    last = torch.zeros(16, 1, 1)
    last[-1] = 1
    assert approximate_pixels(last, linear).flatten().tolist() == pytest.approx(
        [-0.1146, -0.0827, -0.0598]
    )
