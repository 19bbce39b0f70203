"""Settings pasted as JSON into the form of a new run: checked, and nothing else is lost."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from app.web.forms import MAX_TEXT
from app.web.runs.pasted import read_pasted
from tests import fake_workers
from tests.app.runs.test_pages import form_of, runs_of
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset


@pytest.fixture
def shown(client: TestClient, state: AppState) -> dict[str, str]:
    """The form as a person filled it in."""
    fake_workers.dataset(state)
    form = form_of(client.get("/train/new?preset=quick").text)
    return form | {"name": "Mine", "caption_dropout": "0.2"}


def paste(client: TestClient, form: dict[str, str], text: str, status: int = 200) -> str:
    answer = client.post("/train/new/paste", data=form | {"pasted": text})
    assert answer.status_code == status
    return answer.text


def test_pasted_settings_fill_the_form_and_leave_the_rest(
    client: TestClient, state: AppState, shown: dict[str, str]
) -> None:
    page = paste(client, shown, '{"rank": 3, "flip": true, "sample_prompts": ["a", "b"]}')
    assert "3 settings were filled in. The rest of the form stays as it was." in page
    form = form_of(page)
    assert (form["rank"], form["flip"], form["sample_prompts"]) == ("3", "on", "a\nb")
    assert (form["name"], form["caption_dropout"], form["pasted"]) == ("Mine", "0.2", "")
    assert runs_of(state) == []
    client.post("/train/new", data=form)
    config = runs_of(state)[0].config
    assert (config["rank"], config["caption_dropout"]) == (3, 0.2)
    assert config["alpha"] == fake_workers.embedded_preset(Preset.QUICK).alpha


def test_a_run_is_pasted_with_its_preset(client: TestClient, shown: dict[str, str]) -> None:
    run = {"preset": "thorough", "config": {"steps": 77}, "status": "succeeded"}
    form = form_of(paste(client, shown, json.dumps(run)))
    preset = fake_workers.embedded_preset(Preset.THOROUGH)
    assert (form["preset"], form["steps"]) == ("thorough", "77")
    assert (form["rank"], form["caption_dropout"]) == (str(preset.rank), "0.2")


def test_wrong_and_unknown_settings_are_named_and_the_others_used(
    client: TestClient, shown: dict[str, str]
) -> None:
    text = '{"rnak": 3, "rank": "many", "alpha": 2, "<b>": 1, "batch_size": 0}'
    page = html.unescape(paste(client, shown, text))
    assert "1 setting was filled in." in page
    assert "rnak</code>: There is no setting with this name. Did you mean “rank”?" in page
    assert "rank</code>: Enter a whole number." in page
    assert "batch_size</code>: At least 1." in page
    assert '<code dir="auto"><b></code>: There is no setting' in page
    form = form_of(paste(client, shown, text))
    assert (form["alpha"], form["rank"]) == ("2", shown["rank"])
    assert form["pasted"] == text  # to be corrected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Paste settings first."),
        ('{"rank": 3, "alph', "This is not JSON. The text ends too early; copy all of it."),
        ("{'rank': 3}", "This is not JSON. Look at line 1, character 2."),
        ("[1, 2]", "This must be a JSON object of settings"),
        ('{"alpha": NaN}', "NaN is no number that a setting can have."),
        ("[" * 50_000, "This is nested too deeply to be settings."),
        ('{"rank": ' + "1" * 4301 + "}", "A number in this has too many digits to be a setting."),
        ('{"rank": ' + "1" * 4300 + "}", "None of these settings can be used."),
        ("{}", "It has no settings."),
        ('{"no": 1, "such": 2}', "None of these settings can be used."),
        ("x" * 1_000_000, "This has 1,000,000 characters; use at most 100,000."),
        ('{"licence": 1, "license": 2}', "“licence” is the old name of “license”."),
    ],
)
def test_what_is_no_settings_says_so_and_loses_nothing(
    client: TestClient, shown: dict[str, str], text: str, sentence: str
) -> None:
    page = paste(client, shown, text, 422)
    assert sentence in html.unescape(page)
    form = form_of(page)
    own = {name: form[name] for name in ("pasted", "kept")}  # what the form says of itself
    assert {name: form[name] for name in shown} == shown | own
    assert form["pasted"] == (text if len(text) <= MAX_TEXT else "")


def test_start_does_not_ignore_settings_that_were_pasted(
    client: TestClient, state: AppState, shown: dict[str, str]
) -> None:
    answer = client.post("/train/new", data=shown | {"pasted": '{"rank": 3}'})
    assert answer.status_code == 422
    assert "These settings were not used yet." in answer.text
    form = form_of(answer.text)
    assert (form["pasted"], form["caption_dropout"]) == ('{"rank": 3}', "0.2")
    assert runs_of(state) == []
    assert client.post("/train/new", data=shown | {"pasted": "x" * 900_000}).status_code == 422
    address = client.get("/train/new/paste", follow_redirects=False).headers["location"]
    assert address == "/train/new"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"optimizer": "adamw_schedule_free"}, {"optimizer": "adamw_schedule_free"}),
        ({"regularisation_weight": 2}, {"regularization_weight": "2"}),
        ({"optimizer": "prodigy", "lora_plus_ratio": 4}, {"optimizer": "prodigy"}),
        ({"config": {"rank": "8"}}, {"rank": "8"}),
        ({"rank": 2, "config": "x"}, {"rank": "2"}),
    ],
)
def test_settings_are_checked_together(given: dict[str, Any], used: dict[str, str]) -> None:
    assert read_pasted(json.dumps(given)).used == used


def test_a_copy_of_all_settings_is_used_as_a_whole() -> None:
    config = TrainConfig(steps=7, learning_rate=1e-5, sample_prompts=["a --d 3"])
    found = read_pasted(json.dumps(config.model_dump(mode="json"), indent=2))
    assert found.refused == {}
    assert len(found.used) == len(TrainConfig.model_fields)
    assert found.used["learning_rate"] == "0.00001"


def test_a_thousand_wrong_settings_are_counted() -> None:
    found = read_pasted(json.dumps({f"{'x' * 200}{number}": 1 for number in range(300)}))
    assert (len(found.named), found.more) == (20, 280)
    assert max(len(name) for name, _ in found.named) == 80


def test_a_text_that_is_too_long_names_its_field_and_nothing_is_lost(
    client: TestClient, state: AppState, shown: dict[str, str]
) -> None:
    typed = shown | {"name": "x" * 1_000_000}
    answer = client.post("/train/new", data=typed)
    assert (answer.status_code, runs_of(state)) == (422, [])
    assert "This has 1,000,000 characters; use at most 120." in answer.text
    assert 'id="name-error"' in answer.text
    form = form_of(answer.text)
    assert {name: form[name] for name in typed} == typed | {"kept": form["kept"]}
