import pytest
import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree
from torch import nn

from worker.core.training.config import LrScheduler, TrainConfig
from worker.core.training.optim import (
    MovingAverage,
    lr_factor,
    schedule_free_averages,
    set_learning_rate,
    swap_weights,
)


def _factors(scheduler: LrScheduler, *, steps: int = 10, warmup: int = 0) -> list[float]:
    config = TrainConfig(steps=steps, warmup_steps=warmup, lr_scheduler=scheduler)
    return [lr_factor(step, config) for step in range(steps)]


def test_the_rate_rises_in_the_warm_up_and_reaches_its_full_height() -> None:
    assert _factors(LrScheduler.CONSTANT, warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_constant_rate_does_not_change() -> None:
    assert set(_factors(LrScheduler.CONSTANT)) == {1.0}


def test_a_cosine_falls_from_one_to_nearly_nothing() -> None:
    factors = _factors(LrScheduler.COSINE, steps=100)
    assert factors[0] == 1.0
    assert factors[50] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001
    assert factors == sorted(factors, reverse=True)


def test_a_line_falls_evenly() -> None:
    assert _factors(LrScheduler.LINEAR, steps=4) == [1.0, 0.75, 0.5, 0.25]


def test_a_warm_up_longer_than_the_run_is_a_rise_to_the_end() -> None:
    assert _factors(LrScheduler.COSINE, steps=2, warmup=50) == [0.5, 1.0]


def test_the_rate_of_prodigy_is_the_one_it_found() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = Prodigy([{"params": [parameter], "base_lr": 1.0}])
    rates = []
    for _ in range(20):
        rates.append(set_learning_rate(optimizer, 0.5))
        (parameter - 9).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert rates[0] == pytest.approx(0.5e-6)
    assert rates[-1] > 100 * rates[0]


def test_the_average_lags_behind_and_can_stand_in() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average = MovingAverage({"a": parameter}, decay=0.5)
    parameter.data = torch.ones(2)
    for step in range(1, 40):
        average.update(step)
    assert torch.allclose(average.weights["a"], torch.ones(2))
    parameter.data = torch.full((2,), 3.0)
    average.update(100)
    assert torch.allclose(average.weights["a"], torch.full((2,), 2.0))
    with swap_weights({"a": parameter}, average.weights):
        assert torch.allclose(parameter, torch.full((2,), 2.0))
    assert torch.equal(parameter.detach(), torch.full((2,), 3.0))


def test_restarts_fall_to_nothing_again_and_again() -> None:
    config = TrainConfig(
        steps=9, warmup_steps=0, lr_scheduler=LrScheduler.COSINE_RESTARTS, lr_cycles=3
    )
    factors = [lr_factor(step, config) for step in range(9)]
    assert factors == pytest.approx([1.0, 0.75, 0.25] * 3)


def test_schedule_free_averages_are_what_its_own_eval_makes() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamWScheduleFree([parameter], lr=0.1)
    optimizer.train()
    for _ in range(4):
        parameter.grad = parameter.detach() * 2
        optimizer.step()
    trained = parameter.detach().clone()
    aside = schedule_free_averages(optimizer, {"a": parameter})["a"]
    assert torch.equal(parameter.detach(), trained)
    optimizer.eval()
    torch.testing.assert_close(aside, parameter.detach())
    assert not torch.allclose(aside, trained)
