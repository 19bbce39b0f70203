"""The samples of a run and the playground draw the same image of the same adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image

from tests.worker.training.adapters import scramble
from worker.core import starter
from worker.core.bases.load import LoadedBase, load_base
from worker.core.families.networks import network_of
from worker.core.families.stable_diffusion.samplers import make_scheduler
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.training.config import TrainConfig
from worker.core.training.data.text import LiveCaptionEncoder
from worker.core.training.prepare import add_adapter, prediction_of, schedule_of
from worker.core.training.samples.sampler import Sampler

STEPS, SEED, GUIDANCE, SIDE = 2, 7, 3.0, 64
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "sd15": SCHEDULE
    | {
        "_class_name": "PNDMScheduler",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "sd21-v": SCHEDULE
    | {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "sdxl": SCHEDULE
    | {
        "_class_name": "EulerDiscreteScheduler",
        "clip_sample": False,
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    "starter": json.loads((starter.PATH / "scheduler/scheduler_config.json").read_text()),
    "bare": SCHEDULE | {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
}
"""The scheduler configs as they are published; `bare` says nothing of its last alpha."""

TIMESTEPS = {
    "sd15": [501, 1],
    "sd21-v": [501, 1],
    "sdxl": [501, 1],
    "starter": [999, 499],
    "bare": [500, 0],
}


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory,
    shallow_sd15_folder: Path,
    shallow_sdxl_folder: Path,
) -> dict[str, Path]:
    """A small real base for each scheduler config."""
    root = tmp_path_factory.mktemp("sampling")
    folders = {"starter": starter.PATH}
    for name in PUBLISHED.keys() - folders.keys():
        base = shallow_sdxl_folder if name == "sdxl" else shallow_sd15_folder
        folders[name] = shutil.copytree(base, root / name)
        file = folders[name] / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(PUBLISHED[name]))
    return folders


@contextmanager
def timesteps_of(base: LoadedBase) -> Iterator[list[int]]:
    """The inputs of the UNet, step by step."""
    seen: list[int] = []
    hook = base.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1])))
    yield seen
    hook.remove()


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_sample_is_the_playgrounds_image(name: str, folders: dict[str, Path]) -> None:
    skip = 2 if name == "sd15" else 1
    config = TrainConfig(
        rank=2,
        alpha=16,  # few layers have to show it
        train_text_encoder=True,
        clip_skip=skip,
        resolution=SIDE,
        sample_prompts=["castle", "frog --n a blue sky", "castle --a 0"],
        sample_negative_prompt=" ",
        sample_steps=STEPS,
        sample_guidance=GUIDANCE,
        sample_seed=SEED,
    )
    trained = load_base(folders[name])
    lora = add_adapter(trained, config)
    scramble(lora)
    sampler = Sampler(
        network=network_of(trained.info.family),
        denoiser=trained.denoiser,
        vae=trained.vae,
        text=LiveCaptionEncoder(trained, device="cpu", clip_skip=skip),
        scaled=lora.scaled,
        config=config,
        scheduler_config=schedule_of(config, trained),
        prediction=prediction_of(config, trained),
        resolution=SIDE,
        device="cpu",
    )
    with timesteps_of(trained) as of_samples:
        samples = [pixels(sample.image) for sample in sampler.generate(lambda: None)]

    pipeline = ResidentPipeline.load(folders[name])
    pipeline.set_adapters([LoadedAdapter("trained", lora.extract())])

    def playground(prompt: str, seed: int, negative: str = " ") -> NDArray[np.int16]:
        request = RenderConfig(
            prompt=prompt,
            negative_prompt=negative,
            seed=seed,
            steps=STEPS,
            guidance=GUIDANCE,
            clip_skip=skip,
            width=SIDE,
            height=SIDE,
        )
        return pixels(pipeline.render(request)[0].image)

    with timesteps_of(pipeline.base) as of_images:
        images = [playground("castle", SEED), playground("frog", SEED + 1, "a blue sky")]
        pipeline.set_adapters([])
        images.append(playground("castle", SEED + 2))  # the twin

    two_groups = 2 * TIMESTEPS[name]  # with the adapter, and at weight 0
    assert of_samples == two_groups
    assert of_images == 3 * TIMESTEPS[name]
    for sample, image in zip(samples, images, strict=True):
        assert np.abs(sample - image).max() <= 1
    assert np.abs(playground("castle", SEED) - images[0]).max() > 8  # the adapter was seen


@pytest.mark.parametrize(
    ("name", "first"), [("sd15", 951), ("sd21-v", 951), ("sdxl", 951), ("starter", 999)]
)
def test_a_bases_own_spacing_decides_where_an_image_begins(name: str, first: int) -> None:
    config = PUBLISHED[name]
    ours = make_scheduler(config, prediction_type=config.get("prediction_type", "epsilon"))
    theirs = DDIMScheduler.from_config(dict(config))
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    assert ours.timesteps[0] == first
    assert torch.equal(ours.timesteps, theirs.timesteps)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_last_alpha_is_what_diffusers_reads_in_the_config(name: str) -> None:
    ours = make_scheduler(PUBLISHED[name], prediction_type="epsilon")
    theirs = DDIMScheduler.from_config(dict(PUBLISHED[name]))
    assert ours.final_alpha_cumprod == theirs.final_alpha_cumprod
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)


def test_schedules_with_zero_terminal_snr_begin_at_the_last_timestep() -> None:
    scheduler = make_scheduler(
        {"rescale_betas_zero_snr": True, "timestep_spacing": "leading", "clip_sample": True},
        prediction_type="v_prediction",
    )
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[-1] < 1e-6
    assert scheduler.config.prediction_type == "v_prediction"
    assert not scheduler.config.clip_sample


def test_other_samplers_configs_give_their_noise_schedule() -> None:
    euler = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.001, "use_karras_sigmas": 1}
    scheduler = make_scheduler(euler, prediction_type="epsilon")
    assert scheduler.config.beta_start == 0.001
    assert scheduler.config.set_alpha_to_one


@pytest.mark.parametrize("spacing", [None, "karras", "linspace"])
def test_a_spacing_that_ddim_does_not_know_is_its_usual_one(spacing: str | None) -> None:
    scheduler = make_scheduler({"timestep_spacing": spacing}, prediction_type="epsilon")
    scheduler.set_timesteps(2)
    expected = {"linspace": [999, 0]}.get(str(spacing), [500, 0])
    assert scheduler.timesteps.tolist() == expected
