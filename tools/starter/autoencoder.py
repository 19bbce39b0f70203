"""Stage two: an `AutoencoderTiny` that preserves color and outline, 8 times smaller.

128 x 128 x 3 become 16 x 16 x 12. It has no normalization layers, because GroupNorm over few
channels loses absolute color. The number of steps matters more than the batch size.

It must preserve more than the training set shows, so half of its images are wild: one or several
drawings at any scale, on flat, graded and noisy grounds, nearly half of them in a drawn look or
with changed colors. So styles that the base never saw come back well.

Most weights are trained with Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in
neural networks", https://kellerjordan.github.io/posts/muon/), which needs about half of Adam's
steps. `torch.optim.Muon` takes matrices only; here a convolution is a matrix of (out, in * k * k).
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import Parameter

from tools.starter.artwork import BACKGROUNDS, ArtworkSubject, render_drawing
from tools.starter.captions import Look
from tools.starter.checkpoint import Checkpoint, StageTraining, never
from tools.starter.errors import BuildInterrupted
from tools.starter.hardware import Hardware
from tools.starter.looks import draw_in_look
from tools.starter.pace import rate_factor
from tools.starter.recipe import Recipe
from tools.starter.training_set import TrainingSet

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
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LOOK_SHARE = 0.45
LOOKS = tuple(look for look in Look if look is not Look.PLAIN)


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


def orthogonalize(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """An approximation of the nearest half-orthogonal matrix, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon:
    """An optimizer for weights of two or more dimensions; `rate` may be changed between steps."""

    def __init__(
        self, weights: Iterable[Parameter], *, rate: float, momentum: float = 0.95
    ) -> None:
        self.weights = list(weights)
        self.rate, self.momentum = rate, momentum
        self._moving = [torch.zeros_like(weight) for weight in self.weights]

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight that has a gradient, then clear the gradients."""
        for weight, moving in zip(self.weights, self._moving, strict=True):
            if weight.grad is None:
                continue
            moving.lerp_(weight.grad, 1 - self.momentum)
            ahead = weight.grad.lerp(moving, self.momentum)  # Nesterov
            flat = orthogonalize(ahead.flatten(1))
            scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
            weight.add_(flat.view_as(weight), alpha=-self.rate * scale)
            weight.grad = None

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The momenta, for a checkpoint."""
        return {"moving": self._moving}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Take over the momenta of an interrupted training."""
        for moving, saved in zip(self._moving, state["moving"], strict=True):
            moving.copy_(saved)


def wild_image(
    subjects: Sequence[ArtworkSubject], size: int, *, rng: random.Random
) -> NDArray[np.uint8]:
    """One image, (size, size, 3)."""
    board = Image.fromarray(_ground(size, rng))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        subject = rng.choice(subjects)
        svg = subject.drawings[rng.choice(list(subject.drawings))]
        side = round(size * rng.uniform(0.4, 1.6))
        drawing = render_drawing(svg, max(8, side))
        place = tuple(rng.randint(min(0, size - side), max(0, size - side)) for _ in "xy")
        board.paste(drawing, (place[0], place[1]), drawing)
    if rng.random() < LOOK_SHARE:
        board = _in_a_look(board, rng)
    return np.asarray(board)


def _ground(size: int, rng: random.Random) -> NDArray[np.uint8]:
    """A flat color, a gradient between two colors, or a color with noise."""
    first, second = (np.array(rng.choice(list(BACKGROUNDS.values())), float) for _ in range(2))
    amount = np.zeros((size, size, 1))
    kind = rng.random()
    if kind < 0.25:
        amount = np.linspace(0, 1, size)[:, None, None] * np.ones((1, size, 1))
        amount = amount if rng.random() < 0.5 else amount.transpose(1, 0, 2)
    ground = first * (1 - amount) + second * amount
    if kind > 0.8:
        noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 14, (size, size, 1))
        ground = ground + noise
    return np.clip(ground, 0, 255).astype(np.uint8)


def _in_a_look(board: Image.Image, rng: random.Random) -> Image.Image:
    """The image as lines, in two tones, with few colors, inverted, or tinted."""
    kind = rng.random()
    if kind < 0.5:
        return draw_in_look(board.convert("RGBA"), rng.choice(LOOKS[:-1]), "white")
    if kind < 0.65:
        return ImageOps.invert(board)
    if kind < 0.8:
        return ImageOps.posterize(board, rng.choice((1, 2, 3)))
    dark, light = rng.sample(list(BACKGROUNDS.values()), 2)
    return ImageOps.colorize(board.convert("L"), dark, light)
