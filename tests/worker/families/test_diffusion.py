"""The diffusion process of UNets."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from worker.core.families.stable_diffusion.diffusion import (
    Diffusion,
    debiased_weights,
    min_snr_weights,
    stratified_timesteps,
)
from worker.core.training.config import TrainConfig
from worker.core.words import LossWeighting, PredictionType

LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = LINEAR | {"rescale_betas_zero_snr": True}


V = PredictionType.V_PREDICTION


def process(
    config: dict[str, object], prediction: PredictionType = V, **settings: object
) -> Diffusion:
    chosen = TrainConfig.model_validate(settings)
    return Diffusion.of(config, chosen, prediction=prediction, device="cpu")


def test_noising_and_velocity_are_those_of_the_papers() -> None:
    schedule = process(LINEAR)
    x, noise, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 400, 999])
    theirs = DDPMScheduler.from_config(LINEAR)
    torch.testing.assert_close(schedule.add_noise(x, noise, t), theirs.add_noise(x, noise, t))
    torch.testing.assert_close(schedule.target(x, noise, t), theirs.get_velocity(x, noise, t))


def test_velocity_and_noised_give_the_picture_back() -> None:
    schedule = process(LINEAR)
    x, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([10, 700])
    alpha = schedule.alpha(t)
    x_t, v = schedule.add_noise(x, noise, t), schedule.target(x, noise, t)
    torch.testing.assert_close(alpha.sqrt() * x_t - (1 - alpha).sqrt() * v, x)


def test_a_zero_snr_schedule_ends_in_pure_noise() -> None:
    schedule = process(ZERO_SNR)
    last = torch.tensor([len(schedule.alphas) - 1])
    noise = torch.randn(1, 4, 2, 2)
    assert schedule.snr(last).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(schedule.add_noise(torch.ones(1, 4, 2, 2), noise, last), noise)


@pytest.mark.parametrize("snr", [0.0, 0.01, 1.0, 5.0, 400.0])
def test_min_snr_weights_follow_the_formula(snr: float) -> None:
    gamma, value = 5.0, torch.tensor([snr])
    epsilon = min_snr_weights(value, gamma, PredictionType.EPSILON).item()
    velocity = min_snr_weights(value, gamma, PredictionType.V_PREDICTION).item()
    assert epsilon == pytest.approx(min(snr, gamma) / snr if snr else 1.0)
    assert velocity == pytest.approx(min(snr, gamma) / (snr + 1))


def test_both_predictions_weigh_the_error_of_the_picture_alike() -> None:
    """|x error|^2 = |eps error|^2 / SNR = |v error|^2 / (SNR + 1): the weights must undo that."""
    snr = torch.tensor([0.1, 2.0, 30.0])
    from_epsilon = min_snr_weights(snr, 5.0, PredictionType.EPSILON) * snr
    from_velocity = min_snr_weights(snr, 5.0, PredictionType.V_PREDICTION) * (snr + 1)
    torch.testing.assert_close(from_epsilon, from_velocity)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_timesteps_are_spread_over_the_whole_schedule(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        timesteps = stratified_timesteps(count, 1_000, generator)
        parts = (timesteps * count / 1_000).floor().tolist()
        assert all(abs(part - index) <= 1 for index, part in enumerate(parts))
        assert timesteps.min() >= 0
        assert timesteps.max() <= 999


def test_timesteps_are_uniform_in_the_long_run() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([stratified_timesteps(3, 10, generator) for _ in range(4_000)])
    shares = torch.bincount(drawn, minlength=10) / len(drawn)
    assert shares.sub(0.1).abs().max() < 0.01


@pytest.mark.parametrize("focus", [-1.0, -0.5, 0.3, 1.0])
def test_the_focus_shifts_timesteps_smoothly(focus: float) -> None:
    """Below 0 it mirrors what it does above; the largest difference of the shares is that of
    Kolmogorov and Smirnov."""
    generator = torch.Generator().manual_seed(0)
    drawn = [stratified_timesteps(3, 1_000, generator, focus=focus) for _ in range(4_000)]
    assert all((batch[1:] >= batch[:-1]).all() for batch in drawn)
    shares = (torch.cat(drawn).sort().values + 0.5) / 1_000
    counted = (torch.arange(len(shares)) + 0.5) / len(shares)
    nearest = shares if focus > 0 else 1 - shares
    expected = nearest ** (1 + 2 * abs(focus))
    expected = expected if focus > 0 else 1 - expected
    assert (counted - expected).abs().max() < 0.01


def test_without_a_focus_timesteps_are_those_of_earlier_releases() -> None:
    generator = torch.Generator().manual_seed(7)
    assert stratified_timesteps(4, 1_000, generator).tolist() == [69, 318, 715, 914]


@pytest.mark.parametrize("snr", [0.01, 1.0, 5.0, 400.0])
def test_debiased_weights_follow_the_formula(snr: float) -> None:
    value = torch.tensor([snr])
    epsilon = debiased_weights(value, PredictionType.EPSILON).item()
    velocity = debiased_weights(value, PredictionType.V_PREDICTION).item()
    assert epsilon == pytest.approx(1 / math.sqrt(snr))
    assert velocity * (snr + 1) == pytest.approx(epsilon * snr)  # the same error of the picture


def test_debiased_weights_stay_finite_in_pure_noise() -> None:
    for prediction in PredictionType:
        assert torch.isfinite(debiased_weights(torch.zeros(1), prediction)).all()


def test_the_settings_choose_the_weights() -> None:
    at = torch.tensor([300])
    weights = {
        weighting: process(
            LINEAR, PredictionType.EPSILON, loss_weighting=weighting, snr_gamma=1.0
        ).weights(at)
        for weighting in LossWeighting
    }
    snr = process(LINEAR).snr(at).item()
    assert snr > 1
    assert weights[LossWeighting.NONE] is None
    assert weights[LossWeighting.MIN_SNR] == pytest.approx(1 / snr)
    assert weights[LossWeighting.DEBIASED] == pytest.approx(snr**-0.5)


def test_the_middle_levels_of_strata_are_those_of_finer_parts() -> None:
    schedule = process(LINEAR)
    finer = schedule.middle_levels(8).tolist()
    parts = [schedule.middle_levels(4, strata=2, place=place).tolist() for place in range(2)]
    assert sorted(parts[0] + parts[1]) == finer
