"""The settings of a run: on its page and in the API, compared with its preset."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from fastapi.testclient import TestClient

from app.registry.runs.settings import config_differences, setting_words
from app.registry.state import AppState
from app.registry.tables.runs import Run
from tests import fake_workers
from worker.core.families.family import BaseFamily
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset


def panel_of(page: str) -> str:
    """The panel of the settings, on one line."""
    found = re.search(r'<section class="panel" id="run-settings".*?</section>', page, re.DOTALL)
    assert found is not None
    return " ".join(html.unescape(found[0]).split())


def settings_of(client: TestClient, run_id: int) -> dict[str, Any]:
    """The settings of a run in the API, by name."""
    answer = client.get(f"/api/v1/runs/{run_id}/settings").json()
    return {setting["name"]: setting for setting in answer["settings"]}


def test_the_page_marks_what_differs_from_the_preset(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state), rank=3, flip=True)
    preset = fake_workers.embedded_preset(Preset.QUICK)
    panel = panel_of(client.get(f"/runs/{run.key}").text)
    assert "4 settings differ from the preset “Quick look”." in panel
    changed, _, everything = panel.partition("<details")
    row = '<dt>Rank</dt><dd dir="auto">3 <span class="changed-mark">preset: '
    assert f"{row}{preset.rank}" in changed
    assert "<dt>Alpha</dt>" not in changed
    assert "<dt>Alpha</dt>" in everything
    count = len(TrainConfig.model_fields) - len(BaseFamily.SD1.facts.options.hidden)
    assert f"All {count} settings" in panel
    marked = '<dt>Horizontal flip</dt><dd dir="auto">on <span class="changed-mark">preset: off'
    assert f"<div data-changed>{marked}" in panel
    for title in ("Length", "Optimization", "Speed and memory", "Samples"):
        assert f'<h3 class="hint">{title}</h3>' in panel


def test_a_run_of_an_earlier_release_does_not_differ_for_lack_of_an_evaluation(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state, pictures=24))
    with state.database.write() as session:
        row = session.get_one(Run, run.key)
        row.config = {name: value for name, value in run.config.items() if name != "evaluate"}
        row.config = row.config | {"validation_share": 0.0}
    found = settings_of(client, run.key)
    assert {name for name, row in found.items() if row["changed"]} == {"steps", "sample_prompts"}
    assert (found["evaluate"]["value"], found["evaluate"]["changed"]) == (False, False)


def test_the_copied_json_trains_the_same_again(client: TestClient, state: AppState) -> None:
    prompt = 'a "castle" <b>&amp;'
    run = fake_workers.queued_run(state, fake_workers.dataset(state), sample_prompts=[prompt])
    page = client.get(f"/runs/{run.key}").text
    copied = json.loads(html.unescape(re.search(r'data-copy="(\{[^"]*)"', page)[1]))  # type: ignore[index]
    request = client.get(f"/api/v1/runs/{run.key}/settings").json()["request"]
    assert copied == run.config == request["config"]
    body = {"dataset_id": run.dataset_id, "config": copied}
    again = client.post("/api/v1/runs", json=body).json()["id"]
    assert client.get(f"/api/v1/runs/{again}").json()["config"] == run.config


def test_the_api_gives_each_setting_with_that_of_the_preset(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state), optimizer="prodigy")
    found = settings_of(client, run.key)
    assert found["optimizer"] == {
        "name": "optimizer",
        "label": "Optimizer",
        "group": "learning",
        "value": "prodigy",
        "words": "Prodigy",
        "preset": "adamw",
        "preset_words": "AdamW",
        "changed": True,
    }
    assert not found["learning_rate"]["changed"]  # 1.0 goes with the optimizer
    assert client.get("/api/v1/runs/99/settings").status_code == 404


def test_settings_of_other_versions_and_without_a_preset_are_shown(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    with state.database.write() as session:
        row = session.get_one(Run, run.key)
        row.config = {"rank": 3, "of_the_future": [1, True]}
        session.add(row)
    found = settings_of(client, run.key)
    assert (found["of_the_future"]["words"], found["of_the_future"]["group"]) == ("1\non", None)
    assert found["alpha"]["value"] == TrainConfig().alpha
    assert "Of another version of Brushwork" in panel_of(client.get(f"/runs/{run.key}").text)
    with state.database.write() as session:
        session.get_one(Run, run.key).preset = None
    assert not any(setting["changed"] for setting in settings_of(client, run.key).values())
    assert "the preset" not in panel_of(client.get(f"/runs/{run.key}").text)


def test_numbers_are_written_without_exponents() -> None:
    words = [setting_words(value) for value in (1e-5, 0.0015, 1.0, 20_000, None, "", [])]
    assert words == ["0.00001", "0.0015", "1", "20,000", "not set", "not set", "not set"]


def test_a_setting_that_one_config_lacks_has_its_default() -> None:
    (found,) = config_differences({"rank": 4, "flip": False}, {"rank": 8})
    assert (found.name, found.a_words, found.b_words) == ("rank", "4", "8")
