"""Flow matching: x_s = (1 - s) x + s e, whose velocity e - x a transformer predicts.

x are clean latents (b, c, h, w), e is noise. A level is the share of noise s, from 0 to 1 (Liu et
al. 2022, arXiv 2209.03003; Lipman et al. 2022, arXiv 2210.02747). A shift moves levels toward noise
(Esser et al. 2024, arXiv 2403.03206, section 5.3.2). Weights and order of levels for training
follow diffusers' train_dreambooth_lora_z_image.py, whose loss has no weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.core.families.network import FamilyError, NoiseSettings
from worker.core.words import LevelDensity, SamplerName

USUAL_SHIFT = 3.0
LEAST_LEVEL = 1e-3  # the lowest level of a schedule of 1,000 steps
FLOW_SAMPLERS = (SamplerName.EULER, SamplerName.DPMPP_2M)


def shifted(share: Tensor, shift: float) -> Tensor:
    """Shares of noise moved toward noise by a shift above 1; 0 and 1 stay."""
    return shift * share / (1 + (shift - 1) * share)


@dataclass(frozen=True, slots=True)
class Flow:
    """The noise process of a training; a level is a share of noise, fp32."""

    shift: float = USUAL_SHIFT
    density: LevelDensity = LevelDensity.UNIFORM

    @classmethod
    def of(cls, settings: NoiseSettings) -> Flow:
        """The process of a training with these settings."""
        return cls(settings.flow_shift, settings.level_density)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) shares, one from each of equally likely parts of the density, then shifted."""
        chance = torch.rand(count, generator=generator, dtype=torch.float64)
        share = (torch.arange(count) + chance) / count
        if self.density is LevelDensity.LOGIT_NORMAL:
            share = torch.special.ndtri(share).sigmoid()
        return shifted(share, self.shift).clamp(LEAST_LEVEL, 1).float()

    def middle_levels(self, count: int, *, strata: int = 1, place: int = 0) -> Tensor:
        """(count,) shares: the middles of equal parts at the usual shift, whatever the training's
        own, so that losses of trainings can be compared."""
        middles = (torch.arange(count) * strata + place) * 2 + 1
        return shifted(middles / (2 * count * strata), USUAL_SHIFT)

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_s."""
        return _mix(latents, noise, levels)

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The velocity e - x."""
        return noise - latents

    def weights(self, levels: Tensor) -> Tensor | None:
        """None: all are 1."""
        return None


class FlowSampler:
    """Draws along the flow, with the interface of diffusers' schedulers.

    Euler, or with `second_order` DPM++ 2M (Lu et al. 2022, arXiv 2211.01095), whose first and last
    steps are Euler's. `timesteps` are levels: shifted(1 … 1 / steps), as ZImagePipeline sets them.
    """

    init_noise_sigma = 1.0

    def __init__(self, shift: float, *, second_order: bool = False) -> None:
        self.shift = shift
        self._second_order = second_order
        self.set_timesteps(1)

    def set_timesteps(self, steps: int) -> None:
        """Begin new images of so many steps."""
        self.timesteps = shifted(torch.linspace(1, 1 / steps, steps), self.shift)
        self._levels = [*self.timesteps.tolist(), 0.0]
        self.set_begin_index(0)

    def set_begin_index(self, index: int) -> None:
        """Begin at this step."""
        self._index = index
        self._before: Tensor | None = None

    def scale_model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The latents themselves."""
        return latents

    def add_noise(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The latents with noise at these levels (b,)."""
        return _mix(latents, noise, levels.to(latents))

    def step(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, **unused: Any
    ) -> tuple[Tensor, Tensor]:
        """The latents of the next level, and the clean latents that this step predicts."""
        level, following = self._levels[self._index : self._index + 2]
        clean = latents - level * predicted
        velocity = predicted
        if self._second_order and self._before is not None and following:
            before = self._levels[self._index - 1]
            # of DPM++'s three levels, in which pure noise is infinitely far away
            ratio = _distance(level, following) / _distance(before, level)
            velocity = (latents - (clean + ratio / 2 * (clean - self._before))) / level
        self._index += 1
        self._before = clean
        return latents + (following - level) * velocity, clean


def make_flow_sampler(
    name: SamplerName | None, scheduler_config: Mapping[str, Any], *, label: str
) -> FlowSampler:
    """The sampler of a base whose scheduler has one shift for all sizes; None: Euler.

    `label`: the family. Raises FamilyError for a sampler that is not for flows, and for a config
    without a shift.
    """
    second_order = is_second_order(name, label)
    shift = scheduler_config.get("shift")
    if not isinstance(shift, int | float) or scheduler_config.get("use_dynamic_shifting"):
        raise FamilyError(
            "The base model's scheduler_config.json has no fixed shift. Download the base model "
            "again."
        )
    return FlowSampler(float(shift), second_order=second_order)


def is_second_order(name: SamplerName | None, label: str) -> bool:
    """Whether a sampler is DPM++ 2M instead of Euler. Raises FamilyError for all others."""
    if name is not None and name not in FLOW_SAMPLERS:
        choice = " or ".join(each.label for each in FLOW_SAMPLERS)
        raise FamilyError(f"{name.label} does not draw with {label}. Choose {choice}.")
    return name is SamplerName.DPMPP_2M


def _mix(latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    share = levels.view(-1, 1, 1, 1)
    return (1 - share) * latents + share * noise


def _distance(level: float, following: float) -> float:
    """How much half the logarithm of the signal-to-noise ratio rises; infinite from pure noise."""
    if level >= 1:
        return math.inf
    return math.log(1 / following - 1) - math.log(1 / level - 1)
