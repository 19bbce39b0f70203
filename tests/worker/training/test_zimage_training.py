"""A whole training of an adapter for Z-Image, from its folder to the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worker.bases.tiny_zimage import save_zimage
from tests.worker.training.conftest import Recorder
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.int8_linear import Int8Linear
from worker.core.lora_files import canonical
from worker.core.training.calibrate import calibrate
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Notice,
    SampleSaved,
    ValidationDone,
)
from worker.core.training.load import int8_rows, is_loaded_for, load_for_training
from worker.core.training.train import train

Run = Callable[..., Path]
SETTINGS = {
    "steps": 4,
    "resolution": 64,
    "rank": 2,
    "targets": "linear",
    "loss_weighting": "none",
    "learning_rate": 1e-2,
    "checkpoint_every": 2,
    "sample_every": 0,
    "sample_prompts": ["a fox --s 2 --l 3"],
    "validation_share": 0.4,
    "ema_decay": 0.5,
    "gradient_checkpointing": True,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_zimage(tmp_path_factory.mktemp("base") / "z")


@pytest.fixture
def run(base: Path, images: list[TrainingImage], tmp_path: Path) -> Run:
    def train_in(
        name: str,
        recorder: Recorder,
        pictures: list[TrainingImage] = images,
        **changes: object,
    ) -> Path:
        config = TrainConfig.model_validate(SETTINGS | changes)
        result = train(
            config,
            pictures,
            recorder,
            base=load_for_training(base, device="cpu", config=config),
            out=tmp_path / name,
            cache=tmp_path / "cache",
        )
        assert result.path is not None
        return result.path

    return train_in


def _changes(path: Path) -> list[torch.Tensor]:
    modules = canonical.load_adapter(path).modules
    return [factor for module in modules for factor in (module.down, module.up)]


def test_an_interrupted_training_ends_with_the_same_adapter(run: Run) -> None:
    recorder = Recorder()
    expected = _changes(run("whole", recorder))
    (facts,) = recorder.of(BaseFacts)
    assert (facts.layers, facts.all_layers) == (14, 14)
    assert [saved.step for saved in recorder.of(CheckpointSaved)] == [2, 4]
    assert [saved.step for saved in recorder.of(SampleSaved)] == [0, 2, 4]
    losses = recorder.of(ValidationDone)
    assert losses[-1].loss < losses[0].loss
    with pytest.raises(ConnectionResetError):
        run("parted", Recorder(fails_after=3))
    found = _changes(run("parted", Recorder()))
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))
    assert any(factor.any() for factor in expected[1::2])


def test_the_end_of_a_long_caption_is_cut_and_that_is_said_once(
    run: Run, images: list[TrainingImage]
) -> None:
    captions = ["", "fox " * 5_000, "a fox"]
    pictures = [replace(one, caption=said) for one, said in zip(images, captions, strict=True)]
    said = []
    with pytest.raises(ConnectionResetError):
        run("long", first := Recorder(fails_after=3), pictures)
    run("long", second := Recorder(), pictures)
    for recorder in (first, second):
        said += [notice.text for notice in recorder.of(Notice) if notice.is_warning]
    (text,) = said
    assert text.startswith("1 caption is too long for this base model, which does not read its end")


def test_bf16_learns_as_fp32_does(run: Run) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        recorder = Recorder()
        run(precision, recorder, precision=precision)
        assert [used.precision for used in recorder.of(Arithmetic)] == [precision]
        losses.append(recorder.of(ValidationDone)[-1].loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_step_is_timed_and_the_base_stays_as_it_was(base: Path) -> None:
    loaded = load_for_training(base, device="cpu")
    before = {name: value.clone() for name, value in loaded.denoiser.state_dict().items()}
    config = TrainConfig.model_validate(SETTINGS | {"precision": "bf16"})
    assert calibrate(loaded, config, device="cpu", timed_steps=1).seconds_per_step > 0
    after = loaded.denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_gpu_without_bf16_is_refused_before_loading(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(BaseModelError, match="This GPU has no bf16"):
        load_for_training(base, device="cuda")


def test_frozen_weights_can_be_int8_rows(
    base: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.model_validate(SETTINGS | {"base_weights": "int8"})
    loaded = load_for_training(base, device="cpu", config=config)
    layers = loaded.denoiser.named_modules()
    found = {path for path, layer in layers if isinstance(layer, Int8Linear)}
    assert is_loaded_for(loaded, config, "cpu")
    assert not is_loaded_for(loaded, TrainConfig(), "cpu")
    assert len(found) == 14
    assert all(path.startswith("layers.") for path in found)
    exact = _changes(run("bf16", Recorder()))
    rounded = _changes(run("int8", Recorder(), base_weights="int8"))
    likeness = torch.cosine_similarity(
        torch.cat([one.flatten() for one in exact]),
        torch.cat([one.flatten() for one in rounded]),
        dim=0,
    )
    assert 0.5 < likeness < 1

    info = inspect_base(base)
    automatic = TrainConfig.model_validate(SETTINGS)
    assert int8_rows(info, automatic, device="cpu") is None
    for total, is_int8 in ((2 * 2**30, True), (24 * 2**30, False)):
        # a base that is held takes free memory, and is not loaded anew for that
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, total=total: (2**30, total))
        assert (int8_rows(info, automatic, device="cuda") is not None) is is_int8
