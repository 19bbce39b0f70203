"""A whole training of an adapter for Z-Image, from its folder to the file."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.worker.training.conftest import Recorder
from worker.core.atomic_write import write_atomically
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.families.family import BaseFamily
from worker.core.int8_linear import Int8Linear
from worker.core.lora_files import canonical
from worker.core.training import load as load_module
from worker.core.training.config import TrainConfig
from worker.core.training.data import tensor_cache
from worker.core.training.data.images import TrainingImage
from worker.core.training.errors import LostCacheError, StorageError
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Event,
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


@pytest.fixture
def run(zimage_folder: Path, images: list[TrainingImage], tmp_path: Path) -> Run:
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
            base=load_for_training(zimage_folder, device="cpu", config=config),
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


def test_a_training_whose_captions_are_lost_goes_on_from_its_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _changes(run("whole", Recorder()))
    shutil.rmtree(tmp_path / "cache")

    def disk_is_full(path: Path, content: bytes, **options: Any) -> None:
        if "text-" in str(path) and list(path.parents[1].rglob("*.safetensors")):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_cache, "write_atomically", disk_is_full)
        with pytest.raises(StorageError, match=r"The disk is full\. Free some space and start"):
            run("lost", Recorder())

    class Emptying(Recorder):
        """Deletes the cache after a step that has a checkpoint."""

        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if isinstance(event, CheckpointSaved):
                shutil.rmtree(tmp_path / "cache")

    with pytest.raises(LostCacheError, match=r"disappeared from the cache\. Start it again"):
        run("lost", stopped := Emptying())
    assert [saved.step for saved in stopped.of(CheckpointSaved)] == [2]
    run_again = Recorder()
    found = _changes(run("lost", run_again))
    assert [saved.step for saved in run_again.of(CheckpointSaved)] == [4]
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))


def test_bf16_learns_as_fp32_does(run: Run) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        recorder = Recorder()
        run(precision, recorder, precision=precision)
        assert [used.precision for used in recorder.of(Arithmetic)] == [precision]
        losses.append(recorder.of(ValidationDone)[-1].loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_gpu_without_bf16_trains_in_fp32_on_int8_rows_or_is_refused_before_loading(
    zimage_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    loaded: list[dict[str, Any]] = []
    monkeypatch.setattr(load_module, "load_base", lambda _, **how: loaded.append(how))
    # as much memory as bf16 weights would need
    info = inspect_base(zimage_folder)
    need = info.family.facts.memory.training_bytes(info.parameters, info.resolution)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (need, need))
    for config in (None, TrainConfig(), TrainConfig(base_weights="int8")):
        with pytest.raises(BaseModelError, match=r"no bf16\. Set “Precision” to fp32, and “Frozen"):
            load_for_training(zimage_folder, device="cuda", config=config)
    assert not loaded
    load_for_training(zimage_folder, device="cuda", config=TrainConfig(precision="fp32"))
    (how,) = loaded
    assert how["int8"]("layers.0.attention.to_q")


def test_frozen_weights_can_be_int8_rows(
    zimage_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig.model_validate(SETTINGS | {"base_weights": "int8"})
    loaded = load_for_training(zimage_folder, device="cpu", config=config)
    layers = loaded.denoiser.named_modules()
    found = {path for path, layer in layers if isinstance(layer, Int8Linear)}
    assert is_loaded_for(loaded, config, "cpu")
    loaded_unet: Any = SimpleNamespace(info=SimpleNamespace(family=BaseFamily.SDXL))
    assert is_loaded_for(loaded_unet, config, "cpu")  # without a look at its layers
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

    info = inspect_base(zimage_folder)
    automatic = TrainConfig.model_validate(SETTINGS)
    assert int8_rows(info, automatic, device="cpu") is None
    for total, is_int8 in ((2 * 2**30, True), (24 * 2**30, False)):
        # a base that is held takes free memory, and is not loaded anew for that
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, total=total: (2**30, total))
        assert (int8_rows(info, automatic, device="cuda") is not None) is is_int8
