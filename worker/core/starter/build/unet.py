"""Stage three: the UNet, trained on the text states and latents of the first two stages.

v-prediction with a schedule that ends in pure noise (Lin et al., 2023, "Common diffusion noise
schedules and sample steps are flawed", arXiv:2305.08891). The loss is unweighted: min-SNR weighting
reduces the weight of the noise levels where the text decides the layout.
"""

import time

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from worker.core.starter.build.pace import Journal, rate_factor
from worker.core.starter.build.recipe import Recipe
from worker.core.starter.build.text_encoder import Words, encode_captions
from worker.core.starter.build.training_set import TrainingSet

RATE = 6e-4
EMA_DECAY = 0.999
EMPTY_CAPTIONS = 0.1
"""Share of captions that are dropped, for classifier-free guidance."""


def make_scheduler() -> DDIMScheduler:
    """The noise schedule of training and sampling."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def make_unet(recipe: Recipe, *, latent_size: int) -> UNet2DConditionModel:
    """An untrained UNet, with attention in every block but the one of lowest resolution."""
    channels = recipe.unet_channels
    crossed = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed,
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        # diffusers names this wrongly: it is the number of heads, not their width.
        attention_head_dim=recipe.attention_heads,
        norm_num_groups=16,
    )


def train_unet(
    latents: Tensor, dataset: TrainingSet, words: Words, recipe: Recipe
) -> tuple[UNet2DConditionModel, list[float]]:
    """The averaged UNet, and the loss of each step."""
    torch.manual_seed(recipe.seed)
    unet = make_unet(recipe, latent_size=latents.shape[-1])
    averaged = {name: value.clone() for name, value in unet.state_dict().items()}
    schedule = DDPMScheduler.from_config(make_scheduler().config)
    steps = schedule.config.num_train_timesteps
    flat = [caption for texts in dataset.captions for caption in texts]
    states = encode_captions(words, flat)
    states = states.view(len(latents), recipe.captions, *states.shape[1:])
    empty = encode_captions(words, [""])[0]
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=0.01)
    half = faster_in_bf16(unet, latents, states)
    batch = recipe.unet_batch
    journal = Journal("unet")
    for share in recipe.unet.progress():
        chosen = torch.randint(len(latents), (batch,))
        context = states[chosen, torch.randint(recipe.captions, (batch,))]
        context = torch.where(torch.rand(batch, 1, 1) < EMPTY_CAPTIONS, empty, context)
        # One timestep from each of `batch` equal strata: less noise in the loss.
        timesteps = ((torch.arange(batch) + torch.rand(batch)) / batch * steps).long()
        noise = torch.randn_like(latents[chosen])
        noisy = schedule.add_noise(latents[chosen], noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            predicted = unet(noisy, timesteps, context).sample
        loss = F.mse_loss(
            predicted.float(), schedule.get_velocity(latents[chosen], noise, timesteps)
        )
        optimizer.param_groups[0]["lr"] = RATE * rate_factor(share)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        journal.note(loss.item(), share)
        _average(averaged, unet, step=len(journal.losses))
    unet.load_state_dict(averaged)
    return unet.requires_grad_(False).eval(), journal.losses


@torch.no_grad()
def _average(averaged: dict[str, Tensor], unet: UNet2DConditionModel, *, step: int) -> None:
    """Update the moving average, short at first, to forget the random initial weights."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for name, value in unet.state_dict().items():
        averaged[name].lerp_(value, 1 - decay)


def faster_in_bf16(unet: UNet2DConditionModel, latents: Tensor, states: Tensor) -> bool:
    """True when bfloat16 is faster here: only some processors support it in hardware."""
    seconds = []
    for enabled in (False, True):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            unet(latents[:8], torch.zeros(8), states[:8, 0]).sample.float().sum().backward()
        seconds.append(time.perf_counter() - started)
        unet.zero_grad()
    return seconds[1] < seconds[0]
