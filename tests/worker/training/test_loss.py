import math

import pytest
import torch
import torch.nn.functional as F

from worker.core.training.config import Loss, TrainConfig
from worker.core.training.loss import (
    elementwise_error,
    mean_loss,
    pseudo_huber,
    sample_noise,
)

LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = LINEAR | {"rescale_betas_zero_snr": True}


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


def test_the_config_chooses_the_loss() -> None:
    zero, two = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    huber = TrainConfig(loss=Loss.HUBER, huber_delta=0.5)
    assert elementwise_error(two, zero, TrainConfig()).item() == 4
    assert elementwise_error(two, zero, huber).item() == pytest.approx(
        pseudo_huber(two, 0.5).item()
    )
