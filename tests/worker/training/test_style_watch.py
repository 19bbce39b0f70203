"""A training that may stop by itself: its rule on given measures, and trainings of a small base."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.training.conftest import MakeBase, Recorder, _copies
from worker.core.evaluation.subjects import EVERYDAY
from worker.core.lora_files import canonical
from worker.core.starter.examples import LINOCUT
from worker.core.training import style_watch
from worker.core.training.changes import Change, ChangeOrder
from worker.core.training.checkpoints import checkpoints_in
from worker.core.training.config import TrainConfig
from worker.core.training.data import validation
from worker.core.training.data.images import TrainingImage, read_folder
from worker.core.training.events import (
    CheckpointSaved,
    Commands,
    Control,
    Notice,
    SettingsChanged,
    ValidationDone,
)
from worker.core.training.outcome import Outcome, TrainedAdapter
from worker.core.training.style_watch import Measure, StyleWatch, best_of, reason_to_stop
from worker.core.training.train import train

IMAGES = 8
NOISE = np.array([0.3, -0.2, 0.1, -0.3, 0.2, -0.1, 0.05, -0.05])


def measures(*rows: tuple[float, float | None]) -> list[Measure]:
    """Checkpoints at steps 50, 100 and so on, by mean style and copy ratio.

    The prompts differ by as much at each, which a paired difference does not see, and by a little.
    """
    return [
        Measure(50 * number, tuple(mean + NOISE + 0.02 * np.roll(NOISE, number)), ratio)
        for number, (mean, ratio) in enumerate(rows, start=1)
    ]


def styles(*means: float) -> list[Measure]:
    return measures(*((mean, None) for mean in means))


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ((0.2, 0.4, 0.6), 150),
        ((0.6, 0.601, 0.602, 0.599), 50),  # not told apart
        ((0.2, 0.6, 0.4), 100),
        ((0.6, 0.604, 0.608, 0.612, 0.616), 250),  # slowly, but it rises
        ((-0.1,), 50),
    ],
)
def test_the_best_is_the_first_that_no_later_one_clearly_beats(
    means: Sequence[float], best: int
) -> None:
    assert best_of(styles(*means)).step == best


def test_it_stops_when_the_style_has_not_risen_for_so_many_checkpoints() -> None:
    found = styles(0.2, 0.6, 0.601, 0.5, 0.7)
    assert [reason_to_stop(found[:count], 2) for count in range(4)] == [None] * 4
    reason = "Stopped at step 200: the style has not come clearly closer since step 100."
    assert reason_to_stop(found[:4], 2) == reason
    assert reason_to_stop(found[:4], 3) is None
    assert reason_to_stop(found, 3) is None  # it rose again
    assert reason_to_stop(styles(0.6, 0.6), 2) is None  # too few to tell


def test_it_stops_when_it_copies_and_an_earlier_checkpoint_does_not() -> None:
    found = measures((0.2, 0.9), (0.4, 0.7), (0.6, 0.4))
    assert reason_to_stop(found, 2) == (
        "Stopped at step 150: it draws its training images again when asked with their captions. "
        "Step 100 does not."
    )
    assert best_of(found).step == 100
    assert reason_to_stop(found, 3) is None  # too few to tell
    always = measures((0.2, 0.4), (0.4, 0.4), (0.6, 0.4))
    assert reason_to_stop(always, 2) is None
    assert best_of(always).step == 150


@pytest.fixture(scope="module")
def base(request: pytest.FixtureRequest) -> MakeBase:
    return _copies(request.getfixturevalue(getattr(request, "param", "small_starter")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingImage]:
    folder = tmp_path_factory.mktemp("linocut")
    for file in sorted(LINOCUT.folder.glob("*.webp"))[:IMAGES]:
        shutil.copy(file, folder)
        (folder / f"{file.stem}.txt").write_text(f"{file.stem}, linocut style")
    return read_folder(folder)


@pytest.fixture(autouse=True)
def _one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_watch, "STEPS", 1)
    monkeypatch.setattr(validation, "LEVELS", 1)


def watched(**changes: Any) -> TrainConfig:
    """It learns next to nothing, so that its style never rises."""
    usual = {
        "steps": 6, "checkpoint_every": 1, "batch_size": 1, "rank": 2, "alpha": 2,
        "learning_rate": 1e-6, "precision": "fp32", "validation_share": 0.5, "patience": 2,
    }  # fmt: skip
    return TrainConfig.model_validate(usual | changes)


@pytest.fixture
def run(
    base: MakeBase, pictures: list[TrainingImage]
) -> Callable[..., tuple[TrainedAdapter, Recorder]]:
    def run(
        config: TrainConfig,
        out: Path,
        recorder: Recorder | None = None,
        changes: Sequence[Change] = (),
    ) -> tuple[TrainedAdapter, Recorder]:
        recorder, form = recorder or Recorder(), ("", ", linocut style")
        trained = train(
            config,
            pictures,
            recorder,
            base=base(),
            out=out,
            cache=None,
            prompt_form=form,
            changes=changes,
        )
        return trained, recorder

    return run


Run = Callable[..., tuple[TrainedAdapter, Recorder]]


def adapters(out: Path) -> list[str]:
    return [path.stem for path in checkpoints_in(out / "checkpoints" / "adapters")]


def weights(path: Path | None) -> list[tuple[str, bytes, bytes]]:
    assert path is not None
    modules = canonical.load_adapter(path).modules
    return [(one.key, one.down.numpy().tobytes(), one.up.numpy().tobytes()) for one in modules]


def state(out: Path) -> Any:
    newest = checkpoints_in(out / "checkpoints")[-1]
    return torch.load(newest / "state.pt", weights_only=True)["style"]


@pytest.mark.parametrize(
    "base",
    ["small_starter", pytest.param("zimage_folder", marks=pytest.mark.wide)],
    indirect=True,
)
def test_a_training_stops_by_itself_and_keeps_its_adapter_and_the_best_checkpoint(
    run: Run, tmp_path: Path
) -> None:
    trained, recorder = run(watched(keep_adapters=1, keep_checkpoints=1), tmp_path)
    assert (trained.outcome, trained.steps) == (Outcome.STOPPED, 3)
    assert trained.path is not None
    assert [notice.text for notice in recorder.of(Notice)] == [
        "Stopped at step 3: the style has not come clearly closer since step 1."
    ]
    assert [event.best for event in recorder.of(CheckpointSaved)] == [1, 1, 1]
    assert [event.step for event in recorder.of(ValidationDone)] == [0, 1, 2, 3]
    assert adapters(tmp_path) == ["step-000001", "step-000003"]
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == adapters(tmp_path)
    found = state(tmp_path)
    assert found["prompts"][0].endswith(", linocut style")
    assert all(ratio is not None for _, _, ratio in found["measures"])

    # continued with the same patience it stops again; without, it goes on
    again, _ = run(watched(), tmp_path)
    assert (again.outcome, again.steps) == (Outcome.STOPPED, 3)
    on, recorder = run(watched(patience=0), tmp_path)
    assert (on.outcome, on.steps) == (Outcome.FINISHED, 6)
    assert {event.best for event in recorder.of(CheckpointSaved)} == {None}


def test_a_resumed_training_takes_the_same_decision_with_the_same_numbers(
    run: Run, tmp_path: Path
) -> None:
    config = watched(steps=4, learning_rate=1e-2, caption_dropout=0.3, ema_decay=0.5)
    whole, _ = run(config, tmp_path / "whole")
    for name, recorder in (
        ("killed", Recorder(fails_after=3)),
        ("saved", Recorder({2: Commands(Control.SAVE_AND_EXIT)})),  # while it draws
    ):
        out = tmp_path / name
        try:
            assert run(config, out, recorder)[0].outcome is Outcome.INTERRUPTED
        except ConnectionResetError:
            assert name == "killed"
        resumed, _ = run(config, out)
        assert (resumed.outcome, resumed.steps) == (whole.outcome, whole.steps)
        assert weights(resumed.path) == weights(whole.path)
        assert state(out) == state(tmp_path / "whole")
    assert [step for step, *_ in state(out)["measures"]] == [1, 2, 3]

    # drawing takes no random numbers from the training
    run(watched(**config.model_dump() | {"patience": 0}), tmp_path / "plain")
    at = Path("checkpoints", "adapters", f"step-{whole.steps:06d}.safetensors")
    assert weights(tmp_path / "plain" / at) == weights(tmp_path / "whole" / at)


def test_a_stop_rule_that_is_set_while_it_trains_stops_a_repeat_at_the_same_step(
    run: Run, tmp_path: Path
) -> None:
    wanted = Commands(change=ChangeOrder(1, {"patience": 1}))
    whole, recorder = run(watched(patience=0), tmp_path / "whole", Recorder({1: wanted}))
    assert (whole.outcome, whole.steps) == (Outcome.STOPPED, 3)
    (said,) = recorder.of(SettingsChanged)
    again, _ = run(watched(patience=1), tmp_path / "again", changes=[said.change])
    assert (again.outcome, again.steps) == (Outcome.STOPPED, 3)
    with pytest.raises(ConnectionResetError):
        run(watched(patience=0), tmp_path / "killed", Recorder({1: wanted}, fails_after=3))
    resumed, _ = run(watched(patience=1), tmp_path / "killed", changes=[said.change])
    assert (resumed.outcome, resumed.steps) == (Outcome.STOPPED, 3)
    assert weights(whole.path) == weights(again.path) == weights(resumed.path)
    assert [step for step, *_ in state(tmp_path / "killed")["measures"]] == [2, 3]


def test_what_cannot_be_measured_is_said_once_and_the_training_goes_on(
    base: MakeBase, pictures: list[TrainingImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notices(images: list[TrainingImage], name: str, **changes: int) -> list[str]:
        recorder = Recorder()
        config = watched(**{"steps": 4, "patience": 1} | changes)
        trained = train(config, images, recorder, base=base(), out=tmp_path / name, cache=None)
        assert (trained.outcome, trained.steps) == (Outcome.FINISHED, 4)
        assert {event.best for event in recorder.of(CheckpointSaved)} == {None}
        return [notice.text for notice in recorder.of(Notice) if "no effect" not in notice.text]

    (few,) = notices(pictures[:3], "few")
    assert few == (
        "The training cannot stop by itself and goes on to its last step. The style is not "
        "measured: the dataset has 3 images, and fewer than 8 do not tell a style from its "
        "subjects."
    )
    named = [
        TrainingImage(one.path, one.sha256, ", ".join(EVERYDAY[place::IMAGES]))
        for place, one in enumerate(pictures)
    ]
    (all_named,) = notices(named, "named")
    assert "The captions leave too few subjects" in all_named

    (short,) = notices(pictures, "short", checkpoint_every=2)
    assert short.endswith("That takes 2 checkpoints before it, and there are 1.")
    (without,) = notices(pictures, "without", checkpoint_every=0)
    assert without.endswith("That takes 2 checkpoints before it, and there are 0.")

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(StyleWatch, "measure", full)
    (memory,) = notices(pictures, "memory")
    assert memory.endswith("Drawing for it ran out of memory.")


def test_a_checkpoint_from_before_it_was_measured_starts_the_count(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionResetError):
        run(watched(patience=0), tmp_path, Recorder(fails_after=2))
    assert state(tmp_path) is None
    trained, recorder = run(watched(), tmp_path)
    assert [event.best for event in recorder.of(CheckpointSaved)] == [1, 1]
    assert (trained.outcome, trained.steps) == (Outcome.STOPPED, 3)
