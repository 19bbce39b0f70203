"""Everything a GPU is used for, on a fake one: no tensor is left behind on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.fake_gpu import WrongDeviceError, fake_gpu
from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.training.conftest import (  # noqa: F401  (fixtures)
    Recorder,
    folder,
    images,
    short,
)
from worker.core.bases.load import load_base
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.compatible import adaptable_layers
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.training.calibrate import calibrate
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import SampleSaved, ValidationDone
from worker.core.training.load import load_for_training
from worker.core.training.train import train
from worker.core.words import SamplerName

ONCE = {"sample_prompts": ["castle"], "sample_steps": 1, "steps": 1, "validation_share": 0.34}


def test_what_was_moved_does_not_meet_what_was_not() -> None:
    with fake_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert [(there + 1).device.type, there.cpu().device.type] == ["cuda", "cpu"]
        assert here.to(there).device.type == there.half().device.type == "cuda"
        layer = torch.nn.Linear(3, 2).to("cuda")
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device.type == "cuda"
        for wrong in (lambda: there + here, lambda: layer(here), there.numpy):
            with pytest.raises(WrongDeviceError):
                wrong()


FLOW = {
    "train_text_encoder": False,
    "noise_offset": 0,
    "noise_focus": 0,
    "loss_weighting": "none",
    "targets": "linear",
}
"""Settings that Z-Image has."""


@pytest.mark.parametrize(
    ("base", "options", "lengths"),
    [
        ("smallest_sd15_folder", {"precision": "bf16", "gradient_checkpointing": True}, (1, 2)),
        ("smallest_sdxl_folder", {"train_text_encoder": False}, (1,)),
        (
            "zimage_folder",
            FLOW | {"gradient_checkpointing": True, "precision": "bf16", "base_weights": "bf16"},
            (1, 2),
        ),
        ("klein_folder", FLOW | {"precision": "bf16", "base_weights": "bf16"}, (1,)),
        ("zimage_folder", FLOW | {"precision": "fp32", "base_weights": "int8"}, (1,)),
    ],
)
def test_a_training_and_one_that_goes_on_from_it(
    base: str,
    options: dict[str, Any],
    lengths: tuple[int, ...],
    short: TrainConfig,  # noqa: F811
    images: list[TrainingImage],  # noqa: F811
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path = request.getfixturevalue(base)
    config = TrainConfig.model_validate(short.model_dump() | ONCE | options)
    for steps in lengths:
        heard = Recorder()
        with fake_gpu():
            trained = train(
                config.model_copy(update={"steps": steps}),
                images,
                heard,
                base=load_for_training(path, device="cuda", config=config),
                out=tmp_path / "out",
                cache=tmp_path / "cache",
                device="cuda",
                continues=True,
            )
        assert trained.path is not None
        assert (heard.steps, trained.steps) == (1, steps)
        assert heard.of(SampleSaved)
        assert heard.of(ValidationDone)


def test_a_training_after_a_few_steps_to_find_how_long_one_takes(
    short: TrainConfig,  # noqa: F811
    images: list[TrainingImage],  # noqa: F811
    smallest_sd15_folder: Path,
    tmp_path: Path,
) -> None:
    base, config = load_base(smallest_sd15_folder), short.model_copy(update={"steps": 1})
    with fake_gpu():  # as the warm spare does
        found = calibrate(base, config, device="cuda", timed_steps=1)
        trained = train(
            config, images, Recorder(), base=base, out=tmp_path, cache=None, device="cuda"
        )
    assert found.seconds_per_step > 0
    assert trained.steps == 1


@pytest.mark.parametrize(
    ("base", "dtype", "sampler"),
    [
        ("smallest_sd15_folder", torch.float16, SamplerName.DDIM),
        ("zimage_folder", torch.bfloat16, SamplerName.DPMPP_2M),
        ("klein_folder", torch.bfloat16, SamplerName.EULER),
    ],
)
def test_a_picture_with_an_adapter_and_one_without(
    base: str, dtype: torch.dtype, sampler: SamplerName, request: pytest.FixtureRequest
) -> None:
    config = RenderConfig(
        prompt="a castle", negative_prompt="blue", sampler=sampler, steps=2, width=64, height=64
    )
    with fake_gpu():
        pipeline = ResidentPipeline.load(request.getfixturevalue(base), "cuda")
        assert pipeline.base.denoiser.dtype is dtype
        shapes = {
            f"{component}.{path}": tuple(layer.weight.shape)  # type: ignore[arg-type]
            for component, part in pipeline.base.adaptable().items()
            for path, layer in adaptable_layers(component, part).items()
        }
        (plain,) = pipeline.render(config)
        pipeline.set_adapters([LoadedAdapter("ink", random_adapter(shapes, rank=1, strength=0.05))])
        (styled,) = pipeline.render(config)
        pipeline.set_adapters([])
        (again,) = pipeline.render(config)
    assert plain.image.tobytes() == again.image.tobytes() != styled.image.tobytes()
