"""A training that goes on from the checkpoint of another one, with a config of its own."""

import math
import shutil
from pathlib import Path

import pytest

from tests.worker.training.conftest import MakeBase, Recorder
from worker.core.training.checkpoints import copy_start_checkpoint
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.errors import CheckpointError
from worker.core.training.events import Arithmetic, Event, RolledBack, StepDone
from worker.core.training.train import train

PARENT_STEPS = 2


def _config(**changes: object) -> TrainConfig:
    usual = {
        "steps": PARENT_STEPS + 2,
        "batch_size": 2,
        "resolution": 32,
        "rank": 2,
        "alpha": 2,
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        "precision": "fp32",
    }
    return TrainConfig.model_validate(usual | changes)


@pytest.fixture(scope="module")
def parent(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a training in bf16 that has ended."""
    out = tmp_path_factory.mktemp("parent")
    config = _config(steps=PARENT_STEPS, precision="bf16")
    train(config, images, Recorder(), base=smallest_sd15(), out=out, cache=None)
    return out


@pytest.fixture
def out(parent: Path, tmp_path: Path) -> Path:
    return shutil.copytree(parent, tmp_path / "out")


def _go_on(
    config: TrainConfig, images: list[TrainingImage], make_base: MakeBase, out: Path
) -> Recorder:
    recorder = Recorder()
    train(config, images, recorder, base=make_base(), out=out, cache=None, continues=True)
    assert [event.step for event in recorder.of(StepDone)] == [3, 4]
    return recorder


def test_it_learns_at_its_own_rates(
    images: list[TrainingImage], smallest_sd15: MakeBase, out: Path
) -> None:
    recorder = _go_on(_config(learning_rate=1e-3), images, smallest_sd15, out)
    assert [event.learning_rate for event in recorder.of(StepDone)] == [1e-3, 1e-3]


@pytest.mark.parametrize(("rate", "learned_at"), [(1e-2, 0.5e-2), (3e-3, 3e-3)])
def test_the_lower_rate_applies_only_to_the_rate_that_was_too_high(
    rate: float,
    learned_at: float,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
) -> None:
    base = smallest_sd15()
    bias = base.denoiser.conv_out.bias.data.clone()

    class Stumble(Recorder):
        """Spoils the second step, and mends the base when it was noticed."""

        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if isinstance(event, RolledBack):
                base.denoiser.conv_out.bias.data = bias
            elif isinstance(event, StepDone) and not self.of(RolledBack):
                base.denoiser.conv_out.bias.data = bias * math.nan

    stumbled = _config(steps=PARENT_STEPS)
    train(stumbled, images, Stumble(), base=base, out=tmp_path, cache=None)
    recorder = _go_on(_config(learning_rate=rate), images, smallest_sd15, tmp_path)
    assert [event.learning_rate for event in recorder.of(StepDone)] == [learned_at] * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_computes_as_its_own_config_says(
    precision: str, images: list[TrainingImage], smallest_sd15: MakeBase, out: Path
) -> None:
    recorder = _go_on(_config(precision=precision), images, smallest_sd15, out)
    assert [event.precision for event in recorder.of(Arithmetic)] == [precision]


def test_it_computes_as_before_where_its_config_does_not_say(
    images: list[TrainingImage], smallest_sd15: MakeBase, out: Path
) -> None:
    recorder = _go_on(_config(precision="auto"), images, smallest_sd15, out)
    assert [event.precision for event in recorder.of(Arithmetic)] == ["bf16"]


def test_adamw_continues_in_8_bit_after_running_out_of_memory(
    images: list[TrainingImage], smallest_sd15: MakeBase, out: Path
) -> None:
    _go_on(_config(optimizer="adamw_8bit"), images, smallest_sd15, out)


@pytest.mark.parametrize("changes", [{"optimizer": "prodigy"}, {"rank": 4}, {"kind": "loha"}])
def test_another_adapter_or_optimizer_is_refused(
    changes: dict[str, object], images: list[TrainingImage], smallest_sd15: MakeBase, out: Path
) -> None:
    with pytest.raises(CheckpointError, match="Use its adapter kind, rank, target modules"):
        _go_on(_config(**changes), images, smallest_sd15, out)


def test_a_checkpoint_of_another_base_model_is_refused(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another base model\. Choose that model"):
        copy_start_checkpoint(parent, tmp_path / "out", steps=9, base="0" * 64)
    assert not (tmp_path / "out").exists()
