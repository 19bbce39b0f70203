"""Small real bases, a few pictures, and callbacks that listen and speak."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from PIL import Image, ImageDraw

from tests.worker.brief_measure import measure_briefly
from worker.core import starter
from worker.core.bases.load import LoadedBase, load_base
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data import validation
from worker.core.training.data.images import TrainingImage, read_folder
from worker.core.training.events import Commands, Event, StepDone

T = TypeVar("T")
MakeBase = Callable[[], LoadedBase]

FIXED_PREDICTIONS = validation.FIXED_PREDICTIONS
"""Of each measurement of the fixed images, where nothing makes it short."""
measure_briefly()

SHAPES = {"red circle": (64, 64), "blue square": (64, 64), "wide line": (96, 56)}


@pytest.fixture(scope="session")
def sd15(sd15_folder: Path) -> MakeBase:
    """All blocks of an SD 1.5."""
    return _copies(sd15_folder)


@pytest.fixture(scope="session")
def sdxl(sdxl_folder: Path) -> MakeBase:
    """All blocks of an SDXL."""
    return _copies(sdxl_folder)


@pytest.fixture(scope="session")
def shallow_sd15(shallow_sd15_folder: Path) -> MakeBase:
    """An SD 1.5 that has a layer of each type in few blocks."""
    return _copies(shallow_sd15_folder)


@pytest.fixture(scope="session")
def shallow_sdxl(shallow_sdxl_folder: Path) -> MakeBase:
    """An SDXL that has a layer of each type in few blocks."""
    return _copies(shallow_sdxl_folder)


@pytest.fixture(scope="session")
def zimage_base(zimage_folder: Path) -> MakeBase:
    """A Z-Image of two layers."""
    return _copies(zimage_folder)


@pytest.fixture(scope="session")
def zimage_of_rows(zimage_folder: Path) -> MakeBase:
    """The same with int8 rows in its layers."""
    return _copies(zimage_folder, int8=lambda path: path.startswith("layers."))


@pytest.fixture(scope="session")
def smallest_sd15(smallest_sd15_folder: Path) -> MakeBase:
    """An SD 1.5 of two blocks, for what is not about its layers."""
    return _copies(smallest_sd15_folder)


@pytest.fixture(scope="session")
def smallest_sdxl(smallest_sdxl_folder: Path) -> MakeBase:
    """An SDXL of two blocks, for what is not about its layers."""
    return _copies(smallest_sdxl_folder)


@pytest.fixture(scope="session")
def starter_base() -> MakeBase:
    return _copies(starter.PATH)


def _copies(folder: Path, **options: Any) -> MakeBase:
    """A fresh base each time: a training uses its base up, all but the tokenizers.

    By pickle, with the tensors kept apart: a third of what `copy.deepcopy` costs.
    """
    loaded = load_base(folder, **options)
    tokenizers = {id(tokenizer): tokenizer for tokenizer in loaded.tokenizers}
    tensors: dict[int, torch.Tensor] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if isinstance(value, torch.Tensor):
                tensors[id(value)] = value
            return id(value) if id(value) in tensors or id(value) in tokenizers else None

    class Unpickler(pickle.Unpickler):
        def __init__(self, content: io.BytesIO) -> None:
            super().__init__(content)
            self._copies: dict[int, torch.Tensor] = {}  # what is shared in one base stays shared

        def persistent_load(self, key: int) -> Any:
            if key in tokenizers:
                return tokenizers[key]
            if key not in self._copies:
                self._copies[key] = copy.deepcopy(tensors[key])
            return self._copies[key]

    content = io.BytesIO()
    Pickler(content).dump(loaded)
    return lambda: Unpickler(io.BytesIO(content.getvalue())).load()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, (caption, size) in enumerate(SHAPES.items()):
        picture = Image.new("RGB", size, (20 + 60 * index, 90, 60))
        ImageDraw.Draw(picture).ellipse((10, 10, 40 + 5 * index, 44), fill=(250, 240, 200))
        picture.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="session")
def images(folder: Path) -> list[TrainingImage]:
    return read_folder(folder)


@dataclass
class Recorder:
    """Callbacks that keep every event and answer polls from a script.

    `script` gives the commands to answer once this many steps are done; `fails_after` raises
    right after a step, as a killed process would leave things.
    """

    script: dict[int, Commands] = field(default_factory=dict)
    fails_after: int | None = None
    events: list[Event] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepDone) and event.step == self.fails_after:
            raise ConnectionResetError("the worker is gone")

    def poll(self) -> Commands:
        return self.script.pop(self.steps, Commands())

    @property
    def steps(self) -> int:
        return sum(isinstance(event, StepDone) for event in self.events)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def short() -> TrainConfig:
    """A few steps of everything that could make two runs differ."""
    return TrainConfig(
        steps=6,
        batch_size=2,
        resolution=64,
        rank=2,
        alpha=2,
        train_text_encoder=True,
        learning_rate=1e-2,
        warmup_steps=2,
        caption_dropout=0.3,
        noise_offset=0.05,
        noise_focus=0.5,
        ema_decay=0.9,
        flip=True,
        precision=Precision.FP32,
        checkpoint_every=2,
    )
