import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from worker.core.training.config import Loss, LossWeighting, PredictionType, TrainConfig
from worker.core.training.loss import (
    NoiseSchedule,
    debiased_weights,
    elementwise_error,
    level_weights,
    mean_loss,
    min_snr_weights,
    pseudo_huber,
    sample_noise,
    stratified_timesteps,
)

LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = LINEAR | {"rescale_betas_zero_snr": True}


@pytest.fixture
def schedule() -> NoiseSchedule:
    return NoiseSchedule.of(LINEAR, device="cpu")


def test_noising_and_velocity_are_those_of_the_papers(schedule: NoiseSchedule) -> None:
    x, noise, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 400, 999])
    theirs = DDPMScheduler.from_config(LINEAR)
    torch.testing.assert_close(schedule.add_noise(x, noise, t), theirs.add_noise(x, noise, t))
    torch.testing.assert_close(schedule.velocity(x, noise, t), theirs.get_velocity(x, noise, t))


def test_velocity_and_noised_give_the_picture_back(schedule: NoiseSchedule) -> None:
    x, noise, t = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.tensor([10, 700])
    alpha = schedule.alpha(t)
    x_t, v = schedule.add_noise(x, noise, t), schedule.velocity(x, noise, t)
    torch.testing.assert_close(alpha.sqrt() * x_t - (1 - alpha).sqrt() * v, x)


def test_a_zero_snr_schedule_ends_in_pure_noise() -> None:
    schedule = NoiseSchedule.of(ZERO_SNR, device="cpu")
    last = torch.tensor([len(schedule) - 1])
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


def test_the_noise_offset_shifts_whole_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = torch.Size([64, 4, 16, 16])
    plain = sample_noise(shape, generator, TrainConfig()).mean(dim=(2, 3)).std().item()
    offset = TrainConfig(noise_offset=0.5)
    shifted = sample_noise(shape, generator, offset).mean(dim=(2, 3)).std().item()
    assert plain == pytest.approx(1 / 16, rel=0.2)
    assert shifted == pytest.approx(math.hypot(0.5, 1 / 16), rel=0.2)


def test_multi_resolution_noise_is_coarser_at_the_same_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = torch.Size([32, 4, 32, 32])
    plain = sample_noise(shape, generator, TrainConfig())
    coarse = sample_noise(shape, generator, TrainConfig(multires_noise_discount=0.5))
    assert coarse.std().item() == pytest.approx(1, rel=1e-3)
    blocks = [F.avg_pool2d(noise, 8).std().item() for noise in (plain, coarse)]
    assert blocks[1] > 2 * blocks[0]
    assert (plain[..., 1:] * plain[..., :-1]).mean().abs() < 0.02
    assert (coarse[..., 1:] * coarse[..., :-1]).mean() > 0.1


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


@pytest.mark.parametrize("delta", [0.1, 1.0])
def test_pseudo_huber_is_square_near_nothing_and_linear_far_away(delta: float) -> None:
    near, far = torch.tensor([1e-3 * delta]), torch.tensor([1e3 * delta])
    assert pseudo_huber(near, delta).item() == pytest.approx(near.item() ** 2, rel=2e-2)
    expected = 2 * delta * (far.item() - delta)
    assert pseudo_huber(far, delta).item() == pytest.approx(expected, rel=1e-3)


def test_weights_count_pictures_not_pixels() -> None:
    predicted = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    errors = elementwise_error(predicted, torch.ones(2, 1, 2, 2), TrainConfig())
    assert mean_loss(errors, torch.tensor([0.5, 1.0]), None).item() == pytest.approx(0.25)
    assert mean_loss(errors, None, None).item() == pytest.approx(0.5)


def test_a_mask_counts_places() -> None:
    errors = torch.ones(1, 3, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]]])
    assert mean_loss(errors, None, mask).item() == pytest.approx(0.375)


def test_the_config_chooses_loss_and_weighting() -> None:
    zero, two, snr = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0), torch.tensor([4.0])
    huber = TrainConfig(loss=Loss.HUBER, huber_delta=0.5)
    assert elementwise_error(two, zero, TrainConfig()).item() == 4
    assert elementwise_error(two, zero, huber).item() == pytest.approx(
        pseudo_huber(two, 0.5).item()
    )
    weights = {
        weighting: level_weights(
            snr, TrainConfig(loss_weighting=weighting, snr_gamma=1.0), PredictionType.EPSILON
        )
        for weighting in LossWeighting
    }
    assert weights[LossWeighting.NONE] is None
    assert weights[LossWeighting.MIN_SNR] == pytest.approx(0.25)
    assert weights[LossWeighting.DEBIASED] == pytest.approx(0.5)
