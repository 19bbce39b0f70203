"""The sizes and durations of a build: the full one that ships, and a tiny one for tests."""

from dataclasses import dataclass, replace

from tools.starter.pace import Pace

SHARES = {"autoencoder": 0.25, "text_encoder": 0.12, "unet": 0.63}
"""The shares of the minutes. The decoder limits sharpness, words limit everything else."""

SCALE = 8
"""Pixels of an image for one of its latent."""

GIB = 1 << 30


@dataclass(frozen=True)
class Recipe:
    """All parameters of a build; sizes in pixels, channels, tokens and images."""

    autoencoder: Pace
    text_encoder: Pace
    unet: Pace
    size: int = 128
    vae_width: int = 32
    encoder_blocks: tuple[int, ...] = (1, 2, 2, 3)
    decoder_blocks: tuple[int, ...] = (3, 2, 2, 1)
    latent_channels: int = 12
    wild_images: int = 12_000
    vocabulary: int = 6000
    tokens: int = 40
    text_width: int = 256
    text_layers: int = 5
    unet_channels: tuple[int, ...] = (64, 144, 288)
    attention_heads: int = 4
    autoencoder_batch: int = 8
    text_batch: int = 128
    unet_batch: int = 48
    captions: int = 3
    seed: int = 0
    memory: int = 4 * GIB
    """Free memory that the build needs, in bytes."""

    @property
    def latent_size(self) -> int:
        """Side of a latent."""
        return self.size // SCALE


def full_recipe(minutes: float, *, seed: int = 0, starts_trained: bool = False) -> Recipe:
    """The base that ships, 24 million parameters, trained for about this many minutes.

    When it starts from given weights, the autoencoder is taken as it is and the other stages get
    its time.
    """
    shares = dict(SHARES)
    if starts_trained:
        shares["autoencoder"] = 0.0
    whole = sum(shares.values())
    paces = {stage: Pace(minutes=minutes * share / whole) for stage, share in shares.items()}
    return Recipe(paces["autoencoder"], paces["text_encoder"], paces["unet"], seed=seed)


def tiny_recipe(*, seed: int = 0) -> Recipe:
    """Every stage at a tiny size: under a minute, to test that each one learns."""
    recipe = Recipe(Pace(steps=50), Pace(steps=80), Pace(steps=50), seed=seed)
    return replace(
        recipe,
        size=64,
        vae_width=16,
        encoder_blocks=(1, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
        wild_images=24,
        vocabulary=800,
        text_width=64,
        text_layers=2,
        unet_channels=(32, 64),
        text_batch=32,
        autoencoder_batch=4,
        unet_batch=16,
        captions=1,
        memory=GIB,
    )
