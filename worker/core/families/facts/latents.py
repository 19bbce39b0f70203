"""The colors that the latents of an autoencoder stand for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearMap:
    """Red, green and blue for each latent channel, and what is added.

    Pixels are in -1 to 1; with `has_levels`, numbers are in 0 to 255.
    """

    factors: tuple[tuple[float, float, float], ...]
    offsets: tuple[float, float, float] = (0, 0, 0)
    has_levels: bool = False


NO_MAP = LinearMap(())
