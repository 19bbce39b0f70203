import pytest

from tools.starter.pace import Journal, Pace, Progress, rate_factor


def test_a_pace_in_steps_takes_exactly_that_many() -> None:
    assert list(Progress(Pace(steps=4))) == [0, 0.25, 0.5, 0.75]


def test_a_pace_in_minutes_ends_and_only_moves_forward() -> None:
    shares = list(Progress(Pace(minutes=0.0005)))
    assert shares == sorted(shares)
    assert all(0 <= share < 1 for share in shares)


def test_a_pace_goes_on_where_it_was_interrupted() -> None:
    assert list(Progress(Pace(steps=4), step=2)) == [0.5, 0.75]
    assert list(Progress(Pace(minutes=1), seconds=60)) == []
    assert next(iter(Progress(Pace(minutes=1), seconds=30))) == pytest.approx(0.5)


@pytest.mark.parametrize("pace", [Pace(), Pace(steps=1, minutes=1)])
def test_a_pace_is_one_or_the_other(pace: Pace) -> None:
    with pytest.raises(ValueError, match="either steps or minutes"):
        Progress(pace)


def test_the_rate_rises_shortly_and_falls_to_almost_nothing() -> None:
    assert rate_factor(0) < 0.1
    assert rate_factor(0.05) > 0.95
    assert rate_factor(0.999) < 0.02


def test_a_diverged_stage_is_named() -> None:
    with pytest.raises(FloatingPointError, match="The unet diverged"):
        Journal("unet").note(float("nan"), 0.5)
