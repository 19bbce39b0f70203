"""Generation in bf16: chosen by timing, and only where small weight steps still show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.bases.load import load_base
from worker.core.inference import precision
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.inference.precision import PrecisionChoice, choose_precision, decide
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.words import RenderPrecision

CONFIG = RenderConfig(prompt="red apple", seed=5, steps=2)


@pytest.fixture
def short(small_starter: Path) -> ResidentPipeline:
    return ResidentPipeline.load(small_starter, precision=RenderPrecision.BF16)


def picture(pipeline: ResidentPipeline, *stack: LoadedAdapter) -> NDArray[np.int16]:
    pipeline.set_adapters(stack)
    return np.asarray(pipeline.render(CONFIG)[0].image).astype(np.int16)


@pytest.mark.parametrize(
    ("fp32", "bf16", "effect", "chosen"),
    [
        (3.74, 1.25, 0.99, "bf16"),
        (1.3, 1.0, 1.0, "bf16"),
        (1.29, 1.0, 1.0, "fp32"),  # not fast enough
        (3.74, 1.25, 0.3, "fp32"),  # a step is rounded away
        (3.74, 1.25, 4.2, "fp32"),  # a step is as large as the grid makes it
        (1.0, 9.0, 1.0, "fp32"),
    ],
)
def test_bf16_must_be_clearly_faster_and_show_small_steps(
    fp32: float, bf16: float, effect: float, chosen: str
) -> None:
    assert decide(fp32, bf16, effect) == PrecisionChoice(
        RenderPrecision(chosen), fp32, bf16, effect
    )


def test_in_bf16_only_the_unet_is_rounded(short: ResidentPipeline, small_starter: Path) -> None:
    assert short.precision is RenderPrecision.BF16
    assert short.base.text_encoders[0].dtype is torch.float32
    exact = picture(ResidentPipeline.load(small_starter))
    assert 0 < np.abs(picture(short) - exact).mean() < 4


def test_a_small_weight_step_changes_the_picture_in_bf16(short: ResidentPipeline) -> None:
    adapter = random_adapter(base_shapes(short.base), strength=0.05)
    at = [picture(short, LoadedAdapter("a", adapter, weight)) for weight in (0.0, 0.05, 0.1)]
    assert np.abs(at[1] - at[0]).max() > 0
    assert np.abs(at[2] - at[1]).max() > 0
    assert np.array_equal(picture(short, LoadedAdapter("a", adapter, 0.0)), at[0])


def test_a_weight_step_is_lost_if_the_original_weights_are_rounded(
    short: ResidentPipeline,
) -> None:
    from_files = precision._merge_probe(short)
    short.set_adapters([])
    short.base.stored_denoiser = {}
    rounded = precision._merge_probe(short)
    assert 0.9 < from_files < 1.1
    assert rounded < precision.MIN_EFFECT


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_the_pipeline_is_cast_to_what_was_chosen(
    chosen: str, small_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = PrecisionChoice(RenderPrecision(chosen), 1.0, 1.0, 1.0)
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: True)
    monkeypatch.setattr(precision, "decide", lambda *_: choice)
    pipeline, calls = ResidentPipeline.load(small_starter), []
    found = choose_precision(pipeline, CONFIG, on_call=lambda: calls.append(1) is None)
    assert found is choice
    assert len(calls) == 4
    assert pipeline.precision is choice.precision
    expected = load_base(
        small_starter, denoiser_dtype=pipeline.base.denoiser.dtype
    ).denoiser.state_dict()
    actual = pipeline.base.denoiser.state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_nothing_is_timed_where_bf16_is_emulated(
    small_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: False)
    pipeline = ResidentPipeline.load(small_starter)
    found = choose_precision(pipeline, CONFIG, on_call=lambda: pytest.fail("a call"))
    assert found == PrecisionChoice(RenderPrecision.FP32)
    assert pipeline.precision is RenderPrecision.FP32


def test_a_canceled_choice_ends_before_the_next_call(
    small_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: True)
    pipeline, answers = ResidentPipeline.load(small_starter), iter([True, False])
    with pytest.raises(RenderCanceled):
        choose_precision(pipeline, CONFIG, on_call=lambda: next(answers))
