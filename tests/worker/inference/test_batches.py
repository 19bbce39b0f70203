"""Images of one request are generated together, and each is the one that it is alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.costs import wide_but
from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core import starter
from worker.core.inference import batches
from worker.core.inference.batches import images_at_once
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderError
from worker.core.inference.pipeline import RenderedImage, ResidentPipeline
from worker.core.lora_files.loaded import LoadedAdapter

STEPS = 2


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


def config(**changes: Any) -> RenderConfig:
    return RenderConfig(**({"prompt": "red apple", "seed": 6, "steps": STEPS} | changes))


def pixels(rendered: RenderedImage) -> NDArray[np.int16]:
    return np.asarray(rendered.image).astype(np.int16)


@contextmanager
def unet_calls(
    pipeline: ResidentPipeline, *, fits: int = 1_000, error: RuntimeError = OUT_OF_MEMORY
) -> Iterator[list[int]]:
    """The rows of each call of the UNet, which raises `error` above `fits` rows."""
    rows: list[int] = []

    def note(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        rows.append(len(inputs[0]))
        if len(inputs[0]) > fits:
            raise error

    hook = pipeline.base.denoiser.register_forward_pre_hook(note)
    yield rows
    hook.remove()


@pytest.mark.parametrize("base", wide_but(["starter", "sd15", "sdxl"], "sd15", "sdxl"))
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_an_image_is_the_same_alone_and_in_a_batch(
    base: str, guidance: float, smallest_sdxl_folder: Path, request: pytest.FixtureRequest
) -> None:
    pipeline: ResidentPipeline
    if base == "sdxl":
        pipeline = ResidentPipeline.load(smallest_sdxl_folder)
    else:
        pipeline = request.getfixturevalue({"starter": "embedded", "sd15": "pipeline"}[base])
    adapter = random_adapter(base_shapes(pipeline.base), strength=0.05)
    pipeline.set_adapters([LoadedAdapter("a", adapter)])
    with unet_calls(pipeline) as rows:
        among = pipeline.render(config(count=3, guidance=guidance))
    assert rows == [3 if guidance == 1 else 6] * STEPS
    assert [rendered.seed for rendered in among] == [6, 7, 8]
    for rendered in reversed(among):
        (alone,) = pipeline.render(config(seed=rendered.seed, guidance=guidance))
        assert np.abs(pixels(rendered) - pixels(alone)).max() <= 1
    assert np.abs(pixels(among[0]) - pixels(among[1])).max() > 1


@pytest.mark.parametrize(
    "error", [OUT_OF_MEMORY, RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    pipeline: ResidentPipeline, error: RuntimeError
) -> None:
    usual = pipeline.render(config(count=5))
    progress: list[int] = []
    previews: list[tuple[int, int]] = []
    with unet_calls(pipeline, fits=4, error=error) as rows:
        halved = pipeline.render(
            config(count=5),
            on_step=lambda done, total: not progress.append(done) and total == 5 * STEPS,
            on_preview=lambda first, latents: previews.append((first, len(latents))),
        )
    assert rows == [10, 4, 4, 4, 4, 2, 2]  # guidance doubles the rows
    assert progress == [2, 4, 6, 8, 9, 10]
    assert previews == [(0, 2), (0, 2), (2, 2), (2, 2), (4, 1), (4, 1)]
    for one, other in zip(usual, halved, strict=True):
        assert one.seed == other.seed
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_an_image_that_does_not_fit_alone_says_so(pipeline: ResidentPipeline) -> None:
    with (
        unet_calls(pipeline, fits=0) as rows,
        pytest.raises(RenderError, match=r"64 × 64 does not fit .* Choose a smaller size"),
    ):
        pipeline.render(config(count=2))
    assert rows == [4, 2]


def test_a_device_that_a_training_fills_is_named(
    pipeline: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    adapter = LoadedAdapter("new", random_adapter(base_shapes(pipeline.base), strength=0.05))
    before = pipeline.render(config())
    with monkeypatch.context() as full:
        full.setattr(torch, "addmm", fill)
        with pytest.raises(RenderError, match="An adapter does not fit"):
            pipeline.set_adapters([adapter])
    assert pipeline.set_adapters([]) == 0
    assert np.array_equal(pixels(pipeline.render(config())[0]), pixels(before[0]))
    monkeypatch.setattr("worker.core.inference.pipeline.load_base", fill)
    with pytest.raises(RenderError, match=r"The base model “A” does not fit .* no training run"):
        ResidentPipeline.load(starter.PATH, name="“A”")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), RenderError),
        (MemoryError(), RenderError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_without_a_gpu_an_image_that_does_not_fit_is_named_too(
    pipeline: ResidentPipeline,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("worker.core.inference.pipeline.generate_latents", fail)
    with pytest.raises(kind) as raised:
        pipeline.render(config())
    assert type(raised.value) is kind
    assert ("does not fit in the device's memory" in str(raised.value)) is (kind is RenderError)


def test_without_a_gpu_large_images_are_generated_one_by_one(
    pipeline: ResidentPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [images_at_once(cpu, (side, side)) for side in (128, 256, 512, 2_048)] == [9, 2, 1, 1]
    assert images_at_once(cuda, (512, 512)) is None  # all of a request
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 64 * 64)
    progress: list[int] = []
    with unet_calls(pipeline) as rows:
        pipeline.render(
            config(count=2, guidance=1.0), on_step=lambda done, _: not progress.append(done)
        )
    assert rows == [1] * 2 * STEPS
    assert progress == [1, 2, 3, 4]
