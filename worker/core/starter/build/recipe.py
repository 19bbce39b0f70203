"""The sizes and durations of a build: the full one that ships, and a tiny one for tests."""

from dataclasses import dataclass

from worker.core.starter.build.pace import Pace

SHARES = {"autoencoder": 0.22, "text_encoder": 0.16, "unet": 0.62}
"""How the minutes are divided. The decoder limits sharpness, words limit everything else."""


@dataclass(frozen=True)
class Recipe:
    """All parameters of a build; sizes in channels, tokens and images."""

    autoencoder: Pace
    text_encoder: Pace
    unet: Pace
    vae_width: int = 32
    latent_channels: int = 16
    vocabulary: int = 6000
    tokens: int = 24
    text_width: int = 192
    text_layers: int = 3
    unet_channels: tuple[int, ...] = (96, 192, 256)
    attention_heads: int = 4
    autoencoder_batch: int = 8
    text_batch: int = 128
    unet_batch: int = 64
    captions: int = 3
    seed: int = 0


def full_recipe(minutes: float, *, seed: int = 0) -> Recipe:
    """The base that ships, 20 million parameters, trained for about this many minutes."""
    return Recipe(
        autoencoder=Pace(minutes=minutes * SHARES["autoencoder"]),
        text_encoder=Pace(minutes=minutes * SHARES["text_encoder"]),
        unet=Pace(minutes=minutes * SHARES["unet"]),
        seed=seed,
    )


def tiny_recipe(*, seed: int = 0) -> Recipe:
    """Every stage at a tiny size: under a minute, to test that each one learns."""
    return Recipe(
        autoencoder=Pace(steps=50),
        text_encoder=Pace(steps=80),
        unet=Pace(steps=50),
        vae_width=16,
        latent_channels=4,
        vocabulary=400,
        text_width=64,
        text_layers=2,
        unet_channels=(32, 64),
        text_batch=32,
        autoencoder_batch=4,
        unet_batch=16,
        seed=seed,
    )
