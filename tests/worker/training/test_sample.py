from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.training.conftest import MakeBase
from worker.core.bases.load import LoadedBase
from worker.core.families.networks import network_of
from worker.core.training.config import TrainConfig
from worker.core.training.data.text import LiveCaptionEncoder
from worker.core.training.prepare import prediction_of
from worker.core.training.samples.sampler import SampleImage, Sampler

PROMPTS = ["castle", "frog"]


def _sampler(base: LoadedBase, **changes: object) -> Sampler:
    settings = {
        "sample_prompts": PROMPTS,
        "sample_steps": 3,
        "sample_guidance": 3.0,
        "sample_seed": 7,
        "resolution": 64,
    }
    config = TrainConfig.model_validate(settings | changes)
    return Sampler(
        network=network_of(base.info.family),
        denoiser=base.denoiser,
        vae=base.vae,
        text=LiveCaptionEncoder(base, device="cpu"),
        scaled=lambda _: nullcontext(),
        config=config,
        scheduler_config=base.scheduler_config,
        prediction=prediction_of(config, base),
        resolution=64,
        device="cpu",
    )


def _draw(sampler: Sampler) -> list[SampleImage]:
    return list(sampler.generate(lambda: None))


def _difference(one: Image.Image, two: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(two, float)).mean())


@pytest.mark.parametrize("family", ["smallest_sd15", "smallest_sdxl", "starter_base"])
def test_every_prompt_gets_a_picture_with_its_own_seed(
    family: str, request: pytest.FixtureRequest
) -> None:
    samples = _draw(_sampler(request.getfixturevalue(family)()))
    assert [(s.prompt_index, s.prompt, s.seed) for s in samples] == [
        (0, "castle", 7),
        (1, "frog", 8),
    ]
    assert all(sample.image.size == (64, 64) for sample in samples)


def test_a_picture_is_the_same_in_any_company(shallow_sd15: MakeBase) -> None:
    base = shallow_sd15()
    together = _draw(_sampler(base))
    alone = _draw(_sampler(base, sample_prompts=["frog"], sample_seed=8))
    assert _difference(together[1].image, alone[0].image) < 0.1
    assert _difference(together[0].image, together[1].image) > 10


def test_drawing_leaves_the_global_generator_alone(shallow_sd15: MakeBase) -> None:
    before = torch.get_rng_state()
    _draw(_sampler(shallow_sd15()))
    assert torch.equal(before, torch.get_rng_state())


def test_the_base_draws_what_the_prompt_names(starter_base: MakeBase) -> None:
    """A red apple is redder than a frog is: the schedule, the guidance and the VAE all fit."""
    prompts = ["red apple", "frog"]
    apple, frog = _draw(
        _sampler(starter_base(), sample_prompts=prompts, sample_steps=12, sample_guidance=2.0)
    )

    def redness(sample: SampleImage) -> float:
        side = sample.image.width
        box = (side // 3, side // 3, 2 * side // 3, 2 * side // 3)
        middle = np.asarray(sample.image.crop(box), float).mean(axis=(0, 1))
        return float(middle[0] - middle[1])

    assert redness(apple) > 50
    assert redness(frog) < 0


def test_the_negative_prompt_and_guidance_have_an_effect(starter_base: MakeBase) -> None:
    base = starter_base()
    plain = _draw(_sampler(base))[0].image
    assert _difference(plain, _draw(_sampler(base, sample_guidance=1.0))[0].image) > 1
    assert _difference(plain, _draw(_sampler(base, sample_negative_prompt="castle"))[0].image) > 1


def test_drawing_can_be_stopped_at_any_step(shallow_sd15: MakeBase) -> None:
    looks = 0

    def check_stop() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(_sampler(shallow_sd15()).generate(check_stop))
    assert looks == 2
