"""The samplers of the playground: diffusers' schedulers on the noise schedule of a base model.

Euler: algorithm 1 of Karras et al. 2022, arXiv 2206.00364, without churn; Euler a adds noise as
ancestral sampling does (Song et al. 2021, arXiv 2011.13456). DPM++ 2M and its SDE variant: Lu et
al. 2022, arXiv 2211.01095. LCM: Luo et al. 2023, arXiv 2310.04378. Zero terminal SNR: Lin et al.
2023, arXiv 2305.08891.

All take the timestep spacing of the base model, which is trailing with zero terminal SNR, but for
Karras spacing and LCM, which have their own. Noise that a sampler adds comes from the generator of
each image, so an image does not depend on the others in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from numpy.typing import NDArray

from worker.core.families.network import FamilyError
from worker.core.words import MAX_LCM_STEPS, SamplerName

SCHEDULE_SETTINGS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "set_alpha_to_one",
    "steps_offset",
    "timestep_spacing",
    "rescale_betas_zero_snr",
)
SPACINGS = ("leading", "trailing", "linspace")
SHARED = {*SCHEDULE_SETTINGS, "prediction_type"} - {"set_alpha_to_one"}
"""The settings of a noise schedule that every scheduler takes."""


class DPMSolver(DPMSolverMultistepScheduler):  # type: ignore[misc] # of Any: not typed
    """DPM++ whose Karras spacing works with zero terminal SNR.

    Spaced from pure noise, most noise levels would be so high that nothing can be seen. So one step
    leads from pure noise to where the schedule would begin without zero terminal SNR, and the
    others are spaced from there.
    """

    def _convert_to_karras(self, in_sigmas: NDArray[Any], num_inference_steps: int) -> NDArray[Any]:
        """The noise levels of the steps, out of those of all timesteps, both falling."""
        first, steps = in_sigmas[:0], num_inference_steps
        if self.config.rescale_betas_zero_snr and steps > 1:
            first, steps = in_sigmas[:1], steps - 1
            in_sigmas = in_sigmas[in_sigmas <= _usual_noise(self.config)]
        spaced = super()._convert_to_karras(in_sigmas=in_sigmas, num_inference_steps=steps)
        return np.concatenate([first, spaced])


def make_scheduler(config: Mapping[str, Any], *, prediction_type: str) -> DDIMScheduler:
    """DDIM with the noise schedule of a base's scheduler config, whichever sampler the config
    names.

    Missing settings take DDIM's defaults. Latents are never clipped. A schedule with zero terminal
    SNR must start at its last timestep, hence trailing spacing (Lin et al. 2023, arXiv 2305.08891).
    """
    settings = {name: config[name] for name in SCHEDULE_SETTINGS if config.get(name) is not None}
    if settings.get("timestep_spacing") not in SPACINGS:
        settings["timestep_spacing"] = "leading"
    if settings.get("rescale_betas_zero_snr"):
        settings["timestep_spacing"] = "trailing"
    return DDIMScheduler(**settings, clip_sample=False, prediction_type=prediction_type)


def make_sampler(name: SamplerName, config: Mapping[str, Any], *, prediction_type: str) -> Any:
    """The scheduler of a sampler, with the noise schedule of a base's scheduler config.

    Raises FamilyError for epsilon prediction with zero terminal SNR: the first step has to find an
    image in pure noise, and such a model predicts nothing but the noise.
    """
    ddim = make_scheduler(config, prediction_type=prediction_type)
    if ddim.config.rescale_betas_zero_snr and prediction_type == "epsilon":
        raise FamilyError(
            "The base model has zero terminal SNR, which needs v-prediction, but its prediction "
            "type is epsilon. Correct its scheduler config and add it again."
        )
    shared = {setting: ddim.config[setting] for setting in SHARED}
    match name:
        case SamplerName.DDIM:
            return ddim
        case SamplerName.EULER:
            return EulerDiscreteScheduler(**shared)
        case SamplerName.EULER_A:
            return EulerAncestralDiscreteScheduler(**shared)
        case SamplerName.LCM:
            return LCMScheduler(
                **shared,
                set_alpha_to_one=ddim.config.set_alpha_to_one,
                original_inference_steps=min(MAX_LCM_STEPS, ddim.config.num_train_timesteps),
            )
    return DPMSolver(
        **shared,
        algorithm_type="sde-dpmsolver++" if name.is_sde else "dpmsolver++",
        use_karras_sigmas=name.is_karras,
    )


def _usual_noise(config: Mapping[str, Any]) -> float:
    """The highest noise level (sigma) of a schedule without zero terminal SNR."""
    usual = dict(config) | {"rescale_betas_zero_snr": False}
    kept = make_scheduler(usual, prediction_type="v_prediction").alphas_cumprod[-1]
    return float(((1 - kept) / kept) ** 0.5)
