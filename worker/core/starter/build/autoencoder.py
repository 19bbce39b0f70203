"""Stage one: an `AutoencoderTiny` that keeps colour and outline, 64 x 64 x 3 to 8 x 8 x 16.

Without normalisation layers, because GroupNorm over few channels throws away absolute colour.
The number of steps counts more than the size of a batch.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from worker.core.starter.build.muon import Muon
from worker.core.starter.build.pace import Journal, rate_factor
from worker.core.starter.build.pictures import Pictures
from worker.core.starter.build.recipe import Recipe

MUON_RATE = 6e-3
ADAM_RATE = 1.5e-3
ABSOLUTE_WEIGHT = 0.3
GRADIENT_WEIGHT = 0.1
MEASURED_PICTURES = 512


def train_autoencoder(pictures: Pictures, recipe: Recipe) -> tuple[AutoencoderTiny, list[float]]:
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
        chosen = torch.randint(len(pictures.pixels), (recipe.autoencoder_batch,))
        wanted = pictures.batch(chosen)
        loss = picture_loss(vae.decode(vae.encode(wanted).latents).sample, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(outer, 1.0)
        muon.rate = MUON_RATE * rate_factor(share)
        adam.param_groups[0]["lr"] = ADAM_RATE * rate_factor(share)
        muon.step()
        adam.step()
        adam.zero_grad()
        journal.note(loss.item(), share)
    vae.requires_grad_(False).eval()
    deviation = encode_pictures(vae, pictures, scaled=False)[:MEASURED_PICTURES].std().item()
    vae.register_to_config(scaling_factor=1 / deviation)
    return vae, journal.losses


def picture_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared and absolute error, and the error of neighbouring differences, for outlines."""
    error = found - wanted
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (
        F.mse_loss(found, wanted) + ABSOLUTE_WEIGHT * error.abs().mean() + GRADIENT_WEIGHT * slopes
    )


def _split_weights(
    vae: AutoencoderTiny,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Weights for Muon, and those for Adam: first and last layers of both halves, and biases."""
    edges = set()
    for half in (vae.encoder, vae.decoder):
        layers = [module for module in half.modules() if isinstance(module, torch.nn.Conv2d)]
        edges |= {id(layers[0].weight), id(layers[-1].weight)}
    weights = list(vae.parameters())
    hidden = [w for w in weights if w.ndim > 1 and id(w) not in edges]
    outer = [w for w in weights if w.ndim == 1 or id(w) in edges]
    return hidden, outer


@torch.no_grad()
def encode_pictures(vae: AutoencoderTiny, pictures: Pictures, *, scaled: bool = True) -> Tensor:
    """The latents of all pictures, (n, channels, 8, 8), as the UNet sees them when `scaled`."""
    latents = torch.cat(
        [
            vae.encode(pictures.batch(indices)).latents
            for indices in torch.split(torch.arange(len(pictures.pixels)), 64)
        ]
    )
    return latents * vae.config.scaling_factor if scaled else latents
