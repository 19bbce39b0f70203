"""Every sampler draws what diffusers draws with its scheduler, and the same image in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from tests.costs import wide_but
from tests.worker.inference.conftest import SCHEDULES
from worker.core.families.network import FamilyError
from worker.core.families.stable_diffusion.samplers import make_sampler
from worker.core.inference.config import RenderConfig
from worker.core.inference.infotext import ImageParameters, make_infotext
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.sampling import set_timesteps
from worker.core.words import MAX_LCM_STEPS, SamplerName

STEPS = 3
Official = tuple[str, dict[str, Any]]
OFFICIAL: dict[SamplerName, Official] = {
    SamplerName.DDIM: ("DDIMScheduler", {}),
    SamplerName.EULER: ("EulerDiscreteScheduler", {}),
    SamplerName.EULER_A: ("EulerAncestralDiscreteScheduler", {}),
    SamplerName.DPMPP_2M: ("DPMSolverMultistepScheduler", {}),
    SamplerName.DPMPP_2M_KARRAS: ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    SamplerName.DPMPP_2M_SDE: (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    SamplerName.DPMPP_2M_SDE_KARRAS: (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    SamplerName.LCM: ("LCMScheduler", {}),
}
"""The scheduler of diffusers that its documentation names for each sampler of A1111."""


def config(**changes: Any) -> RenderConfig:
    small = {"width": 64, "height": 64, "steps": STEPS, "seed": 5}
    return RenderConfig(**({"prompt": "red apple"} | small | changes))


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


@pytest.mark.parametrize("schedule", wide_but(SCHEDULES, "epsilon", "zero-snr"))
def test_each_sampler_draws_what_diffusers_draws(
    schedule: str,
    schedule_folders: dict[str, Path],
    schedule_pipelines: dict[str, ResidentPipeline],
) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(
        schedule_folders[schedule], torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    settings = dict(pipe.scheduler.config)
    drawn = []
    for sampler, (kind, changes) in OFFICIAL.items():
        if schedule == "zero-snr" and sampler.is_karras:
            continue  # diffusers takes most steps where there is nothing but noise
        pipe.scheduler = getattr(diffusers, kind).from_config(settings, **changes)
        theirs = pipe(
            "red apple",
            num_inference_steps=STEPS,
            guidance_scale=config().guidance,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(5),
        ).images[0]
        (ours,) = schedule_pipelines[schedule].render(config(sampler=sampler))
        drawn.append(pixels(ours.image))
        assert np.abs(drawn[-1] - pixels(theirs)).max() <= 1, sampler
    assert len({image.tobytes() for image in drawn}) == len(drawn)


@pytest.mark.parametrize("sampler", SamplerName)
def test_an_image_depends_on_its_seed_alone_whatever_its_sampler_adds(
    sampler: SamplerName, pipeline: ResidentPipeline
) -> None:
    among = pipeline.render(config(sampler=sampler, steps=3, count=2))
    alone, again = (
        pipeline.render(config(sampler=sampler, steps=3, seed=6))[0].image for _ in range(2)
    )
    assert np.abs(pixels(among[1].image) - pixels(alone)).max() <= 1
    assert np.array_equal(pixels(again), pixels(alone))


@pytest.mark.parametrize(
    "sampler", wide_but(SamplerName, SamplerName.DPMPP_2M_SDE_KARRAS, SamplerName.LCM)
)
def test_every_sampler_draws_the_subject(sampler: SamplerName, embedded: ResidentPipeline) -> None:
    wanted = {"width": None, "height": None, "steps": 8, "guidance": 2}
    (drawn,) = embedded.render(config(sampler=sampler, **wanted))
    image = pixels(drawn.image)
    red, green, blue = image[45:95, 40:90].reshape(-1, 3).mean(0)  # the middle of the apple
    assert red > 180, (red, green, blue)
    assert max(green, blue) < 110, (red, green, blue)
    assert image[:8, :8].mean() > 230  # a white corner


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SamplerName)
def test_the_steps_go_down_from_noise_to_the_image(sampler: SamplerName, schedule: str) -> None:
    spacing = {"steps_offset": 1, "beta_schedule": "scaled_linear"} | SCHEDULES[schedule]
    scheduler = make_sampler(sampler, spacing, prediction_type="v_prediction")
    for steps in (1, 2, 3, 20, 49, 50, 61, 103, 150):  # trailing spacing rounds 61 and 103 badly
        if sampler is SamplerName.LCM and steps > MAX_LCM_STEPS:
            continue
        set_timesteps(scheduler, steps)
        timesteps = scheduler.timesteps.tolist()
        assert len(timesteps) == steps
        assert timesteps[0] <= 999
        assert timesteps[-1] >= 0
        assert sorted(timesteps, reverse=True) == timesteps
        if schedule == "zero-snr":
            assert timesteps[0] == 999
        if sampler is not SamplerName.DDIM and sampler is not SamplerName.LCM:
            noise = scheduler.sigmas.tolist()
            assert len(noise) == steps + 1
            assert noise[-1] == 0
            assert sorted(set(noise), reverse=True) == noise


def test_karras_spacing_takes_one_step_out_of_pure_noise() -> None:
    schedule = SCHEDULES["zero-snr"] | {"beta_schedule": "scaled_linear"}
    betas = {"beta_start": 0.00085, "beta_end": 0.012}
    scheduler = make_sampler(
        SamplerName.DPMPP_2M_KARRAS, schedule | betas, prediction_type="v_prediction"
    )
    set_timesteps(scheduler, 8)
    first, second = scheduler.sigmas[:2].tolist()
    assert first > 4_000
    assert 14 < second < 15  # where Stable Diffusion's own schedule begins


@pytest.mark.parametrize("sampler", SamplerName)
def test_epsilon_prediction_cannot_begin_in_pure_noise(sampler: SamplerName) -> None:
    with pytest.raises(FamilyError, match=r"zero terminal SNR.*its prediction type is epsilon"):
        make_sampler(sampler, {"rescale_betas_zero_snr": True}, prediction_type="epsilon")


def test_lcm_takes_fewer_steps() -> None:
    assert config(sampler="lcm", steps=MAX_LCM_STEPS).steps == MAX_LCM_STEPS
    with pytest.raises(ValueError, match="LCM sampler takes at most 50 steps"):
        config(sampler="lcm", steps=MAX_LCM_STEPS + 1)


def test_an_unknown_sampler_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError) as refused:
        config(sampler="magic")
    assert all(f"'{name}'" in str(refused.value) for name in SamplerName)


def test_the_label_of_a_sampler_names_it_too() -> None:
    assert config(sampler="dpm++ 2m karras").sampler is SamplerName.DPMPP_2M_KARRAS
    assert all(config(sampler=name.label).sampler is name for name in SamplerName)


def test_the_infotext_names_the_sampler_as_a1111_does() -> None:
    def text(sampler: SamplerName) -> str:
        return make_infotext(ImageParameters(config(sampler=sampler, steps=20), model="m"))

    assert "Steps: 20, Sampler: Euler a, CFG scale" in text(SamplerName.EULER_A)
    karras = "Steps: 20, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale"
    assert karras in text(SamplerName.DPMPP_2M_SDE_KARRAS)
