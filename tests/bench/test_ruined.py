"""The bench of ruined runs: its plans, and what its table counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.ruined import (
    HEALTHY,
    PLANS,
    RUINOUS,
    Plan,
    make_config,
    print_table,
    read_results,
)
from bench.trainings import LEAST_STEPS
from worker.core.training.presets import Preset, for_optimizer, preset_config
from worker.core.training.rate_warnings import rate_warnings


def row(name: str, verdict: str) -> dict[str, Any]:
    return {
        "name": name,
        "steps": 20,
        "verdict": verdict,
        "losses": {"0": 0.4, "20": 0.3},
        "rises": {"0": 1.0, "20": 0.9},
        "samples": {"0": [0.9], "20": [0.8, 0.7]},
    }


def test_the_plans_are_twenty_healthy_and_five_ruinous_runs_of_every_preset() -> None:
    assert (len(HEALTHY), len(RUINOUS), len(PLANS)) == (20, 5, 25)
    assert {plan.preset for plan in HEALTHY} == set(Preset)
    assert {plan.style for plan in HEALTHY} == {"chalkboard", "linocut"}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_is_a_valid_config_and_no_healthy_one_warns_of_its_rate(plan: Plan) -> None:
    config = make_config(plan, resolution=128, images=24, scale=0.01)
    assert LEAST_STEPS <= config.steps <= 25
    preset = preset_config(Preset(plan.preset), resolution=128, images=24)
    usual = for_optimizer(preset, config.optimizer)
    assert plan.is_ruinous or rate_warnings(config, usual) == []


def test_the_table_says_what_ran_and_what_was_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("Prodigy", "healthy"), row("64 px", "ruined"), row("rate ×30", "healthy")]
    print_table([*rows, row("rate ×500", "failed")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| Prodigy | quick, chalkboard | 20 | ×0.75 | ×0.90 | 0.70 | healthy |"
    assert lines[3].endswith("ruined (wrong) |")
    assert lines[-2:] == [
        "healthy: 1 of 2 right; 2 of 20 ran.",
        "ruinous: 1 of 2 right; 2 of 5 ran.",
    ]


def test_the_newest_result_of_a_run_counts(tmp_path: Path) -> None:
    rows = [row(name, verdict) | {"scale": 1.0} for name, verdict in (
        ("Prodigy", "ruined"), ("64 px", "healthy"), ("Prodigy", "healthy"),
    )]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(found) + "\n" for found in rows))
    assert [(found["name"], found["verdict"]) for found in read_results(tmp_path)] == [
        ("Prodigy", "healthy"),
        ("64 px", "healthy"),
    ]
    assert read_results(tmp_path / "none") == []
