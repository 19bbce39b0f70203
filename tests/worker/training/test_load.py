"""A large base is loaded in the precision that the training will use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.worker.training.conftest import Recorder
from worker.core.bases import threads
from worker.core.bases.load import load_base
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import StepDone
from worker.core.training.load import load_for_training
from worker.core.training.train import train


@pytest.fixture
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL_PARAMETERS", 0)


def test_a_small_base_is_fp32_and_a_gpu_gets_the_stored_type(smallest_sd15_folder: Path) -> None:
    short = TrainConfig(precision=Precision.BF16)
    assert (
        load_for_training(smallest_sd15_folder, device="cpu", config=short).denoiser.dtype
        is torch.float32
    )
    assert load_for_training(smallest_sd15_folder, device="cuda").denoiser.dtype is torch.float32


@pytest.mark.usefixtures("_all_are_large")
def test_a_large_base_has_the_precision_of_the_config_or_of_an_earlier_attempt(
    smallest_sd15_folder: Path,
) -> None:
    def dtype(config: str, earlier: str = "auto") -> torch.dtype:
        base = load_for_training(
            smallest_sd15_folder,
            device="cpu",
            config=TrainConfig(precision=Precision(config)),
            precision=Precision(earlier),
        )
        assert base.text_encoders[0].dtype is torch.float32
        return base.denoiser.dtype  # type: ignore[no-any-return]

    assert [dtype("fp32"), dtype("bf16")] == [torch.float32, torch.bfloat16]
    assert [dtype("auto", "fp32"), dtype("auto", "bf16")] == [torch.float32, torch.bfloat16]
    assert dtype("auto") in (torch.float32, torch.bfloat16)


def test_a_training_is_the_same_whatever_its_base_was_loaded_as(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    for precision in (Precision.FP32, Precision.BF16):
        config = short.model_copy(update={"precision": precision, "steps": 2})
        losses = []
        for dtype in (torch.float32, torch.bfloat16):
            base, recorder = load_base(smallest_sd15_folder, denoiser_dtype=dtype), Recorder()
            out = tmp_path / f"{precision}-{dtype}"
            train(config, images, recorder, base=base, out=out, cache=tmp_path / "cache")
            losses.append([event.loss for event in recorder.events if isinstance(event, StepDone)])
        assert losses[0] == losses[1] != []
