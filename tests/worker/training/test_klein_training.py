"""The whole way of an adapter for FLUX.2 klein: trained, resumed, drawn, downloaded, imported."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worker.bases.tiny_klein import save_klein
from tests.worker.training.conftest import Recorder
from worker.core.families.family import BaseFamily
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files import canonical
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.reading import read_adapter
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import BaseFacts, CheckpointSaved, SampleSaved, ValidationDone
from worker.core.training.load import load_for_training
from worker.core.training.train import train
from worker.core.words import FileFormat, SamplerName, WeightDtype
from worker.runtime.messages import Export, ExportFile
from worker.runtime.write_downloads import write_downloads

CONFIG = TrainConfig.model_validate(
    {
        "steps": 4,
        "resolution": 32,
        "rank": 2,
        "targets": "attention",
        "loss_weighting": "none",
        "learning_rate": 1e-2,
        "checkpoint_every": 2,
        "sample_every": 0,
        "sample_prompts": ["a fox --s 2 --l 3"],
        "validation_share": 0.4,
        "gradient_checkpointing": True,
        "base_weights": "int8",
    }
)
FORMATS = (FileFormat.KOHYA, FileFormat.PEFT)


def _changes(path: Path) -> list[torch.Tensor]:
    modules = canonical.load_adapter(path).modules
    return [factor for module in modules for factor in (module.down, module.up)]


def test_the_whole_way_of_an_adapter(images: list[TrainingImage], tmp_path: Path) -> None:
    base = save_klein(tmp_path / "klein-base")

    def run(name: str, recorder: Recorder) -> Path:
        result = train(
            CONFIG,
            images,
            recorder,
            base=load_for_training(base, device="cpu", config=CONFIG),
            out=tmp_path / name,
            cache=tmp_path / "cache",
        )
        assert result.path is not None
        return result.path

    recorder = Recorder()
    trained = run("whole", recorder)
    (facts,) = recorder.of(BaseFacts)
    assert (facts.layers, facts.all_layers) == (13, 16)
    assert [saved.step for saved in recorder.of(CheckpointSaved)] == [2, 4]
    assert [saved.step for saved in recorder.of(SampleSaved)] == [0, 2, 4]
    losses = recorder.of(ValidationDone)
    assert losses[-1].loss < losses[0].loss
    with pytest.raises(ConnectionResetError):
        run("parted", Recorder(fails_after=3))
    pairs = zip(_changes(run("parted", Recorder())), _changes(trained), strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)

    about = AdapterMetadata(
        title="Fox",
        slug="fox",
        family=BaseFamily.KLEIN,
        base_name="klein",
        resolution=32,
        created=datetime(2026, 3, 4, tzinfo=UTC),
        prediction_type="flow",
    )
    files = [ExportFile(one, WeightDtype.FP32, tmp_path / f"{one}.safetensors") for one in FORMATS]
    pipeline = ResidentPipeline.load(base)
    own = _drawn(pipeline, trained)
    assert (own != _drawn(pipeline, None)).any()
    for file in write_downloads(trained, Export(files, about, base)):
        assert file.problem == ""
        assert file.proof["loaded"]["weights"]
        assert file.proof["drawn"]["difference"] <= 1
        assert np.abs(_drawn(pipeline, file.path) - own).max() <= 1


def _drawn(pipeline: ResidentPipeline, path: Path | None) -> NDArray[np.int16]:
    """An image with an adapter at a weight at which it shows."""
    stack = [] if path is None else [LoadedAdapter("fox", read_adapter(path), 3.0, 3.0)]
    pipeline.set_adapters(stack)
    config = RenderConfig(
        prompt="a fox", seed=5, steps=3, sampler=SamplerName.EULER, width=48, height=32
    )
    return np.asarray(pipeline.render(config)[0].image).astype(np.int16)
