"""`brushwork evaluate` on real trainings of the embedded base, most of them of a small one."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.worker.brief_measure import measure_briefly
from worker.core import starter
from worker.core.evaluate_folder import __main__ as command
from worker.core.evaluate_folder.__main__ import main
from worker.core.evaluation import drawing
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.starter.examples import LINOCUT
from worker.core.training.__main__ import main as train
from worker.core.training.command_line.console import Console

measure_briefly()

EMBEDDED = starter.PATH
IMAGES = 8
SUBJECTS = 6
TRAINING = ("--steps", "4", "--validation-share", "0.5")


@pytest.fixture
def small_embedded(small_starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded base has few layers and 64 px, where what images show is not the subject."""
    monkeypatch.setattr(starter, "PATH", small_starter)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders of a style, one image without a caption, and regularization images."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two", "regularization")]
    files = sorted(LINOCUT.folder.glob("*.webp"))
    for place, file in enumerate(files[: IMAGES + 2]):
        folder = folders[place % 2 if place < IMAGES else 2]
        shutil.copy(file, folder)
        if place != 2:  # one that is trained
            (folder / f"{file.stem}.txt").write_text(f"{file.stem}, linocut style")
    one, two, regularization = map(str, folders)
    return ["--data", one, "--data", f"{two}:2", "--regularization", regularization]


@pytest.fixture(scope="module")
def out(data: list[str], small_starter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of the small base with two checkpoints, and half of the images held out."""
    folder = tmp_path_factory.mktemp("out")
    train_on(small_starter, data, folder, *TRAINING)
    return folder


def train_on(model: Path, data: list[str], folder: Path, *more: str) -> None:
    words = f"--model {model} --out {folder} --batch-size 1 --rank 2 --resolution 64"
    words += " --learning-rate 2e-3 --checkpoint-every 2 --sample-every 0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Console, "listen", lambda _console: None)
        assert train([*words.split(), *data, "--sample-prompts", *more]) == 0


@pytest.fixture(autouse=True)
def _one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "STEPS", 1)


def evaluate(out: Path, data: list[str], *more: str) -> int:
    return main([str(out), *data, "--model", "starter", "--subjects", str(SUBJECTS), *more])


@pytest.mark.usefixtures("small_embedded")
def test_checkpoints_are_compared_on_the_same_subjects(
    out: Path,
    data: list[str],
    small_starter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "SUBJECTS", SUBJECTS)
    after: list[str] = []
    monkeypatch.setattr(os, "execv", lambda _, words: after.extend(words))
    # the training has ended: the same command only evaluates
    train_on(small_starter, data, out, *TRAINING, "--evaluate", "--trigger-word", "linocut")
    assert after[:3] == [sys.executable, "-m", "worker.core.evaluate_folder"]
    assert main(after[3:]) == 0
    printed = capsys.readouterr().out
    rows = [
        line.split()[:2]
        for line in printed.splitlines()
        if line.startswith("step ") and ":" not in line
    ]
    assert rows == [["step", "2"], ["step", "4"]]
    assert "Recommended: none." in printed  # four steps teach no style
    assert (out / "evaluation/sheet.png").is_file()
    drawn = [file for file in (out / "evaluation").iterdir() if file.name != "sheet.png"]
    # with the trigger word and without; one image has no caption
    assert len(drawn) == 2 * SUBJECTS + 2 * (2 * SUBJECTS + IMAGES - 1)

    # What is drawn is kept: the same command draws only what a kill cut off.
    drawn[0].write_bytes(drawn[0].read_bytes()[:99])
    render, calls = ResidentPipeline.render, []
    monkeypatch.setattr(
        ResidentPipeline, "render", lambda *given: calls.append(given) or render(*given)
    )
    words = ["--trigger-word", "linocut", "--json"]
    assert evaluate(out, data, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["candidates"]] == ["step 2", "step 4"]
    assert found["choice"]["left_out"].keys() == {"step 2", "step 4"}
    assert all(row["copy_ratio"] is not None for row in found["candidates"])
    assert evaluate(out, data, *words, "--checkpoints", "1") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["candidates"]] == ["step 4"]  # the last one
    assert len(calls) == 1
    own = tmp_path / "own.txt"
    own.write_text("\n a fox in snow\ncat\nboat\napple\ntree\n\nhouse\nfrog\ncat\n")
    assert evaluate(out, data, *words, "--checkpoints", "1", "--prompt-set", str(own)) == 0
    assert any("a fox in snow" in config.prompt for _, config in calls[1:])


def test_weights_of_one_checkpoint_give_a_card(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_on(EMBEDDED, data, tmp_path, "--steps", "2")
    capsys.readouterr()
    words = ["--trigger-word", "linocut", "--weights", "4,0,1", "--step", "2"]
    assert evaluate(tmp_path, data, *words) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[1:4]]
    assert [row[:2] for row in rows] == [["weight", "0"], ["weight", "1"], ["weight", "4"]]
    assert rows[0][-1] == "0.00"  # patches, as the base
    assert re.search(r"^The style .*is best at [14].*\.$", printed, re.MULTILINE)


@pytest.mark.usefixtures("small_embedded")
def test_what_cannot_be_evaluated_is_explained(
    out: Path,
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refusal(*words: object) -> str:
        assert main([*map(str, words), "--model", "starter"]) == 1
        return capsys.readouterr().err.strip()

    assert refusal(tmp_path, *data) == (
        f"There are no checkpoints in {tmp_path}. Give the --out folder of brushwork train."
    )
    assert "learned from other images or captions" in refusal(out, *data[:-2])
    assert "is named twice" in refusal(out, *data, *data[:2])
    assert "no checkpoint of step 3" in refusal(out, *data, "--step", 3)
    assert "at least 1" in refusal(out, *data, "--checkpoints", 0)
    assert "Use --subjects 6 or more" in refusal(out, *data, "--subjects", 5)
    assert "40 subjects, and 99 are wanted" in refusal(out, *data, "--subjects", 99)
    few = tmp_path / "few.txt"
    few.write_bytes(b"cat\n\xff\ncat\n")
    assert "has 2 subjects. Write 6 to 40 of them" in refusal(out, *data, "--prompt-set", few)
    assert "could not be read" in refusal(out, *data, "--prompt-set", tmp_path)
    assert main([str(out), *data, "--model", str(EMBEDDED)]) == 1
    assert "has another base model" in capsys.readouterr().err
    for weights in ("strong", "", "1,nan", "99"):
        with pytest.raises(SystemExit):
            main([str(out), *data, "--model", "starter", "--weights", weights])
        assert "must be numbers from -10 to 10" in capsys.readouterr().err
