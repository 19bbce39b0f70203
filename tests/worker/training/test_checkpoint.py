import json
from pathlib import Path

import pytest
import torch

from worker.core.families.family import Component
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.training import checkpoints as checkpoint_module
from worker.core.training.checkpoints import CheckpointFolder
from worker.core.training.errors import CheckpointError

IDENTITY = {"rank": 2, "pictures": "abc"}


def _adapter(value: float = 1.0) -> LoraAdapter:
    module = LoraModule(
        Component.DENOISER, "a.to_q", torch.full((2, 4), value), torch.full((4, 2), value), 2.0
    )
    return LoraAdapter((module,))


def _folder(
    root: Path, *, keep: int = 3, identity: dict[str, object] | None = None
) -> CheckpointFolder:
    return CheckpointFolder(root, identity=identity or IDENTITY, keep=keep)


def _states(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != "adapters")


def _fail(text: str) -> None:
    raise AssertionError(text)


def test_the_newest_state_comes_back(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    state = {"tensor": torch.arange(3.0), "rows": [[1, 2], []], "none": None, "text": "bf16"}
    folder.save(5, {"old": True}, _adapter())
    saved = folder.save(1_000_000, state, _adapter(7))
    assert saved.size_bytes == sum(file.stat().st_size for file in saved.path.iterdir())
    restored = _folder(tmp_path).restore(on_damaged=_fail)
    assert restored is not None
    assert restored.step == 1_000_000
    assert torch.equal(restored.state.pop("tensor"), torch.arange(3.0))
    assert restored.state == {"rows": [[1, 2], []], "none": None, "text": "bf16"}
    assert canonical.load_adapter(saved.path / "adapter.safetensors").modules[0].up[0, 0] == 7


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert _folder(tmp_path / "none").restore(on_damaged=_fail) is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folder = _folder(tmp_path, keep=2)
    for step in (9, 10, 11):
        folder.save(step, {}, _adapter())
    assert _states(tmp_path) == ["step-000010", "step-000011"]


@pytest.mark.parametrize(("keep", "kept"), [(None, [9, 10, 11]), (1, [11])])
def test_adapters_outlive_their_states(tmp_path: Path, keep: int | None, kept: list[int]) -> None:
    folder = CheckpointFolder(tmp_path, identity=IDENTITY, keep=1, keep_adapters=keep)
    for step in (9, 11, 10, 11):  # 11 was damaged, so its step came again
        folder.save(step, {}, _adapter(step))
    assert _states(tmp_path) == ["step-000011"]
    found = {path: canonical.load_adapter(path) for path in (tmp_path / "adapters").iterdir()}
    assert {path.name: found[path].modules[0].up[0, 0] for path in found} == {
        f"step-{step:06d}.safetensors": step for step in kept
    }


def test_the_best_one_stays_beside_the_newest(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, identity=IDENTITY, keep=2, keep_adapters=1)
    for step, best in ((9, 9), (10, 9), (11, 9), (12, 12), (13, 12)):
        folder.save(step, {}, _adapter(), best=best)
        if step == 11:
            assert _states(tmp_path) == [f"step-{kept:06d}" for kept in (9, 10, 11)]
    assert _states(tmp_path) == ["step-000012", "step-000013"]
    adapters = sorted(path.stem for path in (tmp_path / "adapters").iterdir())
    assert adapters == ["step-000012", "step-000013"]


@pytest.mark.parametrize("name", ["state.pt", "adapter.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_a_damaged_checkpoint_gives_way_to_an_older_one(
    tmp_path: Path, name: str, damage: str
) -> None:
    folder = _folder(tmp_path)
    folder.save(1, {}, _adapter())
    file = folder.save(2, {}, _adapter()).path / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-9])
    else:
        file.write_bytes(content[:5] + bytes([content[5] ^ 255]) + content[6:])
    told: list[str] = []
    restored = folder.restore(on_damaged=told.append)
    assert restored is not None
    assert restored.step == 1
    assert "step-000002 is damaged" in told[0]


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder.save(2, {}, _adapter()).path / "state.pt").write_bytes(b"")
    folder.save(2, {"fresh": True}, _adapter())
    restored = folder.restore(on_damaged=_fail)
    assert restored is not None
    assert restored.state == {"fresh": True}


def test_a_damaged_checkpoint_of_a_later_step_takes_no_place_of_a_sound_one(
    tmp_path: Path,
) -> None:
    folder = _folder(tmp_path, keep=1)
    (folder.save(4, {}, _adapter()).path / "state.pt").write_bytes(b"")
    folder.save(3, {"sound": True}, _adapter())
    restored = folder.restore(on_damaged=_fail)
    assert restored is not None
    assert restored.state == {"sound": True}


def test_a_save_that_fails_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(tmp_path)
    folder.save(1, {}, _adapter())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module.canonical, "save_adapter", full)
    with pytest.raises(OSError, match="No space"):
        folder.save(2, {}, _adapter())
    assert _states(tmp_path) == ["step-000001"]


def test_what_a_killed_save_left_is_neither_read_nor_kept(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.save(1, {}, _adapter())
    (tmp_path / ".unfinished-x").mkdir()
    (tmp_path / ".unfinished-x" / "state.pt").write_bytes(b"half")
    restored = folder.restore(on_damaged=_fail)
    assert restored is not None
    folder.delete_unfinished()
    assert _states(tmp_path) == ["step-000001"]


def test_another_trainings_checkpoints_are_refused_by_what_differs(tmp_path: Path) -> None:
    _folder(tmp_path).save(1, {}, _adapter())
    other = _folder(tmp_path, identity=IDENTITY | {"rank": 4})
    with pytest.raises(CheckpointError, match="another training: rank differ"):
        other.restore(on_damaged=_fail)


def test_a_state_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    path = folder.save(1, {}, _adapter()).path
    torch.save({"evil": Path("x")}, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = checkpoint_module._file_hashes(path)
    (path / "manifest.json").write_text(json.dumps(manifest))
    told: list[str] = []
    assert folder.restore(on_damaged=told.append) is None
    assert "damaged" in told[0]


def test_a_checkpoint_with_an_old_name_belongs_to_the_same_training(tmp_path: Path) -> None:
    old = _folder(tmp_path, identity=IDENTITY | {"regularisation_weight": 0.5})
    old.save(10, {"steps": 10}, _adapter(1.0))
    identity = IDENTITY | {"regularization_weight": 0.5}
    restored = _folder(tmp_path, identity=identity).restore(on_damaged=pytest.fail)
    assert restored is not None
    assert (restored.step, restored.identity) == (10, identity)
