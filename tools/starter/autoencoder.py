"""Stage two: an `AutoencoderTiny` that preserves color and outline, 8 times smaller.

128 x 128 x 3 become 16 x 16 x 12. It has no normalization layers, because GroupNorm over few
channels loses absolute color. The number of steps matters more than the batch size.
"""

import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from tools.starter.checkpoint import Checkpoint, StageTraining, never
from tools.starter.errors import BuildInterrupted
from tools.starter.hardware import Hardware
from tools.starter.muon import Muon
from tools.starter.pace import rate_factor
from tools.starter.recipe import Recipe
from tools.starter.training_set import TrainingSet
from tools.starter.wild_images import wild_image

MUON_RATE = 6e-3
ADAM_RATE = 1.5e-3
SQUARED_WEIGHT = 0.5
ABSOLUTE_WEIGHT = 0.7
GRADIENT_WEIGHT = 0.4

NOISE = 0.2
"""Most noise on the latents that the decoder is trained with, as a share of their deviation: it
learns to forgive an imperfect UNet."""

SPREAD_WEIGHT = 0.02
"""Of the penalty that holds the latents at zero mean and unit deviation. `AutoencoderTiny`'s
decoder bends values beyond 3, so they must stay small."""

ENCODED_AT_ONCE = 32
SAVED_BATCHES = 40


def train_autoencoder(
    dataset: TrainingSet,
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    hardware: Hardware,
    interrupted: Callable[[], bool] = never,
) -> tuple[AutoencoderTiny, list[float]]:
    """The trained autoencoder, its latents scaled to unit deviation, and the loss of each step."""
    torch.manual_seed(recipe.seed)
    vae = make_autoencoder(recipe)
    vae.to(hardware.device).train()
    hidden, outer = _split_weights(vae)
    muon = Muon(hidden, rate=MUON_RATE)
    adam = torch.optim.AdamW(outer, lr=ADAM_RATE)
    parts = {"vae": vae, "muon": muon, "adam": adam}
    training = StageTraining(checkpoint, recipe.autoencoder, parts, interrupted=interrupted)
    images = torch.empty(0)
    for share in training.shares():
        if not len(images):
            images = _draw_images(dataset, recipe)
        chosen = torch.randint(len(images), (recipe.autoencoder_batch,))
        targets = to_values(images[chosen]).to(hardware.device)
        latents = vae.encode(targets).latents
        noise = torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1).to(latents)
        noisy = latents + NOISE * latents.detach().std() * noise
        loss = image_loss(vae.decode(noisy).sample, targets)
        loss = loss + SPREAD_WEIGHT * (latents.mean() ** 2 + (latents.std() - 1) ** 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(outer, 1.0)
        muon.rate = MUON_RATE * rate_factor(share)
        adam.param_groups[0]["lr"] = ADAM_RATE * rate_factor(share)
        muon.step()
        adam.step()
        adam.zero_grad()
        training.journal.note(loss.item(), share)
    return vae.to("cpu").requires_grad_(False).eval(), training.journal.losses


def make_autoencoder(recipe: Recipe) -> AutoencoderTiny:
    """An untrained autoencoder."""
    width = recipe.vae_width
    return AutoencoderTiny(
        latent_channels=recipe.latent_channels,
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=recipe.encoder_blocks,
        num_decoder_blocks=recipe.decoder_blocks,
    )


def image_loss(decoded: Tensor, targets: Tensor) -> Tensor:
    """Squared and absolute error, plus the error of neighboring differences, for outlines."""
    error = decoded - targets
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (
        SQUARED_WEIGHT * F.mse_loss(decoded, targets)
        + ABSOLUTE_WEIGHT * error.abs().mean()
        + GRADIENT_WEIGHT * slopes / 2
    )


def to_values(pixels: Tensor) -> Tensor:
    """(n, height, width, 3) bytes as (n, 3, height, width) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _draw_images(dataset: TrainingSet, recipe: Recipe) -> Tensor:
    """Wild images and those of the training set, as bytes, (n, height, width, 3)."""
    rng = random.Random(recipe.seed)
    count = recipe.wild_images + len(dataset.images)
    images = torch.empty((count, dataset.size, dataset.size, 3), dtype=torch.uint8)
    for row in range(recipe.wild_images):
        image = wild_image(dataset.subjects, dataset.size, rng=rng)
        images[row] = torch.from_numpy(image.copy())
    for index, image in dataset.render():
        images[recipe.wild_images + index] = torch.from_numpy(image.copy())
    return images


def _split_weights(
    vae: AutoencoderTiny,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights for Muon, and those for Adam: biases, and the first and last layers of both
    halves."""
    edges = set()
    for half in (vae.encoder, vae.decoder):
        layers = [module for module in half.modules() if isinstance(module, torch.nn.Conv2d)]
        edges |= {id(layers[0].weight), id(layers[-1].weight)}
    weights = list(vae.parameters())
    hidden = [w for w in weights if w.ndim > 1 and id(w) not in edges]
    outer = [w for w in weights if w.ndim == 1 or id(w) in edges]
    return hidden, outer


@torch.no_grad()
def encode_latents(
    vae: AutoencoderTiny,
    dataset: TrainingSet,
    checkpoint: Checkpoint,
    *,
    interrupted: Callable[[], bool] = never,
) -> Tensor:
    """The unscaled latents of all images in half precision, (n, channels, side, side).

    The third stage: about five minutes on one core for 11,000 images.
    """
    state = checkpoint.read()
    found = [state["latents"]] if state else []
    done = len(found[0]) if found else 0
    for count, batch in enumerate(_batches(dataset, start=done), start=1):
        found.append(vae.encode(to_values(batch)).latents.half())
        stop = interrupted()
        if count % SAVED_BATCHES == 0 or stop:
            found = [torch.cat(found)]
            checkpoint.write({"latents": found[0]})
        if stop:
            raise BuildInterrupted(checkpoint.stage, len(found[0]) / len(dataset.images))
    latents = torch.cat(found)
    if len(latents) > done:
        checkpoint.write({"latents": latents})
    return latents


def scale_latents(vae: AutoencoderTiny, latents: Tensor) -> Tensor:
    """The latents in the UNet's scale, of unit deviation; the factor goes into the config."""
    if vae.config.scaling_factor == 1.0:
        vae.register_to_config(scaling_factor=1 / latents.float().std().item())
    return latents.float() * float(vae.config.scaling_factor)


def _batches(dataset: TrainingSet, *, start: int) -> Iterator[Tensor]:
    """The images from `start` on, as bytes, some at a time."""
    batch = []
    if start < len(dataset.images):
        for index, image in dataset.render():
            if index >= start:
                batch.append(image)
            if len(batch) == ENCODED_AT_ONCE:
                yield torch.from_numpy(np.stack(batch))
                batch = []
    if batch:
        yield torch.from_numpy(np.stack(batch))
