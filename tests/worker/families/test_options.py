"""The settings that a family has."""

from __future__ import annotations

import re

import pytest

from worker.core.families.facts.family_facts import reasons_against
from worker.core.families.family import BaseFamily
from worker.core.inference.config import RenderConfig
from worker.core.training.config import Targets, TrainConfig


@pytest.mark.parametrize("family", BaseFamily)
def test_limits_and_targets_are_named_like_settings(family: BaseFamily) -> None:
    options = family.facts.options
    assert set(options.training) <= set(TrainConfig.model_fields)
    assert set(options.drawing) <= set(RenderConfig.model_fields)
    assert set(options.targets) <= set(Targets)
    assert reasons_against(options.training, TrainConfig()) == {}
    assert reasons_against(options.drawing, RenderConfig(prompt="a kite")) == {}


def test_a_setting_that_a_family_does_not_have_is_refused_with_its_sentence() -> None:
    config = TrainConfig(clip_skip=2, noise_offset=0.1)
    assert reasons_against(BaseFamily.SD1.facts.options.training, config) == {}
    assert list(reasons_against(BaseFamily.SDXL.facts.options.training, config)) == ["clip_skip"]
    reasons = reasons_against(BaseFamily.ZIMAGE.facts.options.training, config)
    assert set(reasons) == {"clip_skip", "noise_offset"}
    assert reasons["clip_skip"] == "Z-Image has no CLIP text encoder: leave CLIP skip at 1."


def test_of_some_settings_a_family_has_fewer_values() -> None:
    limits = BaseFamily.ZIMAGE.facts.options.training
    assert reasons_against(limits, TrainConfig(targets=Targets.LINEAR)) == {}
    assert list(reasons_against(limits, TrainConfig(targets=Targets.ALL))) == ["targets"]


@pytest.mark.parametrize(
    ("targets", "path", "is_target"),
    [
        ("attention", "layers.29.attention.to_out.0", True),
        ("attention", "layers.0.feed_forward.w1", False),
        ("linear", "layers.0.feed_forward.w1", True),
        ("linear", "layers.0.adaLN_modulation.0", False),
        ("linear", "context_refiner.0.attention.to_q", False),
        ("linear", "noise_refiner.0.feed_forward.w2", False),
    ],
)
def test_zimage_trains_its_main_layers(targets: str, path: str, is_target: bool) -> None:
    pattern = BaseFamily.ZIMAGE.facts.options.targets[targets]
    assert bool(re.fullmatch(pattern, path)) is is_target


def test_a_side_that_images_cannot_have_is_named_with_those_next_to_it() -> None:
    assert BaseFamily.SDXL.facts.side_problem([64, 72]) == ""
    problem = BaseFamily.ZIMAGE.facts.side_problem
    assert problem([64, 1_024]) == ""
    assert problem([64, 72]) == (
        "Sides of Z-Image images are multiples of 16 pixels: use 64 or 80 instead of 72."
    )
    assert "use 16 or 32 instead of 8." in problem([8])
