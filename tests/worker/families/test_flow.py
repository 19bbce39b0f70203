"""Flow matching: levels, noise, and the samplers against those of diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from worker.core.families.flow import Flow, FlowSampler, make_flow_sampler, shifted
from worker.core.families.network import FamilyError
from worker.core.words import LevelDensity, SamplerName


def test_noise_and_velocity_are_on_a_straight_line() -> None:
    x, noise, s = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([0.25, 1.0])
    flow = Flow()
    noised, velocity = flow.add_noise(x, noise, s), flow.target(x, noise, s)
    torch.testing.assert_close(noised[1], noise[1])
    torch.testing.assert_close(noised - s.view(-1, 1, 1, 1) * velocity, x)
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    t = theirs.timesteps[[600, 0]]
    torch.testing.assert_close(theirs.scale_noise(x, t, noise), flow.add_noise(x, noise, t / 1_000))
    assert flow.weights(s) is None


@pytest.mark.parametrize("density", LevelDensity)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_have_their_density(density: LevelDensity, shift: float) -> None:
    """Undone, the shift and the density leave even shares; the difference is Kolmogorov's."""
    generator, flow = torch.Generator().manual_seed(0), Flow(shift, density)
    drawn = [flow.draw_levels(3, generator) for _ in range(4_000)]
    assert all((batch[1:] >= batch[:-1]).all() for batch in drawn)
    levels = torch.cat(drawn)
    assert (levels.dtype, levels.min() > 0, levels.max() <= 1) == (torch.float32, True, True)
    even = shifted(levels.double(), 1 / shift).sort().values
    if density is LevelDensity.LOGIT_NORMAL:
        even = torch.special.ndtr(even.logit())
    counted = (torch.arange(len(even)) + 0.5) / len(even)
    assert (even - counted).abs().max() < 0.01


def test_levels_depend_on_the_seed_alone() -> None:
    drawn = [Flow().draw_levels(4, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*drawn)
    torch.testing.assert_close(
        drawn[0], torch.tensor([0.1839, 0.5836, 0.8830, 0.9697]), atol=1e-4, rtol=0
    )


def test_middle_levels_are_those_of_finer_parts_whatever_the_shift() -> None:
    finer = Flow(6.0).middle_levels(8).tolist()
    parts = [Flow().middle_levels(4, strata=2, place=place).tolist() for place in range(2)]
    assert sorted(parts[0] + parts[1]) == pytest.approx(finer)


@pytest.mark.parametrize("shift", [3.0, 6.0])
@pytest.mark.parametrize("steps", [1, 4, 61])
def test_the_steps_are_those_of_the_pipeline(shift: float, steps: int) -> None:
    sampler, theirs = FlowSampler(shift), FlowMatchEulerDiscreteScheduler(shift=shift)
    sampler.set_timesteps(steps)
    theirs.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    torch.testing.assert_close(sampler.timesteps, theirs.sigmas[:-1])


@pytest.mark.parametrize("begin", [0, 3])
@pytest.mark.parametrize("name", [SamplerName.EULER, SamplerName.DPMPP_2M])
def test_a_sampler_takes_the_steps_of_diffusers(name: SamplerName, begin: int) -> None:
    sampler = make_flow_sampler(name, {"shift": 3.0}, label="Z-Image")
    sampler.set_timesteps(9)
    levels = torch.cat([sampler.timesteps, torch.zeros(1)])
    theirs = _theirs(name, levels)
    sampler.set_begin_index(begin)
    theirs.set_begin_index(begin)
    mine = other = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    for level, timestep in zip(sampler.timesteps[begin:], theirs.timesteps[begin:], strict=True):
        mine, clean = sampler.step(_velocity(mine, level), level, mine, return_dict=False)
        (other,) = theirs.step(_velocity(other, level), timestep, other, return_dict=False)
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clean, mine, atol=1e-5, rtol=1e-5)


def test_what_cannot_draw_is_an_error() -> None:
    with pytest.raises(FamilyError, match=r"Euler a does not draw with Z-Image\. Choose Euler or"):
        make_flow_sampler(SamplerName.EULER_A, {"shift": 3.0}, label="Z-Image")
    for config in ({}, {"shift": None}, {"shift": 3.0, "use_dynamic_shifting": True}):
        with pytest.raises(FamilyError, match="no fixed shift"):
            make_flow_sampler(None, config, label="Z-Image")


def _velocity(latents: Tensor, level: Tensor) -> Tensor:
    """That of a flow whose clean latents bend with the level."""
    clean = torch.tanh(latents * (1 - level)) + 0.3 * level
    return (latents - clean) / level


def _theirs(
    name: SamplerName, levels: Tensor
) -> FlowMatchEulerDiscreteScheduler | DPMSolverMultistepScheduler:
    steps = len(levels) - 1
    if name is SamplerName.EULER:
        theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
        theirs.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
        return theirs
    theirs = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", euler_at_final=True
    )
    theirs.set_timesteps(steps)
    theirs.sigmas, theirs.timesteps = levels, levels[:-1] * 1_000
    return theirs
