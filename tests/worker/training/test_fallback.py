from pathlib import Path

import pytest

from worker.core.families.family import BaseFamily
from worker.core.training import fallback
from worker.core.training.config import BaseWeights, Optimizer, TrainConfig
from worker.core.training.fallback import (
    FALLBACK_FILE,
    load_fallback,
    reduce_memory_use,
    save_fallback,
)

SD1 = BaseFamily.SD1


@pytest.mark.parametrize("family", [BaseFamily.SD1, BaseFamily.ZIMAGE])
def test_each_reduction_changes_one_setting_until_none_is_left(
    family: BaseFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "find_spec", lambda _: object())
    config, said = TrainConfig(batch_size=5, gradient_accumulation=2), []
    while found := reduce_memory_use(config, family):
        config, sentence = found
        said.append(sentence)
    assert config.gradient_checkpointing
    assert (config.batch_size, config.gradient_accumulation) == (1, 10)
    assert config.optimizer is Optimizer.ADAMW_8BIT
    has_rows = family is BaseFamily.ZIMAGE
    assert (config.base_weights is BaseWeights.INT8) is has_rows
    changed = ["gradient", "batch", "batch", *(["frozen"] if has_rows else []), "optimizer"]
    assert all(word in sentence.lower() for word, sentence in zip(changed, said, strict=True))
    assert said[1] == "The batch size is now 2, with 5 gradient accumulation steps."


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "find_spec", lambda _: None)
    assert reduce_memory_use(TrainConfig(batch_size=1, gradient_checkpointing=True), SD1) is None


def test_another_optimizer_is_left_alone() -> None:
    prodigy = TrainConfig(batch_size=1, gradient_checkpointing=True, optimizer=Optimizer.PRODIGY)
    assert reduce_memory_use(prodigy, SD1) is None


def test_a_fallback_is_used_for_the_same_training_only(tmp_path: Path) -> None:
    asked, used = TrainConfig(batch_size=4), TrainConfig(batch_size=2, gradient_accumulation=2)
    assert load_fallback(tmp_path, asked) == asked
    save_fallback(tmp_path, requested=asked, used=used)
    assert load_fallback(tmp_path, asked) == used
    other = TrainConfig(batch_size=4, rank=2)
    assert load_fallback(tmp_path, other) == other
    for damaged in ("", "[]", "{", '{"asked": {}}'):
        (tmp_path / FALLBACK_FILE).write_text(damaged)
        assert load_fallback(tmp_path, asked) == asked


def test_a_fallback_of_an_earlier_release_is_used(tmp_path: Path) -> None:
    requested = TrainConfig(batch_size=4, regularization_weight=0.5)
    used = requested.model_copy(update={"batch_size": 2})
    save_fallback(tmp_path, requested=requested, used=used)
    file = tmp_path / fallback.FALLBACK_FILE
    old = file.read_text().replace("regularization_weight", "regularisation_weight")
    file.write_text(old.replace('  "evaluate": false,\n', ""))
    assert "evaluate" not in file.read_text()
    assert load_fallback(tmp_path, requested) == used
