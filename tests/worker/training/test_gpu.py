"""Faults that only occur where a GPU and the host have memory of their own."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.training.conftest import MakeBase, Recorder
from worker.core.training import prepare as prepare_module
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.text import PrecomputedCaptionEncoder
from worker.core.training.events import SampleSaved
from worker.core.training.prepare import encode_dataset
from worker.core.training.train import train

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")


def test_pictures_are_encoded_and_samples_decoded_on_the_device(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, moved = smallest_sd15(), list[str]()
    monkeypatch.setattr(base.vae, "to", moved.append)
    encode_dataset(base, images, short, cache=None, check_stop=lambda: None, device="cuda")
    assert moved == ["cuda"]


def test_captions_wait_in_host_memory_and_go_to_the_device_by_the_batch(
    smallest_sd15: MakeBase,
) -> None:
    text = PrecomputedCaptionEncoder(smallest_sd15(), ["a pear", "a castle", ""], device="cpu")
    assert text._known.hidden.device.type == "cpu"
    text._device = "meta"
    given = text(["a castle", "a castle"]).hidden
    assert given.device.type == "meta"
    assert len(given) == 2


def test_no_text_encoder_is_left_when_the_unet_comes_to_the_device(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sdxl: MakeBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, left = smallest_sdxl(), list[bool]()
    encoders = [weakref.ref(encoder) for encoder in base.text_encoders]
    settle = prepare_module.cast_and_move

    def watched(*parts: Any, **options: Any) -> None:
        left.extend(encoder() is not None for encoder in encoders)
        settle(*parts, **options)

    monkeypatch.setattr(prepare_module, "cast_and_move", watched)
    config = short.model_copy(update={"train_text_encoder": False, "steps": 1})
    train(config, images, Recorder(), base=base, out=tmp_path, cache=None)
    assert left == [False, False]


@needs_gpu
def test_a_run_on_a_gpu_uses_what_an_earlier_one_encoded(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    changes = {"train_text_encoder": False, "sample_prompts": ["castle"], "sample_steps": 2}
    config = short.model_copy(update=changes)
    another = [replace(images[0], caption="another caption"), *images[1:]]
    for out, pictures in (("first", images), ("second", another)):
        recorder = Recorder()
        trained = train(
            config,
            pictures,
            recorder,
            base=smallest_sd15(),
            out=tmp_path / out,
            cache=tmp_path / "cache",
            device="cuda",
        )
        assert trained.path is not None
        assert len(recorder.of(SampleSaved)) == 2
