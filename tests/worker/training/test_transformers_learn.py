"""An adapter for a transformer learns a picture, which diffusers' own pipeline then draws.

The training's own loss says nothing of that: it falls for a wrong sign as well.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from torch import Tensor
from torch.nn.functional import interpolate

from tests.worker.bases.tiny_klein import klein_pipeline, klein_transformer
from tests.worker.bases.tiny_zimage import qwen_tokenizer, zimage_autoencoder, zimage_transformer
from worker.core.families.family import BaseFamily
from worker.core.families.klein.autoencoder import pack
from worker.core.families.klein.network import KleinNetwork
from worker.core.families.network import Network
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
DRAWING = {"num_inference_steps": 12, "output_type": "latent"}
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


@dataclass(frozen=True)
class Subject:
    """A family on a random transformer; `draw`: latents by diffusers' pipeline for a caption."""

    network: Network
    transformer: Callable[[], Any]
    caption_width: int
    draw: Callable[[Any, Tensor], Tensor]


def _draw_zimage(transformer: Any, caption: Tensor) -> Tensor:
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=zimage_autoencoder(),
        text_encoder=None,
        tokenizer=qwen_tokenizer(),
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn: Tensor = pipeline(
        prompt_embeds=[caption[0]] * 4,
        height=SIDE * 8,
        width=SIDE * 8,
        guidance_scale=0.0,
        **DRAWING,
        generator=torch.Generator().manual_seed(5),
    ).images
    return drawn


def _draw_klein(transformer: Any, caption: Tensor) -> Tensor:
    pipeline = klein_pipeline()
    pipeline.register_modules(transformer=transformer)
    bn = pipeline.vae.bn
    bn.reset_running_stats()
    drawn = pipeline(
        prompt_embeds=caption.expand(4, -1, -1),
        height=SIDE * 4,
        width=SIDE * 4,
        guidance_scale=1.0,
        **DRAWING,
        generator=torch.Generator().manual_seed(5),
    ).images
    return pack(drawn)


SUBJECTS = {
    "Z-Image": Subject(
        ZImageNetwork(), lambda: zimage_transformer(dim=64, layers=3), 16, _draw_zimage
    ),
    "FLUX.2 klein": Subject(KleinNetwork(), lambda: klein_transformer(heads=4), 48, _draw_klein),
}


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Smooth latents."""
    coarse = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(99))
    return interpolate(coarse, size=SIDE, mode="bilinear", align_corners=False)


def _learn(name: str, picture: Tensor, sign: int = 1) -> tuple[float, float, float, float]:
    """The picture's error in the pipeline before and after, and the training's own loss then."""
    subject = SUBJECTS[name]
    network = copy(subject.network)
    predict = network.predict
    network.predict = lambda *inputs: sign * predict(*inputs)  # type: ignore[method-assign]
    torch.manual_seed(0)
    transformer = subject.transformer()
    generator = torch.Generator().manual_seed(0)
    caption = torch.randn(1, 20, subject.caption_width, generator=generator)
    before = _error(subject, transformer, caption, picture)
    family = next(family for family in BaseFamily if family.label == name)
    lora = inject_adapter(transformer, [], CONFIG, generator=generator, family=family)
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
    after = _error(subject, transformer, caption, picture)
    return before, after, sum(losses[:10]), sum(losses[-10:])


def _error(subject: Subject, transformer: Any, caption: Tensor, picture: Tensor) -> float:
    """The mean squared error of images that diffusers draws."""
    drawn = subject.draw(transformer.eval(), caption)
    return float((drawn - picture).square().mean())


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_pipeline_draws_the_picture_that_was_learned(name: str, picture: Tensor) -> None:
    before, after, first, last = _learn(name, picture)
    assert after < 0.8 * before
    assert last < 0.85 * first


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_wrong_sign_is_seen_there_and_not_in_its_own_loss(name: str, picture: Tensor) -> None:
    before, after, first, last = _learn(name, picture, sign=-1)
    assert after > before
    assert last < 0.85 * first
