"""`brushwork train` on a small base: once as a real process, elsewhere in this one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from worker.core import starter
from worker.core.bases.inspect import inspect_base
from worker.core.lora_files.reading import read_adapter
from worker.core.training import prepare
from worker.core.training.__main__ import main
from worker.core.training.checkpoints import checkpoints_in
from worker.core.training.command_line import run
from worker.core.training.command_line.console import FAILED, INTERRUPTED, Console
from worker.core.training.command_line.run import ARITHMETIC_FILE, ArithmeticFile
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.events import Arithmetic
from worker.core.training.learner import Learner
from worker.core.wording import size_text

COMMAND = (
    "--resolution 64 --batch 4 --steps 20 --rank 8 --lr 1e-3 --seed 0 "
    "--targets attention --no-text-encoder"
)
CONFIG = {"steps": 50, "batch_size": 1, "rank": 2, "alpha": 2, "precision": "fp32"}


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def header_of(path: Path) -> tuple[list[str], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return list(file.keys()), file.metadata()


@pytest.fixture(autouse=True)
def _own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C stays with pytest where a command runs in its process."""
    monkeypatch.setattr(Console, "listen", lambda _console: None)


@pytest.fixture
def small_embedded(small_starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded base has few layers, which is what a step costs by."""
    monkeypatch.setattr(starter, "PATH", small_starter)


def test_the_command_trains_and_resumes_after_an_interruption(
    tmp_path: Path, folder: Path, small_starter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    places = ["--model", str(small_starter), "--data", str(folder), "--out", str(out)]
    words = [*places, *COMMAND.split(), "--batch", "2"]
    first = start(*words)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("step 1/20"):
            first.send_signal(signal.SIGTERM)
            break
    rest, errors = first.communicate(timeout=120)
    assert first.returncode == INTERRUPTED, errors
    assert "Run the same command to continue" in rest
    assert not (out / "adapter.safetensors").exists()

    code = main(words)
    output, errors = capsys.readouterr()
    assert code == 0, errors
    assert "step 1/20" not in output
    assert "step 20/20" in output
    path = out / "adapter.safetensors"
    adapter = read_adapter(path)
    last = output.splitlines()[-3:]
    assert last[0] == f"{path} ({size_text(path.stat().st_size)})"
    counts = inspect_base(small_starter).parameters
    tunable = counts["unet"] + counts["text_encoder"]
    assert last[1].startswith(f"Trained {adapter.parameters:,} of {tunable:,} parameters (")
    assert last[2].startswith("20 steps, ")
    assert re.search(r" in total, peak memory [\d.,]+ [MG]B\.$", last[2])
    names, metadata = header_of(path)
    assert all(name.startswith("lora_unet_") for name in names)
    assert any(name.endswith(".lora_down.weight") for name in names)
    assert metadata["ss_network_dim"] == "8"
    assert metadata["ss_output_name"] == metadata["modelspec.title"] == folder.name
    assert (metadata["ss_sd_model_name"], metadata["ss_resolution"]) == ("starter", "(64, 64)")
    began, ended = (float(metadata[f"ss_training_{word}_at"]) for word in ("started", "finished"))
    assert 0 < ended - began < 240


def test_a_job_from_a_file_trains_and_flags_win_over_it(
    tmp_path: Path, folder: Path, small_starter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    job = tmp_path / "job.json"
    places = {"model": str(small_starter), "data": str(folder), "out": str(out)}
    job.write_text(json.dumps(places | {"config": CONFIG}))
    words = ["--steps", "2", "--name", "Deep ink", "--trigger-word", "ink", "--dtype", "fp32"]
    samples = ["--sample-prompt", "a fox", "--sample-steps", "1", "--regularization", str(folder)]
    code = main([str(job), *words, *samples])
    output, errors = capsys.readouterr()
    assert code == 0, errors
    assert output.startswith("Warning: No caption contains the trigger word “ink”")
    assert "step 2/2" in output
    assert f"Sample {out}/samples/step-000002/prompt-0.png (a fox)" in output
    _, metadata = header_of(out / "adapter.safetensors")
    assert (metadata["modelspec.title"], metadata["ss_output_name"]) == ("Deep ink", "Deep-ink")
    assert metadata["modelspec.trigger_phrase"] == "ink"
    assert metadata["ss_num_train_images"] == "3"
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg")
    trained: dict[str, Any] = json.loads(metadata["brushwork.train_config"])
    assert (trained["steps"], trained["rank"], trained["precision"]) == (2, 2, "fp32")
    assert "a fox" not in json.dumps(metadata)


@pytest.mark.usefixtures("small_embedded")
def test_full_memory_falls_back_to_a_smaller_config_and_saves_it(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learn, sizes = Learner.learn, []

    def learn_in_little_memory(self: Learner, batches: Any, **options: Any) -> Any:
        sizes.append(len(batches[0].images))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("not enough")
        return learn(self, batches, **options)

    monkeypatch.setattr(Learner, "learn", learn_in_little_memory)
    out = tmp_path / "out"
    places = ["--model", "starter", "--data", str(folder), "--out", str(out)]
    words = [*places, *COMMAND.split(), "--steps", "2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "“Gradient checkpointing” was turned on" in shown
    assert "The batch size is now 2, with 2 gradient accumulation steps." in shown
    assert sizes == [4, 4, 2, 2]
    config = json.loads(header_of(out / "adapter.safetensors")[1]["brushwork.train_config"])
    assert (config["batch_size"], config["gradient_accumulation"]) == (2, 2)

    sizes.clear()
    assert main([*words, "--name", "again"]) == 0
    assert "Out of memory" not in capsys.readouterr().out


@pytest.mark.usefixtures("small_embedded")
def test_a_run_killed_after_a_fallback_resumes_from_an_earlier_checkpoint(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    learn, fails = Learner.learn, True

    def learn_two_steps_then_die(self: Learner, batches: Any, *, step: int, **options: Any) -> Any:
        if step == 2 and fails:
            if len(batches[0].images) == 4 and not self._config.gradient_checkpointing:
                raise torch.OutOfMemoryError("not enough")
            raise ConnectionResetError("killed")
        return learn(self, batches, step=step, **options)

    monkeypatch.setattr(Learner, "learn", learn_two_steps_then_die)
    places = ["--model", "starter", "--data", str(folder), "--out", str(tmp_path / "out")]
    words = [*places, *COMMAND.split(), "--steps", "3", "--checkpoint-every", "2"]
    assert main(words) == 1
    assert "“Gradient checkpointing” was turned on" in capsys.readouterr().out
    fails = False
    assert main(words) == 0, capsys.readouterr().err
    assert "step 3/3" in capsys.readouterr().out


@pytest.mark.usefixtures("small_embedded")
def test_a_training_continues_from_a_checkpoint_to_a_new_length(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    usual = ["--model", "starter", "--data", str(folder), *COMMAND.split()]
    assert main([*usual, "--out", str(first), "--steps", "2", "--checkpoint-every", "1"]) == 0
    capsys.readouterr()

    words = [
        *usual,
        "--out",
        str(second),
        "--continue-from",
        str(first / "checkpoints/step-000001"),
    ]
    assert main([*words, "--steps", "1"]) == 1
    assert "is at step 1. Steps are counted" in capsys.readouterr().err
    for _ in range(2):  # the same command again finds it done
        assert main([*words, "--steps", "3"]) == 0
        shown = capsys.readouterr().out
        assert "step 1/3" not in shown
    assert len(checkpoints_in(second / "checkpoints")) == 2

    same = [*usual, "--out", str(first), "--continue-from", str(first), "--steps", "3"]
    assert main(same) == 0
    shown = capsys.readouterr().out
    assert "step 2/3" not in shown
    assert "step 3/3" in shown
    empty = [*usual, "--out", str(tmp_path / "third"), "--continue-from", str(tmp_path)]
    assert main(empty) == 1
    assert ": its manifest cannot be read. Choose another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "/nowhere"], "There is no folder /nowhere. Check the path."),
        (["--model", "/nowhere"], "There is no base model at 'nowhere'. Check the path."),
        (["--regularization", "/nothing"], "There is no folder /nothing. Check the path."),
        (["--config", "/nowhere.json"], "/nowhere.json cannot be read: No such file"),
        (["--device", "cuda:99"], "torch does not find the device cuda:99"),
    ],
)
def test_unusable_arguments_are_explained_in_one_line(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--model", "starter", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main([*places, *words]) == FAILED
    shown = capsys.readouterr().err
    assert sentence in shown
    assert len(shown.strip().splitlines()) == 1


@pytest.mark.usefixtures("small_embedded")
@pytest.mark.parametrize("killed_before", [1, 3], ids=["before a checkpoint", "after one"])
def test_a_killed_training_keeps_its_arithmetic_and_ends_bit_equal(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    killed_before: int,
) -> None:
    """Every start would choose other threads and another precision, as timing on a busy machine."""
    learn, choices, killed = Learner.learn, [(2, "bf16"), (1, "fp32")], []
    learned_with: list[int] = []

    def choose_threads(base: Any, *, batch_size: int, at_most: int) -> int:
        threads, precision = choices[len(killed)]
        monkeypatch.setattr(prepare, "resolve_precision", lambda *_, **__: Precision(precision))
        torch.set_num_threads(threads)
        return threads

    def learn_or_die(self: Learner, batches: Any, *, step: int, **options: Any) -> Any:
        if step == killed_before and out == "killed" and not killed:
            killed.append(step)
            raise ConnectionResetError("killed")
        learned_with.append(torch.get_num_threads())
        return learn(self, batches, step=step, **options)

    monkeypatch.setattr(run, "use_fastest_threads", choose_threads)
    monkeypatch.setattr(Learner, "learn", learn_or_die)
    usual = ["--model", "starter", "--data", str(folder), *COMMAND.split(), "--batch", "1"]
    usual += ["--steps", "4", "--checkpoint-every", "2", "--dtype", "fp32"]
    files = {}
    for out in ("whole", "killed", "killed"):
        main([*usual, "--out", str(tmp_path / out)])
        files[out] = tmp_path / out / "adapter.safetensors"
    assert killed == [killed_before], capsys.readouterr().err
    assert set(learned_with) == {2}
    whole, resumed = (load_file(path) for path in files.values())
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_another_config_or_damage_in_the_folder_chooses_the_arithmetic_again(
    tmp_path: Path,
) -> None:
    config = TrainConfig()
    file = ArithmeticFile(tmp_path, config, fingerprint="a", threads=0)
    assert file.load() is None
    file.save(Arithmetic("bf16", 2))
    assert file.load() == Arithmetic("bf16", 2)
    longer = config.model_copy(update={"steps": 7})
    for other in (
        ArithmeticFile(tmp_path, longer, fingerprint="a", threads=0),
        ArithmeticFile(tmp_path, config, fingerprint="b", threads=0),
        ArithmeticFile(tmp_path, config, fingerprint="a", threads=1),
    ):
        assert other.load() is None
    content = json.loads((tmp_path / ARITHMETIC_FILE).read_text())
    del content["training"]["config"]["evaluate"]  # as an earlier release wrote it
    (tmp_path / ARITHMETIC_FILE).write_text(json.dumps(content))
    assert file.load() == Arithmetic("bf16", 2)
    for damage in ("", "{", "[]", '{"training": {}}', "null"):
        (tmp_path / ARITHMETIC_FILE).write_text(damage)
        assert file.load() is None
