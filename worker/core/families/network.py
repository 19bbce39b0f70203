"""How the networks of a family are called, for training and for drawing.

A level says how much noise is in latents. Only its family knows what the number means: a timestep
of a UNet, or the share of noise of a transformer. One object serves all bases of a family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker.core.families.text_states import TextStates
from worker.core.words import LevelDensity, LossWeighting, SamplerName


class FamilyError(Exception):
    """What the bases of a family cannot do; the message is a sentence for people."""


class NoiseSettings(Protocol):
    """The settings of a training that its noise process depends on; see `TrainConfig`."""

    @property
    def loss_weighting(self) -> LossWeighting:
        """The weight of each level."""

    @property
    def snr_gamma(self) -> float:
        """Where min-SNR caps the weight."""

    @property
    def noise_focus(self) -> float:
        """From low noise (-1) to high noise (1)."""

    @property
    def flow_shift(self) -> float:
        """How far levels of a flow are moved toward noise; 1: not at all."""

    @property
    def level_density(self) -> LevelDensity:
        """The density of levels of a flow, before they are shifted."""


class Process(Protocol):
    """Adds noise to latents (b, c, h, w) at levels (b,), and says what a denoiser is to predict."""

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) random levels of a batch, on the CPU."""

    def middle_levels(self, count: int, *, strata: int = 1, place: int = 0) -> Tensor:
        """(count,) levels in the middles of equal parts, each the one at `place` of its strata."""

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The latents with noise added."""

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What is to be predicted."""

    def weights(self, levels: Tensor) -> Tensor | None:
        """The weight of each sample in the loss (b,); None when all are 1."""


class Network(Protocol):
    """The networks of a family."""

    @property
    def stored_text(self) -> torch.dtype | None:
        """The type in which text states stay on disk and are read from there batch by batch, since
        those of a dataset are too many for memory; None: they stay in memory, unchanged."""

    def process(
        self,
        scheduler_config: Mapping[str, Any],
        settings: NoiseSettings,
        *,
        prediction: str,
        device: torch.device | str,
    ) -> Process:
        """The noise process of a training on a base with this scheduler config."""

    def sampler(
        self,
        name: SamplerName | None,
        scheduler_config: Mapping[str, Any],
        *,
        prediction: str,
    ) -> Any:
        """A sampler with the interface of diffusers' schedulers; None: the family's usual one.

        Raises FamilyError.
        """

    def middle_level(self, sampler: Any) -> Tensor:
        """The level in the middle of the noise that this sampler removes, without dimensions."""

    def encode(
        self,
        encoders: Sequence[Any],
        tokenizers: Sequence[Any],
        prompts: Sequence[str],
        *,
        device: torch.device | str,
        clip_skip: int = 1,
    ) -> TextStates:
        """The states of prompts, in the form that the family's denoiser was trained with."""

    def unread(self, tokenizers: Sequence[Any], prompt: str) -> str:
        """The end of a prompt for which `encode` has no tokens left; "" if there is none."""

    def predict(
        self, denoiser: Any, latents: Tensor, levels: Tensor, text: TextStates, sizes: Tensor
    ) -> Tensor:
        """The prediction for latents (b, c, h, w) in fp32; `sizes` (b, 6): see EncodedBucket."""


def number_type(network: nn.Module) -> torch.dtype:
    """The number type of a network's weights: that of the first.

    The property `dtype` of diffusers looks through all modules for a hook that no base here has:
    milliseconds, in every step and for every layer of an adapter.
    """
    return next(network.parameters()).dtype
