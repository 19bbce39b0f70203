import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from tools.starter.artwork import ArtworkSet, ArtworkSubject
from tools.starter.base import Build, Losses, build_starter
from tools.starter.errors import BuildError, BuildInterrupted
from tools.starter.pace import Pace
from tools.starter.recipe import Recipe, full_recipe, tiny_recipe
from tools.starter.workplace import CHECKPOINTS
from worker.core.starter.checksums import NAME, find_damage

pytestmark = pytest.mark.timeout(900)  # several trainings; a busy machine takes its time

STEPS = {"autoencoder": 30, "text encoder": 30, "unet": 20}


def small_recipe() -> Recipe:
    """A recipe of a few seconds."""
    return replace(
        tiny_recipe(),
        autoencoder=Pace(steps=STEPS["autoencoder"]),
        autoencoder_batch=2,
        wild_images=12,
        text_encoder=Pace(steps=STEPS["text encoder"]),
        unet=Pace(steps=STEPS["unet"]),
        unet_batch=8,
    )


class Interruption:
    """Asks a build to stop, the first time after so many questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def built(
    subjects: list[ArtworkSubject], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Losses]:
    """A toy base, trained through all stages without an interruption."""
    out = tmp_path_factory.mktemp("starter") / "base"
    return out, build_starter(Build(subjects, small_recipe()), out)


@pytest.fixture(scope="module")
def resumed(
    built: tuple[Path, Losses],
    subjects: list[ArtworkSubject],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Losses, list[str]]:
    """The same base, stopped in every stage and run again; the messages of the stops.

    It begins with the same vocabulary, because the order of equally frequent tokens is random.
    """
    out = tmp_path_factory.mktemp("starter") / "resumed"
    (out / CHECKPOINTS).mkdir(parents=True)
    shutil.copy(built[0] / CHECKPOINTS / "tokenizer.pt", out / CHECKPOINTS)
    stops: list[str] = []
    while True:
        build = Build(subjects, small_recipe(), interrupted=Interruption(17))
        try:
            return out, build_starter(build, out), stops
        except BuildInterrupted as stopped:
            stops.append(str(stopped))


@pytest.mark.parametrize(
    ("stage", "share"), [("autoencoder", 0.8), ("text_encoder", 0.8), ("unet", 0.85)]
)
def test_each_stage_learns(built: tuple[Path, Losses], stage: str, share: float) -> None:
    losses = getattr(built[1], stage)
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    assert last < share * first


def test_a_build_stopped_in_each_stage_ends_as_one_that_was_not(
    built: tuple[Path, Losses], resumed: tuple[Path, Losses, list[str]]
) -> None:
    stopped_in = {message.split("'")[1] for message in resumed[2]}
    assert stopped_in == {"autoencoder", "latents", "text encoder", "unet"}
    assert resumed[1] == built[1]
    for path in built[0].rglob("*.safetensors"):
        again = load_file(resumed[0] / path.relative_to(built[0]))
        for name, value in load_file(path).items():
            assert torch.equal(value, again[name]), name


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
    assert "CrossAttn" in pipeline.unet.config.down_block_types[0]
    entries = json.loads((built[0] / "subjects.json").read_text(encoding="utf-8"))["subjects"]
    assert {entry["drawn_by"] for entry in entries} <= {hand.value for hand in ArtworkSet}
    assert (built[0] / NAME).exists()
    assert find_damage(built[0]) is None


def test_a_long_prompt_ends_before_the_places_of_the_patches(built: tuple[Path, Losses]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(built[0], dtype=torch.float32)
    long, cut = (" ".join(["castle"] * count) for count in (60, 22))
    with torch.no_grad():
        states = [pipeline.encode_prompt(text, "cpu", 1, False)[0] for text in (long, cut)]
    assert states[0].shape == (1, 40, 64)
    assert torch.equal(*states)


def test_a_build_from_given_weights_keeps_their_autoencoder_and_trains_on(
    built: tuple[Path, Losses], subjects: list[ArtworkSubject], tmp_path: Path
) -> None:
    recipe = replace(small_recipe(), text_encoder=Pace(steps=4), unet=Pace(steps=4))
    losses = build_starter(Build(subjects, recipe, start_from=built[0]), tmp_path)
    assert losses.autoencoder == []
    assert losses.unet[0] < built[1].unet[0]
    given, kept = (
        load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
        for folder in (built[0], tmp_path)
    )
    assert all(torch.equal(value, kept[name]) for name, value in given.items())
    settings = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert str(built[0]) not in settings  # no path of this machine
    assert "TokenizersBackend" not in settings


def test_a_folder_without_weights_to_start_from_is_named(
    subjects: list[ArtworkSubject], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="empty is no complete diffusers folder"):
        build_starter(
            Build(subjects, small_recipe(), start_from=tmp_path / "empty"), tmp_path / "out"
        )


def test_a_checkpoint_of_another_build_is_refused_and_kept(
    built: tuple[Path, Losses], subjects: list[ArtworkSubject]
) -> None:
    before = (built[0] / "checkpoints" / "unet.pt").read_bytes()
    with pytest.raises(BuildError, match="other settings, artwork or start weights"):
        build_starter(Build(subjects, replace(small_recipe(), seed=1)), built[0])
    assert (built[0] / "checkpoints" / "unet.pt").read_bytes() == before


def test_a_full_recipe_spends_the_minutes_it_is_given() -> None:
    for starts_trained in (False, True):
        recipe = full_recipe(60, starts_trained=starts_trained)
        paces = (recipe.autoencoder, recipe.text_encoder, recipe.unet)
        assert sum(pace.minutes or 0 for pace in paces) == pytest.approx(60)
    assert recipe.autoencoder.minutes == 0
    assert recipe.latent_size == 16
