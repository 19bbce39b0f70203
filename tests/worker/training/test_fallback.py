from pathlib import Path

import pytest

from worker.core.training import fallback
from worker.core.training.config import Optimizer, TrainConfig
from worker.core.training.fallback import KEPT, remember, remembered, step_down


def test_each_step_down_gives_up_one_thing_until_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fallback, "find_spec", lambda _: object())
    config, said = TrainConfig(batch_size=5, gradient_accumulation=2), []
    while found := step_down(config):
        config, sentence = found
        said.append(sentence)
    assert config.gradient_checkpointing
    assert (config.batch_size, config.gradient_accumulation) == (1, 10)
    assert config.optimizer is Optimizer.ADAMW_8BIT
    assert [sentence.split(" ")[0] for sentence in said] == ["“Save", "The", "The", "The"]
    assert said[1] == "The batch is 2 now, with 5 batches per step."


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "find_spec", lambda _: None)
    assert step_down(TrainConfig(batch_size=1, gradient_checkpointing=True)) is None


def test_another_optimizer_is_left_alone() -> None:
    prodigy = TrainConfig(batch_size=1, gradient_checkpointing=True, optimizer=Optimizer.PRODIGY)
    assert step_down(prodigy) is None


def test_what_came_to_fit_is_remembered_for_the_same_training_only(tmp_path: Path) -> None:
    asked, used = TrainConfig(batch_size=4), TrainConfig(batch_size=2, gradient_accumulation=2)
    assert remembered(tmp_path, asked) == asked
    remember(tmp_path, asked=asked, used=used)
    assert remembered(tmp_path, asked) == used
    other = TrainConfig(batch_size=4, rank=2)
    assert remembered(tmp_path, other) == other
    for damaged in ("", "[]", "{", '{"asked": {}}'):
        (tmp_path / KEPT).write_text(damaged)
        assert remembered(tmp_path, asked) == asked
