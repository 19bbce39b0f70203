import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.worker.training.conftest import MakeBase, Recorder
from worker.core.bases.load import load_base
from worker.core.lora_files import canonical
from worker.core.starter.examples import CHALKBOARD
from worker.core.training import failures
from worker.core.training.config import LrScheduler, Precision, TrainConfig
from worker.core.training.data.images import TrainingImage, read_folder
from worker.core.training.errors import (
    CheckpointError,
    DatasetError,
    DeadAdapterError,
    DivergedError,
    OutOfMemoryError,
    StorageError,
)
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    CheckpointSaved,
    Commands,
    Control,
    FixedLoss,
    Notice,
    Phase,
    PhaseStarted,
    RolledBack,
    SampleSaved,
    StepDone,
    ValidationDone,
)
from worker.core.training.outcome import Outcome, TrainedAdapter
from worker.core.training.train import train
from worker.core.words import LossWeighting

SAMPLED = {"sample_prompts": ["castle", "frog"], "sample_steps": 2, "sample_every": 3}


def _train(
    config: TrainConfig,
    images: Sequence[TrainingImage],
    make_base: MakeBase,
    out: Path,
    recorder: Recorder | None = None,
) -> TrainedAdapter:
    return train(config, images, recorder or Recorder(), base=make_base(), out=out, cache=None)


def _adapter_bytes(trained: TrainedAdapter) -> bytes:
    assert trained.path is not None
    return trained.path.read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> bytes:
    """The adapter file of the short config without a break."""
    return _adapter_bytes(_train(short, images, smallest_sd15, tmp_path_factory.mktemp("whole")))


def test_a_later_attempt_computes_as_the_first_one_did(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    config = short.model_copy(update={"precision": Precision.AUTO, "steps": 1})
    first = Arithmetic(precision="bf16", threads=1)
    train(
        config, images, recorder, base=smallest_sd15(), out=tmp_path, cache=None, arithmetic=first
    )
    assert recorder.of(Arithmetic) == [first]


def test_a_run_makes_an_adapter_and_reports_each_step(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    trained = _train(short, images, smallest_sd15, tmp_path, recorder)
    assert trained.outcome is Outcome.FINISHED
    assert trained.steps == 6
    assert trained.path == tmp_path / "adapter.safetensors"
    adapter = canonical.load_adapter(trained.path)
    assert adapter.parameters == trained.trainable_parameters
    assert TrainConfig.model_validate_json(adapter.metadata["train_config"]) == short
    assert any(module.up.abs().sum() > 0 for module in adapter.modules)
    steps = recorder.of(StepDone)
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].learning_rate == pytest.approx(0.5e-2)
    assert [event.step for event in recorder.of(CheckpointSaved)] == [2, 4, 6]
    (facts,) = recorder.of(BaseFacts)
    assert facts.trainable_parameters == trained.trainable_parameters
    assert trained.base_parameters == facts.base_parameters > facts.trainable_parameters
    assert trained.peak_memory_bytes > 2**20


@pytest.mark.parametrize("family", ["sd15", "sdxl", "starter_base"])
def test_all_blocks_of_each_family_train(
    family: str,
    short: TrainConfig,
    images: list[TrainingImage],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    sampled = {"sample_prompts": ["castle"], "sample_steps": 1}
    config = short.model_copy(update={"steps": 1, "batch_size": 1} | sampled)
    make_base = request.getfixturevalue(family)
    trained = _train(config, images[:1], make_base, tmp_path)
    assert trained.path is not None
    adapter = canonical.load_adapter(trained.path)
    second = {"text_encoder_2"} if family == "sdxl" else set()
    assert {c.value for c in adapter.components} == {"unet", "text_encoder"} | second
    assert any(module.up.any() for module in adapter.modules)
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_a_unet_that_is_kept_as_stored_until_it_trains_gives_the_same_adapter(
    short: TrainConfig, images: list[TrainingImage], small_starter: Path, tmp_path: Path
) -> None:
    config = short.model_copy(update={"resolution": 64, "steps": 2, "precision": Precision.FP32})
    kept = [
        train(
            config,
            images,
            Recorder(),
            base=load_base(small_starter, denoiser_dtype=dtype),
            out=tmp_path / str(dtype),
            cache=None,
        )
        for dtype in (None, "stored")
    ]
    assert _adapter_bytes(kept[0]) == _adapter_bytes(kept[1])


def test_a_run_asked_to_save_and_exit_resumes_bit_for_bit(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    uninterrupted: bytes,
) -> None:
    told = Recorder(script={3: Commands(Control.SAVE_AND_EXIT)})
    interrupted = _train(short, images, smallest_sd15, tmp_path, told)
    assert (interrupted.outcome, interrupted.steps) == (Outcome.INTERRUPTED, 3)
    assert interrupted.path is None
    again = Recorder()
    assert _adapter_bytes(_train(short, images, smallest_sd15, tmp_path, again)) == uninterrupted
    assert [event.step for event in again.of(StepDone)] == [4, 5, 6]


def test_a_killed_run_resumes_bit_for_bit(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    uninterrupted: bytes,
) -> None:
    """It dies in step 5; the newest checkpoint is damaged too, so it goes on from the second."""
    killed, again = Recorder(fails_after=5), Recorder()
    with pytest.raises(ConnectionResetError):
        _train(short, images, smallest_sd15, tmp_path, killed)
    newest = tmp_path / "checkpoints" / "step-000004" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert _adapter_bytes(_train(short, images, smallest_sd15, tmp_path, again)) == uninterrupted
    assert [event.step for event in again.of(StepDone)] == [3, 4, 5, 6]
    assert [event.step for event in killed.of(FixedLoss)] == [0, 2, 4]
    assert [event.step for event in again.of(FixedLoss)] == [4, 6]
    assert again.of(FixedLoss)[1].base == killed.of(FixedLoss)[0].loss
    assert "step-000004 is damaged" in again.of(Notice)[0].text


def test_samples_and_checkpoints_change_nothing(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    uninterrupted: bytes,
) -> None:
    """The adapter of a run that draws and saves all the time differs in its metadata only."""
    busy = short.model_copy(update=SAMPLED | {"checkpoint_every": 1, "sample_every": 1})
    asked = Recorder(script={2: Commands(sample_now=True, save_now=True)})
    trained = _train(busy, images, smallest_sd15, tmp_path / "busy", asked)
    assert trained.path is not None
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(uninterrupted)
    pairs = zip(
        canonical.load_adapter(trained.path).modules,
        canonical.load_adapter(plain).modules,
        strict=True,
    )
    for one, two in pairs:
        assert torch.equal(one.down, two.down)
        assert torch.equal(one.up, two.up)


def test_the_base_models_samples_come_after_the_first_step(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    changes = {"steps": 4, "learning_rate": 0.05, "checkpoint_every": 0}
    config = short.model_copy(update=SAMPLED | changes)
    _train(config, images, smallest_sd15, tmp_path / "one", recorder)
    order = [
        (type(event), event.step)
        for event in recorder.events
        if isinstance(event, StepDone | SampleSaved)
    ]
    assert order[:3] == [(StepDone, 1), (SampleSaved, 0), (SampleSaved, 0)]
    assert sorted({step for kind, step in order if kind is SampleSaved}) == [0, 3, 4]
    other = config.model_copy(update={"learning_rate": 1e-6})
    _train(other, images, smallest_sd15, tmp_path / "two")

    def picture(run: str, step: int) -> bytes:
        return (tmp_path / run / "samples" / f"step-{step:06d}" / "prompt-1.png").read_bytes()

    assert picture("one", 0) == picture("two", 0)
    assert picture("one", 4) != picture("two", 4)


def test_missing_samples_are_generated_when_the_run_resumes(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update=SAMPLED | {"sample_every": 2})
    _train(
        config,
        images,
        smallest_sd15,
        tmp_path,
        Recorder(script={4: Commands(Control.SAVE_AND_EXIT)}),
    )
    row = tmp_path / "samples" / "step-000004"
    assert not (row / "prompt-1.png").exists()
    _train(config, images, smallest_sd15, tmp_path)
    assert (row / "prompt-1.png").exists()


def test_a_cancel_ends_the_run_within_a_step_and_keeps_nothing(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    recorder = Recorder(script={3: Commands(Control.CANCEL)})
    trained = _train(short, images, smallest_sd15, tmp_path, recorder)
    assert (trained.outcome, trained.steps, trained.path) == (Outcome.CANCELED, 3, None)
    assert not (tmp_path / "adapter.safetensors").exists()


def test_a_cancel_is_heard_before_the_first_step(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    recorder = Recorder(script={0: Commands(Control.CANCEL)})
    trained = _train(short, images, smallest_sd15, tmp_path, recorder)
    assert (trained.outcome, trained.steps) == (Outcome.CANCELED, 0)


def test_a_stop_keeps_the_adapter_as_it_is(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update=SAMPLED | {"sample_every": 0})
    recorder = Recorder(script={3: Commands(Control.STOP_AND_KEEP)})
    trained = _train(config, images, smallest_sd15, tmp_path, recorder)
    assert (trained.outcome, trained.steps) == (Outcome.STOPPED, 3)
    assert trained.path is not None
    assert canonical.load_adapter(trained.path).metadata["steps"] == "3"
    assert [event.step for event in recorder.of(CheckpointSaved)] == [2, 3]
    assert [event.step for event in recorder.of(SampleSaved)] == [0, 0, 2, 2, 3, 3]
    checkpoint = tmp_path / "checkpoints" / "step-000003" / "adapter.safetensors"
    assert checkpoint.read_bytes() == trained.path.read_bytes()


@pytest.mark.parametrize(
    ("control", "outcome"),
    [(Control.CANCEL, Outcome.CANCELED), (Control.SAVE_AND_EXIT, Outcome.INTERRUPTED)],
)
def test_a_stop_can_still_be_canceled_and_interrupted(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    control: Control,
    outcome: Outcome,
) -> None:
    """While the samples of the step that is kept are generated."""

    class Late(Recorder):
        def poll(self) -> Commands:
            late = bool(self.of(CheckpointSaved))  # that of the step that is kept
            return Commands(
                control if late else (Control.STOP_AND_KEEP if self.steps else Control.CONTINUE)
            )

    config = short.model_copy(update=SAMPLED)
    trained = _train(config, images, smallest_sd15, tmp_path, Late())
    assert (trained.outcome, trained.steps, trained.path) == (outcome, 1, None)


def test_a_stop_before_a_resumed_run_has_loaded_its_state_keeps_that(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    leaving = Recorder(script={4: Commands(Control.SAVE_AND_EXIT)})
    _train(short, images, smallest_sd15, tmp_path, leaving)

    class Stopping(Recorder):
        def poll(self) -> Commands:
            return Commands(Control.STOP_AND_KEEP)

    trained = _train(short, images, smallest_sd15, tmp_path, Stopping())
    assert (trained.outcome, trained.steps) == (Outcome.STOPPED, 4)
    assert trained.path is not None


def test_requests_are_handled_between_steps(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update=SAMPLED | {"sample_every": 0, "checkpoint_every": 0})
    recorder = Recorder(script={3: Commands(sample_now=True, save_now=True)})
    _train(config, images, smallest_sd15, tmp_path, recorder)
    # the base's row is being drawn when the poll after step 1 comes, hence not there
    assert 3 in {event.step for event in recorder.of(SampleSaved)}
    saved = [(event.step, event.is_requested) for event in recorder.of(CheckpointSaved)]
    assert saved == [(3, True), (6, False)]


def test_a_checkpoint_that_is_requested_again_is_reported_again(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    recorder = Recorder(script={2: Commands(save_now=True), 3: Commands(save_now=True)})
    _train(short, images, smallest_sd15, tmp_path, recorder)
    saved = [(event.step, event.is_requested) for event in recorder.of(CheckpointSaved)]
    assert saved == [(2, False), (2, True), (3, True), (4, False), (6, False)]


def test_every_checkpoint_has_a_row_of_samples(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update=SAMPLED | {"sample_every": 0})
    recorder = Recorder(script={3: Commands(save_now=True)})
    _train(config, images, smallest_sd15, tmp_path, recorder)
    assert sorted({event.step for event in recorder.of(SampleSaved)}) == [0, 2, 3, 4, 6]


def test_a_loss_that_is_not_finite_ends_the_run_with_its_pictures_named(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
) -> None:
    base = smallest_sd15()

    class Poison(Recorder):
        def on_event(self, event: object) -> None:
            super().on_event(event)  # type: ignore[arg-type]
            if isinstance(event, StepDone) and event.step == 3:
                base.denoiser.conv_out.bias.data.fill_(float("inf"))

    poison = Poison()
    with pytest.raises(DivergedError, match=r"diverged in step 3 .*[012]\.png.* step 2 was saved"):
        train(short, images, poison, base=base, out=tmp_path, cache=None)
    assert [event.step for event in poison.of(RolledBack)] == [2]
    (notice,) = poison.of(Notice)
    assert notice.is_warning
    assert re.search(r"in step 4 \(images: .*[012]\.png", notice.text)
    kept = tmp_path / "checkpoints" / "step-000002" / "adapter.safetensors"
    assert canonical.load_adapter(kept).parameters > 0


def test_a_run_whose_first_step_diverges_does_not_speak_of_an_adapter(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    base = smallest_sd15()
    base.denoiser.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"learning rate\. Check these images"):
        train(short, images, Recorder(), base=base, out=tmp_path, cache=None)


def test_a_run_that_diverged_once_resumes_from_its_last_good_state_at_a_lower_rate(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    class Stumble(Recorder):
        """Spoils one step after the third, and mends the base when it was noticed."""

        def on_event(self, event: object) -> None:
            super().on_event(event)  # type: ignore[arg-type]
            if isinstance(event, StepDone) and event.step == 3 and not self.of(RolledBack):
                self.bias = base.denoiser.conv_out.bias.data.clone()
                base.denoiser.conv_out.bias.data.fill_(float("nan"))
            if isinstance(event, RolledBack):
                base.denoiser.conv_out.bias.data = self.bias

    base, stumble = smallest_sd15(), Stumble()
    config = short.model_copy(update=SAMPLED | {"lr_scheduler": LrScheduler.CONSTANT})
    trained = train(config, images, stumble, base=base, out=tmp_path / "a", cache=None)
    assert trained.outcome is Outcome.FINISHED
    steps = stumble.of(StepDone)
    assert [event.step for event in steps] == [1, 2, 3, 3, 4, 5, 6]
    assert steps[3].learning_rate == pytest.approx(steps[2].learning_rate / 2)
    rows = [event.step for event in stumble.of(SampleSaved)]
    assert rows.count(3) == 4  # the row of step 3 was drawn again

    base, killed = smallest_sd15(), Stumble(fails_after=5)
    with pytest.raises(ConnectionResetError):
        train(config, images, killed, base=base, out=tmp_path / "b", cache=None)
    again = _train(config, images, smallest_sd15, tmp_path / "b")
    assert _adapter_bytes(again) == _adapter_bytes(trained)


def test_an_adapter_without_effect_fails_the_run(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update={"learning_rate": 1e-44, "weight_decay": 0.0, "steps": 2})
    with pytest.raises(DeadAdapterError, match="no effect after 2 steps"):
        _train(config, images, smallest_sd15, tmp_path)
    assert not (tmp_path / "adapter.safetensors").exists()


def test_an_adapter_that_no_sample_shows_is_a_loud_warning(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    config = short.model_copy(update=SAMPLED | {"learning_rate": 1e-20})
    assert _train(config, images, smallest_sd15, tmp_path, recorder).path is not None
    (notice,) = recorder.of(Notice)
    assert notice.is_warning
    assert "seems to have no effect" in notice.text


def test_validation_images_are_measured_at_every_checkpoint_and_never_trained_on(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    config = short.model_copy(update={"validation_share": 0.5, "ema_decay": None})
    trained = _train(config, images, smallest_sd15, tmp_path / "a", recorder)
    asked = recorder.of(ValidationDone)
    assert [event.step for event in asked] == [0, 2, 4, 6]
    assert len({event.loss for event in asked}) == 4
    first, *others = asked
    assert first.low == first.loss == first.high  # nothing to be compared with
    assert all(event.low < event.loss < event.high for event in others)
    without = config.model_copy(update={"checkpoint_every": 0})
    assert _adapter_bytes(_train(without, images, smallest_sd15, tmp_path / "b")) != b""
    killed, resumed = Recorder(fails_after=3), Recorder()
    with pytest.raises(ConnectionResetError):
        _train(config, images, smallest_sd15, tmp_path / "c", killed)
    again = _train(config, images, smallest_sd15, tmp_path / "c", resumed)
    assert _adapter_bytes(again) == _adapter_bytes(trained)
    assert resumed.of(ValidationDone) == asked[-len(resumed.of(ValidationDone)) :]


def test_text_that_does_not_train_is_encoded_once(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
) -> None:
    base = smallest_sd15()
    config = short.model_copy(update=SAMPLED | {"train_text_encoder": False})
    trained = train(config, images, Recorder(), base=base, out=tmp_path, cache=None)
    assert base.text_encoders == []
    assert base.vae.encoder is None
    assert trained.path is not None
    assert {c.value for c in canonical.load_adapter(trained.path).components} == {"unet"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_may_be_larger_than_the_dataset(
    count: int,
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
) -> None:
    config = short.model_copy(update={"batch_size": 3, "steps": 2, "flip": False})
    assert _train(config, images[:count], smallest_sd15, tmp_path).steps == 2


@pytest.mark.parametrize(
    "sizes",
    [[(96, 96)], [(1_600, 64), (64, 1_600), (700, 90), (90, 700), (333, 332)]],
    ids=["one picture", "all of different extreme shapes"],
)
def test_odd_datasets_train(
    sizes: list[tuple[int, int]], short: TrainConfig, smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (200, 40 * number, 60)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"thing {number}")
    recorder = Recorder()
    config = short.model_copy(update={"steps": 4, "batch_size": 3})
    trained = _train(config, read_folder(folder), smallest_sd15, tmp_path / "out", recorder)
    assert trained.outcome is Outcome.FINISHED
    losses = [event.loss for event in recorder.of(StepDone)]
    assert len(losses) == 4
    assert all(0 < loss < 10 for loss in losses)


def test_a_base_that_is_removed_while_it_trains_costs_nothing(
    short: TrainConfig, images: list[TrainingImage], small_starter: Path, tmp_path: Path
) -> None:
    kept = []
    for remove in (False, True):
        folder = shutil.copytree(small_starter, tmp_path / f"base-{remove}")
        base = load_base(folder)
        if remove:
            shutil.rmtree(folder)
        fixed = {"resolution": 64, "steps": 2, "precision": Precision.FP32}
        config = short.model_copy(update=fixed)
        out = tmp_path / f"out-{remove}"
        kept.append(train(config, images, Recorder(), base=base, out=out, cache=None))
    assert _adapter_bytes(kept[0]) == _adapter_bytes(kept[1])


def test_an_empty_dataset_is_refused(
    short: TrainConfig, smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="empty"):
        _train(short, [], smallest_sd15, tmp_path)


def test_a_finished_run_started_again_gives_the_same_adapter(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    first = _adapter_bytes(_train(short, images, smallest_sd15, tmp_path))
    recorder = Recorder()
    assert _adapter_bytes(_train(short, images, smallest_sd15, tmp_path, recorder)) == first
    assert recorder.of(StepDone) == []


def test_a_folder_of_another_training_is_refused(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    _train(short.model_copy(update={"steps": 2}), images, smallest_sd15, tmp_path)
    with pytest.raises(CheckpointError, match="another training: steps differ"):
        _train(short, images, smallest_sd15, tmp_path)


@pytest.mark.parametrize(
    ("raised", "expected", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError, "batch size below 2"),
        (MemoryError(), OutOfMemoryError, "Gradient checkpointing"),
        (RuntimeError("CUDA error: out of memory"), OutOfMemoryError, "Gradient checkpointing"),
        (RuntimeError("MPS backend out of memory (…)"), OutOfMemoryError, "Gradient checkpointing"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            OutOfMemoryError,
            "Gradient checkpointing",
        ),
        (OSError(28, "No space left on device"), StorageError, "disk is full"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_system_failures_become_sentences(
    raised: Exception,
    expected: type[Exception],
    sentence: str,
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
) -> None:
    base = smallest_sd15()

    def fail(*_: object) -> None:
        raise raised

    base.denoiser.conv_out.register_forward_hook(fail)
    with pytest.raises(expected, match=sentence):
        train(short, images, Recorder(), base=base, out=tmp_path, cache=None)


def test_a_sample_that_does_not_fit_in_memory_does_not_end_the_training(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    tmp_path: Path,
    recorder: Recorder,
) -> None:
    base = smallest_sd15()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    base.vae.decoder.register_forward_hook(fail)
    config = short.model_copy(update={"sample_prompts": ["a pear"], "sample_steps": 1})
    trained = train(config, images, recorder, base=base, out=tmp_path, cache=None)
    assert (trained.steps, trained.outcome) == (short.steps, "finished")
    (notice,) = recorder.of(Notice)
    assert notice.is_warning
    assert "continues without samples" in notice.text
    assert not recorder.of(SampleSaved)


def test_the_example_is_learned(starter_base: MakeBase, tmp_path: Path, recorder: Recorder) -> None:
    """Ten steps on the chalkboard pictures take a good part of the loss away."""
    config = TrainConfig(
        steps=10,
        batch_size=2,
        train_text_encoder=True,
        learning_rate=3e-3,
        lr_scheduler=LrScheduler.CONSTANT,
        loss_weighting=LossWeighting.NONE,
        resolution=64,
        precision=Precision.FP32,
    )
    _train(config, read_folder(CHALKBOARD.folder), starter_base, tmp_path, recorder)
    losses = [event.loss for event in recorder.of(StepDone)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_no_damage_is_done_by_leftovers_of_a_killed_save(
    short: TrainConfig, images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path
) -> None:
    config = short.model_copy(update={"steps": 1})
    leftover = tmp_path / "checkpoints" / ".unfinished-abc"
    leftover.mkdir(parents=True)
    shutil.copy(images[0].path, leftover / "state.pt")
    _train(config, images, smallest_sd15, tmp_path)
    assert not leftover.exists()


def test_a_full_disk_is_waited_out_and_the_adapter_is_bit_equal(
    short: TrainConfig,
    images: list[TrainingImage],
    smallest_sd15: MakeBase,
    uninterrupted: bytes,
    tmp_path: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, refused = Path.replace, [1, 2, 3]

    def replace_when_there_is_room(path: Path, target: Path) -> Path:
        if refused and refused.pop():
            raise OSError(28, "No space left on device")
        return write(path, target)

    monkeypatch.setattr(failures, "TRY_SECONDS", 0.0)
    monkeypatch.setattr(Path, "replace", replace_when_there_is_room)
    trained = train(
        short,
        images,
        recorder,
        base=smallest_sd15(),
        out=tmp_path,
        cache=None,
        waits_for_space=True,
    )
    assert _adapter_bytes(trained) == uninterrupted
    phases = [event.phase for event in recorder.of(PhaseStarted)]
    assert phases.count(Phase.WAITING) == 1
