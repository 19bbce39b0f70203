"""An adapter of Z-Image learns a picture, which ZImagePipeline of diffusers then draws.

The training's own loss says nothing of that: it falls for a wrong sign as well.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from torch import Tensor
from torch.nn.functional import interpolate

from tests.worker.bases.tiny_zimage import qwen_tokenizer, zimage_autoencoder, zimage_transformer
from worker.core.families.family import BaseFamily
from worker.core.families.text_states import TextStates
from worker.core.families.zimage.network import ZImageNetwork
from worker.core.training.adapter.lora import inject_adapter
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.batches import Batches
from worker.core.training.data.buckets import Size
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.learner import Learner, Model

SIDE = 8  # of the latents
STEPS = 120
CONFIG = TrainConfig.model_validate(
    {
        "steps": STEPS,
        "batch_size": 4,
        "targets": "linear",
        "learning_rate": 5e-3,
        "lr_scheduler": "constant",
        "loss_weighting": "none",
        "caption_dropout": 0,
    }
)


class WrongSign(ZImageNetwork):
    def predict(self, *inputs: Any) -> Tensor:
        return -super().predict(*inputs)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Smooth latents."""
    coarse = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(99))
    return interpolate(coarse, size=SIDE, mode="bilinear", align_corners=False)


def _learn(network: ZImageNetwork, picture: Tensor) -> tuple[float, float, float, float]:
    """The picture's error in the pipeline before and after, and the training's own loss then."""
    torch.manual_seed(0)
    transformer = zimage_transformer(dim=64, layers=3)
    generator = torch.Generator().manual_seed(0)
    caption = torch.randn(1, 20, 16, generator=generator)
    before = _error(transformer, caption, picture)
    lora = inject_adapter(transformer, [], CONFIG, generator=generator, family=BaseFamily.ZIMAGE)
    process = network.process({}, CONFIG, prediction="", device="cpu")
    states = TextStates(caption, lengths=(20,))
    model = Model(
        network,
        transformer,
        lambda captions: states.select([0] * len(captions)),
        process,
        Precision.FP32,
        "cpu",
    )
    bucket = EncodedBucket(Size(64, 64), (0,), picture[None], None, torch.zeros(1, 6))
    batches = Batches(
        [bucket], [TrainingImage("picture", "", "a picture")], CONFIG, process=process
    )
    learner = Learner(model, lora, CONFIG)
    losses = [learner.learn([batches.next()], step=step).loss for step in range(STEPS)]
    return before, _error(transformer, caption, picture), sum(losses[:10]), sum(losses[-10:])


def _error(transformer: Any, caption: Tensor, picture: Tensor) -> float:
    """The mean squared error of images that diffusers draws."""
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=zimage_autoencoder(),
        text_encoder=None,
        tokenizer=qwen_tokenizer(),
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt_embeds=[caption[0]] * 4,
        height=SIDE * 8,
        width=SIDE * 8,
        num_inference_steps=12,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    return float((drawn - picture).square().mean())


def test_the_pipeline_draws_the_picture_that_was_learned(picture: Tensor) -> None:
    before, after, first, last = _learn(ZImageNetwork(), picture)
    assert after < 0.8 * before
    assert last < 0.85 * first


def test_a_wrong_sign_is_seen_there_and_not_in_its_own_loss(picture: Tensor) -> None:
    before, after, first, last = _learn(WrongSign(), picture)
    assert after > before
    assert last < 0.85 * first
