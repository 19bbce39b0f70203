"""The comparison with full fine-tuning: its own sums, its styles, and that it trains both."""

from __future__ import annotations

import json
import shutil
import threading
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import lora_vs_full
from bench.full import BASE, TrainingTask, train_one
from bench.lora_vs_full import Bench, StylePlan
from bench.styles import STYLES
from tools.examples.planes import SIZE
from worker.core.starter.examples import CHALKBOARD
from worker.core.training.errors import DatasetError
from worker.core.training.presets import Preset, preset_config

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">'
    '<circle cx="64" cy="64" r="44" fill="#d6402a"/><rect x="52" y="52" width="24" height="24" '
    'fill="#2a40d6"/></svg>'
)


def result(loss: float, *, trained: int = 10) -> dict[str, Any]:
    return {
        "trained": trained,
        "of": 1_000,
        "file_bytes": 2**20,
        "peak_bytes": 600 * 2**20,
        "cpu_seconds": 3.0,
        "loss": loss,
        "distance": 1.5,
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """A drawing in each style, (height, width, 3)."""
    return {name: np.asarray(draw(SVG, seed=1)).astype(int) for name, draw in STYLES.items()}


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_drawn_the_same_each_time_and_differs_from_the_others(
    style: str, drawn: dict[str, np.ndarray]
) -> None:
    assert drawn[style].shape == (SIZE, SIZE, 3)
    assert (drawn[style] == np.asarray(STYLES[style](SVG, seed=1))).all()
    others = [picture for name, picture in drawn.items() if name != style]
    assert all(np.abs(drawn[style] - other).mean() > 20 for other in others)


def test_a_gain_is_a_share_of_what_full_fine_tuning_gained() -> None:
    before, full = result(0.4), result(0.2)
    assert lora_vs_full.gain(result(0.25), before, full) == pytest.approx(0.75)
    assert lora_vs_full.gain(full, before, full) == 1


def test_what_was_trained_once_is_known_and_the_best_rate_is_taken(tmp_path: Path) -> None:
    plan = StylePlan("neon", "trained", "held-out", 250)
    losses = {1e-3: 0.30, 2e-3: 0.28, 4e-3: 0.29}
    tuned = lora_vs_full.USUAL.rank
    known = {plan.task(tuned, rate): result(loss) for rate, loss in losses.items()}
    known |= {plan.task(0, rate): result(0.25, trained=1_000) for rate in (1e-4, 2e-4)}
    known |= {plan.task(2, 2e-3): result(0.31), plan.task(0, 1e-4, steps=0): result(0.5)}
    rows = [json.dumps({"task": task.key, **row}) for task, row in known.items()]
    (tmp_path / f"results-{BASE.fingerprint[:12]}.jsonl").write_text("\n".join(rows))
    options = Namespace(full_rate=[1e-4, 2e-4], lora_rate=list(losses), rank=[2, tuned])
    lines = list(lora_vs_full.table(Bench(tmp_path, 1), plan, options))
    assert lines[-3].startswith("| rank 2 | 10 | 1.00% | 1.00 MiB | 600 MiB | 3 s | 0.002 |")
    assert "| 0.2800 | 88.0% |" in lines[-2]
    assert lines[-1].startswith("| everything | 1,000 | 100.00% |")


def test_both_ways_are_trained_and_measured_on_pictures_that_were_never_shown(
    tmp_path: Path,
) -> None:
    for folder, places in {"trained": slice(0, 3), "held-out": slice(3, 5)}.items():
        (tmp_path / folder).mkdir()
        lines = (CHALKBOARD.folder / "metadata.jsonl").read_text().splitlines()[places]
        for line in lines:
            shutil.copy(CHALKBOARD.folder / json.loads(line)["file_name"], tmp_path / folder)
        (tmp_path / folder / "metadata.jsonl").write_text("\n".join(lines))
    plan = StylePlan("chalkboard", str(tmp_path / "trained"), str(tmp_path / "held-out"), 1)
    bench = Bench(tmp_path, 1)
    lora_task = quick(plan.task(2, 2e-3))
    lora = bench.result(lora_task)
    nothing = train_one(quick(plan.task(0, 1e-4, steps=0)))
    full = train_one(quick(plan.task(0, 1e-4)))
    assert full["trained"] == full["of"] > 19_000_000
    assert lora["trained"] < 0.01 * lora["of"]
    assert lora["file_bytes"] < 0.02 * full["file_bytes"]
    assert len({round(way["loss"], 5) for way in (nothing, lora, full)}) == 3
    assert Bench(tmp_path, 1).known.keys() == {lora_task.key}


def quick(task: TrainingTask) -> TrainingTask:
    """The task with few images in a step, and few steps for the images at the end."""
    return replace(task, options=(*task.options, ("batch_size", 2), ("sample_steps", 2)))


def test_a_task_that_fails_ends_the_bench_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process fails as a training without images does, without the imports of one."""
    task = TrainingTask("neon", str(tmp_path / "no"), str(tmp_path / "no"), 2, 1e-3, 1)
    with pytest.raises(DatasetError, match="There is no folder") as failed:
        train_one(task)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "full.py").write_text(f"raise RuntimeError({str(failed.value)!r})")
    monkeypatch.setattr(lora_vs_full, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="exit status 1"):
        Bench(tmp_path, 1).result(task)
    assert "There is no folder" in capsys.readouterr().err


def test_several_are_trained_at_a_time_and_stored_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=30)

    def train(_: Bench, task: TrainingTask) -> dict[str, Any]:
        both.wait()  # fails unless two are here at once
        return result(task.learning_rate)

    monkeypatch.setattr(Bench, "_train", train)
    plan = StylePlan("neon", "", "", 1)
    tasks = [plan.task(8, rate) for rate in (0.4, 0.3, 0.2, 0.1)]
    found = Bench(tmp_path, 1, jobs=2).results(tasks)
    assert [row["loss"] for row in found] == [0.4, 0.3, 0.2, 0.1]
    assert Bench(tmp_path, 1).known.keys() == {task.key for task in tasks}


def test_the_results_of_another_base_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = StylePlan("neon", "", "", 1).task(8, 1e-3)
    other = json.dumps({"task": task.key, **result(0.1)})
    (tmp_path / "results-0123456789ab.jsonl").write_text(other)
    monkeypatch.setattr(Bench, "_train", lambda *_: result(0.3))
    assert Bench(tmp_path, 1).result(task)["loss"] == 0.3


def test_the_size_of_a_training_follows_the_base() -> None:
    config = StylePlan("neon", "", "", 1).task(8, 1e-3).config()
    usual = preset_config(Preset.QUICK, resolution=BASE.resolution, images=24)
    assert (config.batch_size, config.resolution) == (usual.batch_size, usual.resolution)


def test_a_rate_is_chosen_at_the_only_rank_and_other_layers_are_another_task() -> None:
    assert lora_vs_full.tuned_rank(None) == lora_vs_full.USUAL.rank
    assert lora_vs_full.tuned_rank([3]) == 3
    attention, linear = (StylePlan("neon", "", "", 1, layers) for layers in ("attention", "linear"))
    assert attention.task(4, 1e-3).key != linear.task(4, 1e-3).key
    assert attention.task(0, 1e-3).key == linear.task(0, 1e-3).key
    for plan in (attention, linear):  # whatever the preset of this base trains
        assert plan.task(4, 1e-3).config().targets == plan.targets
