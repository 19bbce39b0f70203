from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from worker.core.starter.build.__main__ import Losses, build_starter
from worker.core.starter.build.artwork import ArtworkSubject
from worker.core.starter.build.pace import Pace
from worker.core.starter.build.recipe import full_recipe, tiny_recipe

pytestmark = pytest.mark.timeout(900)  # three trainings; a busy machine takes its time


@pytest.fixture(scope="module")
def built(
    subjects: list[ArtworkSubject], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Losses]:
    """A toy base, trained through all three stages."""
    out = tmp_path_factory.mktemp("starter") / "base"
    recipe = replace(
        tiny_recipe(),
        captions=1,
        autoencoder=Pace(steps=30),
        autoencoder_batch=2,
        text_encoder=Pace(steps=40),
        unet=Pace(steps=30),
        unet_batch=8,
    )
    return out, build_starter(subjects, recipe, out)


@pytest.mark.parametrize(
    ("stage", "share"), [("autoencoder", 0.5), ("text_encoder", 0.7), ("unet", 0.8)]
)
def test_each_stage_learns(built: tuple[Path, Losses], stage: str, share: float) -> None:
    losses = getattr(built[1], stage)
    first, last = np.mean(losses[:10]), np.mean(losses[-10:])
    assert last < share * first


def test_the_built_folder_loads_and_draws_like_any_base(built: tuple[Path, Losses]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(built[0], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        ["castle", "red apple on a blue background"],
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    ).images
    assert [image.size for image in images] == [(64, 64)] * 2
    assert images[0].tobytes() != images[1].tobytes()
    assert np.asarray(images[0]).std() > 1


def test_the_built_folder_is_half_precision_and_says_how_it_was_trained(
    built: tuple[Path, Losses],
) -> None:
    weights = list(built[0].rglob("*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    pipeline = StableDiffusionPipeline.from_pretrained(built[0], dtype=torch.float32)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.rescale_betas_zero_snr
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    assert pipeline.vae.config.scaling_factor != 1.0


def test_a_full_recipe_spends_the_minutes_it_is_given() -> None:
    recipe = full_recipe(60)
    paces = (recipe.autoencoder, recipe.text_encoder, recipe.unet)
    assert sum(pace.minutes or 0 for pace in paces) == pytest.approx(60)
