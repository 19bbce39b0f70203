"""Every option trains a few real steps on both layouts, and survives a kill bit for bit."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.costs import wide_but
from tests.worker.training.conftest import MakeBase, Recorder
from worker.core.lora_files import canonical
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage, read_folder
from worker.core.training.errors import UnsupportedError
from worker.core.training.events import Phase, PhaseStarted, StepDone
from worker.core.training.train import train

OPTIONS: dict[str, dict[str, Any]] = {
    "AdamW in 8 bit with LoRA+": {"optimizer": "adamw_8bit", "lora_plus_ratio": 8},
    "schedule-free AdamW": {"optimizer": "adamw_schedule_free", "lr_scheduler": "constant"},
    "Prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "Adafactor with restarts": {
        "optimizer": "adafactor",
        "lr_scheduler": "cosine_restarts",
        "lr_cycles": 2,
        "warmup_steps": 1,
    },
    "LoHa, rank-stabilized, linear": {"kind": "loha", "rank_stabilized": True, "targets": "linear"},
    "LoKr on all layers": {"kind": "lokr", "targets": "all"},
    "chosen blocks": {"blocks": "down.0, up.0", "targets": "all"},
    "text encoder with a rank, a rate and an end of its own": {
        "train_text_encoder": True,
        "text_encoder_rank": 3,
        "text_encoder_alpha": 1.5,
        "text_encoder_learning_rate": 1e-3,
        "text_encoder_steps": 1,
    },
    "every change of loss and noise": {
        "loss": "huber",
        "loss_weighting": "debiased",
        "multires_noise_discount": 0.3,
        "noise_offset": 0.05,
        "noise_focus": 0.5,
        "zero_terminal_snr": True,
        "prediction_type": "v_prediction",
    },
    "min-SNR on epsilon": {"loss_weighting": "min_snr", "prediction_type": "epsilon"},
    "captions dropped and shuffled": {
        "caption_dropout": 0.5,
        "shuffle_tags": True,
        "keep_tags": 1,
    },
    "squares, mirrored, masked, regularized": {
        "aspect_buckets": False,
        "flip": True,
        "masked_loss": True,
        "unmasked_weight": 0.1,
        "regularization_weight": 0.5,
    },
    "held out, averaged": {"validation_share": 0.4, "ema_decay": 0.9},
    "accumulated, recomputed, unclipped": {
        "gradient_accumulation": 2,
        "gradient_checkpointing": True,
        "max_grad_norm": 0,
    },
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
}
OPTIONS_OF_SDXL = (
    "LoKr on all layers",
    "chosen blocks",
    "text encoder with a rank, a rate and an end of its own",
    "every change of loss and noise",
    "bf16",
)
"""Those that meet layers, encoders or numbers which SD does not have."""
STEPS = 2


@pytest.fixture(scope="module")
def pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrainingImage]:
    """Three pictures of a style, one see-through and one that regularizes."""
    images = read_folder(folder)
    path = tmp_path_factory.mktemp("more") / "clear.png"
    clear = Image.new("RGBA", (64, 64), (200, 80, 40, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 32, 64))
    clear.save(path)
    more = TrainingImage(path, "c" * 64, "half, a window, clear", repeats=2, never_flip=True)
    return [*images[:2], more, replace(images[2], is_regularization=True)]


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains_sd_and_survives_a_kill_bit_for_bit(
    option: str, pictures: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = _config(OPTIONS[option])
    whole = _trained(config, pictures, smallest_sd15, tmp_path / "a")
    left = "checkpoints/step-000001"  # by a run that was killed in its second step
    shutil.copytree(tmp_path / "a" / left, tmp_path / "b" / left)
    again = _trained(config, pictures, smallest_sd15, tmp_path / "b", steps=[2])
    assert again.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("option", wide_but(OPTIONS, *OPTIONS_OF_SDXL))
def test_an_option_trains_sdxl(
    option: str, pictures: list[TrainingImage], smallest_sdxl: MakeBase, tmp_path: Path
) -> None:
    changes = OPTIONS[option] | {"batch_size": 1, "checkpoint_every": 0}
    _trained(_config(changes), pictures, smallest_sdxl, tmp_path)


def _trained(
    config: TrainConfig,
    pictures: list[TrainingImage],
    make_base: MakeBase,
    out: Path,
    steps: Sequence[int] = (1, 2),
) -> Path:
    """The adapter of a run, after a look at it: it changes something and knows its config."""
    recorder = Recorder()
    trained = train(config, pictures, recorder, base=make_base(), out=out, cache=None)
    assert trained.path is not None
    assert [event.step for event in recorder.of(StepDone)] == list(steps)
    adapter = canonical.load_adapter(trained.path)
    assert any(bool(module.delta().any()) for module in adapter.modules)
    assert TrainConfig.model_validate_json(adapter.metadata["train_config"]) == config
    return trained.path


@pytest.mark.parametrize("blocks", ["style", "content"])
def test_b_lora_trains_one_block_of_sdxl(
    blocks: str, pictures: list[TrainingImage], shallow_sdxl: MakeBase, tmp_path: Path
) -> None:
    config = _config({"blocks": blocks, "steps": 1})
    trained = train(config, pictures, Recorder(), base=shallow_sdxl(), out=tmp_path, cache=None)
    assert trained.path is not None
    place = {"style": "up_blocks.0.attentions.1.", "content": "up_blocks.0.attentions.0."}[blocks]
    assert all(m.path.startswith(place) for m in canonical.load_adapter(trained.path).modules)


def test_clip_skip_reads_another_layer_of_sd_and_is_refused_for_sdxl(
    pictures: list[TrainingImage], shallow_sd15: MakeBase, shallow_sdxl: MakeBase, tmp_path: Path
) -> None:
    losses = []
    for skip in (1, 2):
        recorder = Recorder()
        config = _config({"clip_skip": skip, "steps": 1})
        train(config, pictures, recorder, base=shallow_sd15(), out=tmp_path / str(skip), cache=None)
        losses.append(recorder.of(StepDone)[0].loss)
    assert losses[0] != losses[1]
    with pytest.raises(UnsupportedError, match="Set CLIP skip to 1"):
        train(
            _config({"clip_skip": 2}),
            pictures,
            Recorder(),
            base=shallow_sdxl(),
            out=tmp_path / "xl",
            cache=None,
        )


def test_zero_terminal_snr_is_refused_where_noise_is_predicted(
    pictures: list[TrainingImage], shallow_sd15: MakeBase, starter_base: MakeBase, tmp_path: Path
) -> None:
    asked = _config({"zero_terminal_snr": True, "prediction_type": "epsilon"})
    told = _config({"prediction_type": "epsilon"})  # the base says of itself that it ends so
    for config, make_base in ((asked, shallow_sd15), (told, starter_base)):
        with pytest.raises(UnsupportedError, match="needs a v-prediction base model"):
            train(config, pictures, Recorder(), base=make_base(), out=tmp_path, cache=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_skip": 2},
        {"rank": 250},
        {"train_text_encoder": True, "text_encoder_rank": 250},
        {"blocks": "up.2.1"},
        {"compile": True},
    ],
)
def test_what_a_base_cannot_do_is_refused_before_a_picture_is_encoded(
    changes: dict[str, object],
    pictures: list[TrainingImage],
    shallow_sdxl: MakeBase,
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    with pytest.raises(UnsupportedError):
        train(_config(changes), pictures, recorder, base=shallow_sdxl(), out=tmp_path, cache=None)
    assert recorder.events == [PhaseStarted(Phase.PREPARING)]


def test_compile_is_refused_where_there_is_no_gpu(
    pictures: list[TrainingImage], shallow_sd15: MakeBase, tmp_path: Path
) -> None:
    config = _config({"compile": True})
    with pytest.raises(UnsupportedError, match="needs an NVIDIA GPU"):
        train(config, pictures, Recorder(), base=shallow_sd15(), out=tmp_path, cache=None)


def _config(changes: Mapping[str, Any]) -> TrainConfig:
    usual = {
        "steps": STEPS,
        "batch_size": 2,
        "resolution": 32,
        "rank": 2,
        "alpha": 2,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "checkpoint_every": 1,
    }
    return TrainConfig.model_validate(usual | dict(changes))
