"""Stage one: an `AutoencoderTiny` that preserves color and outline, 64 x 64 x 3 to 8 x 8 x 16.

It has no normalization layers, because GroupNorm over few channels loses absolute color. The number
of steps matters more than the batch size.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from worker.core.starter.build.muon import Muon
from worker.core.starter.build.pace import Journal, rate_factor
from worker.core.starter.build.recipe import Recipe
from worker.core.starter.build.training_set import TrainingSet

MUON_RATE = 6e-3
ADAM_RATE = 1.5e-3
ABSOLUTE_WEIGHT = 0.3
GRADIENT_WEIGHT = 0.1
MEASURED_IMAGES = 512


def train_autoencoder(dataset: TrainingSet, recipe: Recipe) -> tuple[AutoencoderTiny, list[float]]:
    """The trained autoencoder, its latents scaled to unit deviation, and the loss of each step."""
    torch.manual_seed(recipe.seed)
    width = recipe.vae_width
    vae = AutoencoderTiny(
        latent_channels=recipe.latent_channels,
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
    )
    hidden, outer = _split_weights(vae)
    muon = Muon(hidden, rate=MUON_RATE)
    adam = torch.optim.AdamW(outer, lr=ADAM_RATE)
    journal = Journal("autoencoder")
    for share in recipe.autoencoder.progress():
        chosen = torch.randint(len(dataset.pixels), (recipe.autoencoder_batch,))
        targets = dataset.batch(chosen)
        loss = image_loss(vae.decode(vae.encode(targets).latents).sample, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(outer, 1.0)
        muon.rate = MUON_RATE * rate_factor(share)
        adam.param_groups[0]["lr"] = ADAM_RATE * rate_factor(share)
        muon.step()
        adam.step()
        adam.zero_grad()
        journal.note(loss.item(), share)
    vae.requires_grad_(False).eval()
    deviation = encode_latents(vae, dataset, scaled=False)[:MEASURED_IMAGES].std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    return vae, journal.losses


def image_loss(decoded: Tensor, targets: Tensor) -> Tensor:
    """Squared and absolute error, plus the error of neighboring differences, for outlines."""
    error = decoded - targets
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (
        F.mse_loss(decoded, targets)
        + ABSOLUTE_WEIGHT * error.abs().mean()
        + GRADIENT_WEIGHT * slopes
    )


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
def encode_latents(vae: AutoencoderTiny, dataset: TrainingSet, *, scaled: bool = True) -> Tensor:
    """The latents of all images, (n, channels, 8, 8), in the UNet's scale when `scaled`."""
    latents = torch.cat(
        [
            vae.encode(dataset.batch(indices)).latents
            for indices in torch.split(torch.arange(len(dataset.pixels)), 64)
        ]
    )
    return latents * vae.config.scaling_factor if scaled else latents
