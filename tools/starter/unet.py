"""Stage five: the UNet, trained on the text states and latents of the stages before.

v-prediction with a schedule that ends in pure noise (Lin et al., 2023, "Common diffusion noise
schedules and sample steps are flawed", arXiv:2305.08891). The loss is unweighted: min-SNR weighting
reduces the weight of the noise levels where the text decides the layout.

Every block has attention, the top resolution too: a small adapter trains attention and linear
layers only, and without them at the top it cannot restyle fine detail.
"""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from tools.starter.average import Average
from tools.starter.checkpoint import Checkpoint, StageTraining, never
from tools.starter.hardware import Hardware
from tools.starter.pace import rate_factor
from tools.starter.recipe import Recipe

RATE = 1e-3
TUNED_RATE = 3e-4
"""For weights that have learned already; layers that are new among them learn faster."""
NEW_RATE = 7.5e-4

EMA_DECAY = 0.998
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
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_unet(recipe: Recipe) -> UNet2DConditionModel:
    """An untrained UNet, with attention in every block."""
    channels = recipe.unet_channels
    return UNet2DConditionModel(
        sample_size=recipe.latent_size,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        layers_per_block=1,
        cross_attention_dim=recipe.text_width,
        # diffusers names this wrongly: it is the number of heads, not their width.
        attention_head_dim=recipe.attention_heads,
        norm_num_groups=16,
    )


def take_given_weights(unet: UNet2DConditionModel, given: UNet2DConditionModel) -> set[str]:
    """Copy the weights of a UNet that may lack some of the attention; the names it lacks.

    The output of every new transformer is zero, so the UNet predicts exactly what the given one
    does. ValueError when the given UNet does not fit otherwise.
    """
    found = unet.load_state_dict(given.state_dict(), strict=False)
    missing = set(found.missing_keys)
    if found.unexpected_keys or any(".attentions." not in name for name in missing):
        raise ValueError("The given UNet has other blocks than this build makes.")
    for name, module in unet.named_modules():
        if f"{name}.weight" in missing and name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return missing


def train_unet(
    latents: Tensor,
    states: Tensor,
    empty: Tensor,
    weights: Tensor,
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    start: UNet2DConditionModel | None = None,
    hardware: Hardware,
    interrupted: Callable[[], bool] = never,
) -> tuple[UNet2DConditionModel, list[float]]:
    """The averaged UNet, and the loss of each step.

    `latents` are (n, channels, side, side), `states` those of a few captions each,
    (n, captions, tokens, width), `empty` that of no caption, `weights` the share of each image.
    """
    torch.manual_seed(recipe.seed)
    unet = make_unet(recipe)
    missing = take_given_weights(unet, start) if start is not None else set()
    unet.set_attn_processor(AttnProcessor())  # its backward pass is the fastest on a CPU
    unet.to(hardware.device).train()
    average = Average(unet, EMA_DECAY)
    old = [weight for name, weight in unet.named_parameters() if name not in missing]
    new = [weight for name, weight in unet.named_parameters() if name in missing]
    rates = (RATE if start is None else TUNED_RATE, NEW_RATE)
    optimizer = torch.optim.AdamW(
        [{"params": old}, {"params": new}],
        lr=rates[0],
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    parts = {"unet": unet, "average": average, "optimizer": optimizer}
    training = StageTraining(checkpoint, recipe.unet, parts, interrupted=interrupted)
    schedule = DDPMScheduler.from_config(make_scheduler().config)
    predict = _predictor(unet, compiled=hardware.compile)
    for share in training.shares():
        chosen = torch.multinomial(weights, recipe.unet_batch, replacement=True)
        context = _choose_states(states, empty, chosen)
        timesteps = _stratified(recipe.unet_batch, schedule.config.num_train_timesteps)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        noisy = schedule.add_noise(clean, noise, timesteps)
        target = schedule.get_velocity(clean, noise, timesteps)
        on_device = (one.to(hardware.device) for one in (noisy, timesteps, context))
        with hardware.autocast():
            predicted = predict(*on_device)
        loss = F.mse_loss(predicted.float(), target.to(hardware.device))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(share)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.update(training.step)
        training.journal.note(loss.item(), share)
    average.copy_to(unet)
    unet.set_default_attn_processor()
    return unet.to("cpu").requires_grad_(False).eval(), training.journal.losses


def _predictor(
    unet: UNet2DConditionModel, *, compiled: bool
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The forward pass of a step."""

    def predict(noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        sample: Tensor = unet(noisy, timesteps, context, return_dict=False)[0]
        return sample

    return torch.compile(predict) if compiled else predict


def _choose_states(states: Tensor, empty: Tensor, chosen: Tensor) -> Tensor:
    """The states of one caption for each chosen image, a tenth of them of no caption."""
    count = len(chosen)
    context = states[chosen, torch.randint(states.shape[1], (count,))].float()
    return torch.where(torch.rand(count, 1, 1) < EMPTY_CAPTIONS, empty.float(), context)


def _stratified(count: int, steps: int) -> Tensor:
    """One timestep from each of `count` equal ranges: less noise in the loss."""
    return ((torch.arange(count) + torch.rand(count)) / count * steps).long()


def caption_seed(seed: int, image: int) -> random.Random:
    """The source of the captions of an image, equal in every process."""
    return random.Random(f"captions {seed} {image}")
