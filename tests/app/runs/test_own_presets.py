"""Presets of one's own: saved from a run, listed on the form and in the API, renamed, deleted."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.registry.runs import own_presets
from app.registry.runs.presets import with_changes
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.runs.test_pages import form_of, runs_of
from worker.core.training.config import Optimizer, TrainConfig
from worker.core.training.presets import Preset

API = "/api/v1/presets"


@pytest.fixture
def run(state: AppState) -> Run:
    """A run of the quick preset with rank 3 and other steps and prompts."""
    return fake_workers.queued_run(state, fake_workers.dataset(state), rank=3)


def save(client: TestClient, name: str = "Soft", **body: object) -> int:
    answer = client.post(API, json={"name": name, "run_id": 1} | body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def page_of(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == status
    return " ".join(html.unescape(answer.text).split())


def test_a_run_is_saved_as_a_preset_and_stands_on_the_form(client: TestClient, run: Run) -> None:
    page = page_of(client, f"/runs/{run.key}/preset")
    assert "2 changes. All other settings follow the preset “Quick look”" in page
    answer = client.post(f"/runs/{run.key}/preset", data={"name": "  Soft \n <b>edge "})
    assert "“Soft <b>edge” was saved." in html.unescape(answer.text)
    page = page_of(client, "/train/presets")
    assert "Quick look with 2 changes, saved for SD 1.x, 128 px." in page
    assert '<dt>Rank</dt><dd dir="auto">3</dd>' in page
    assert "Sample prompts" not in page
    form = client.get("/train/new?preset=own-1").text
    assert "Soft &lt;b&gt;edge" in form
    fields = form_of(form)
    assert (fields["preset"], fields["rank"], fields["steps"]) == ("own-1", "3", "40")
    assert "preset values" in form  # nothing is changed


def test_the_settings_of_the_form_are_saved_and_stay_as_they_were(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    shown = form_of(client.get("/train/new?preset=quick").text)
    typed = shown | {"rank": "3", "flip": "on", "name": "Mine", "sample_prompts": "a fox"}
    answer = client.post("/train/new/preset", data=typed | {"preset_name": " Soft\n"})
    page = html.unescape(answer.text)
    assert answer.status_code == 200
    assert "“<bdi>Soft</bdi>” was saved and is chosen." in page
    form = form_of(answer.text)
    assert form["preset"] == "own-1"
    for name in ("rank", "flip", "name", "sample_prompts"):
        assert form[name] == typed[name]
    assert form["preset_name"] == ""
    assert "0 changed" not in page
    assert "preset values" in page
    (saved,) = [row for row in client.get(API).json() if row["id"]]
    assert (saved["preset"], saved["config"]) == ("quick", {"rank": 3, "flip": True})
    assert (saved["base_family"], saved["resolution"]) == ("sd1", 128)
    further = client.post("/train/new/preset", data=form | {"steps": "9", "preset_name": "Short"})
    assert form_of(further.text)["preset"] == "own-2"
    (short,) = [row for row in client.get(API).json() if row["id"] == 2]
    assert short["preset"] == "quick"
    assert short["config"] == {"rank": 3, "flip": True, "steps": 9}
    assert client.post("/train/new", data=form_of(further.text)).status_code == 200
    assert runs_of(state)[0].config["rank"] == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset_name": " "}, "Enter a name."),
        ({"preset_name": "x" * 121}, "This has 121 characters; use at most 120."),
        ({"preset_name": "Quick look"}, "There is a preset called “Quick look” already."),
        ({"preset_name": "Soft", "rank": "many"}, "Enter a whole number."),
        ({"preset_name": "Soft", "rank": ""}, "Nothing differs from the preset “Quick look”"),
    ],
)
def test_a_preset_of_the_form_that_cannot_be_saved_says_why_and_loses_nothing(
    client: TestClient, state: AppState, changes: dict[str, str], sentence: str
) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    shown = form_of(client.get("/train/new?preset=quick").text)
    rank = changes.get("rank", "3") or shown["rank"]
    sent = shown | changes | {"rank": rank, "name": "Mine", "pasted": "{"}
    answer = client.post("/train/new/preset", data=sent)
    page = " ".join(html.unescape(answer.text).split())
    assert answer.status_code == 422
    assert "<strong>The preset was not saved.</strong>" in page
    assert sentence in page
    form = form_of(answer.text)
    assert {name: form[name] for name in sent if name != "kept"} == {
        name: value for name, value in sent.items() if name != "kept"
    }
    assert [row for row in client.get(API).json() if row["id"]] == []


def test_start_does_not_ignore_the_name_of_a_preset(client: TestClient, state: AppState) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    shown = form_of(client.get("/train/new").text)
    answer = client.post("/train/new", data=shown | {"preset_name": "Soft"})
    assert answer.status_code == 422
    assert "This preset was not saved yet." in answer.text
    assert form_of(answer.text)["preset_name"] == "Soft"
    assert runs_of(state) == []
    address = client.get("/train/new/preset", follow_redirects=False).headers["location"]
    assert address == "/train/new"


def test_a_run_trains_with_it_and_remembers_it(
    client: TestClient, state: AppState, run: Run
) -> None:
    key = save(client)
    form = form_of(client.get(f"/train/new?preset=own-{key}").text)
    client.post("/train/new", data=form | {"flip": "on"})
    made = runs_of(state)[0]
    page = client.get(f"/train/new?from={made.key}").text
    assert form_of(page)["preset"] == f"own-{key}"
    assert "1 changed" in page
    balanced = form_of(page) | {"preset": "balanced"}
    plan = client.post("/train/new/plan?part=fields", data=balanced).text
    steps = fake_workers.embedded_preset(Preset.BALANCED).steps
    assert f"<dt>Steps</dt><dd>{steps:,}</dd>" in plan
    client.delete(f"{API}/{key}")
    assert (made.preset, made.config["rank"], made.total_steps) == ("quick", 3, 40)
    assert made.config["sample_prompts"][0] == "castle, chalkboard style"
    page = page_of(client, f"/runs/{made.key}")
    assert "1 setting differs from the preset “Soft”." in page
    assert "<bdi>Soft</bdi> on starter" in page
    found = client.get(f"/api/v1/runs/{made.key}").json()
    assert (found["preset"], found["own_preset"]["name"]) == ("quick", "Soft")
    again = form_of(client.get(f"/train/new?from={made.key}").text)
    assert (again["preset"], again["rank"]) == ("quick", "3")  # it was deleted


def test_the_api_lists_saves_renames_and_deletes(client: TestClient, run: Run) -> None:
    key = save(client)
    other = client.post(API, json={"name": "Deep", "preset": "thorough", "config": {"rank": 64}})
    assert other.json()["config"] == {"rank": 64}
    names = [row["name"] for row in client.get(API).json()]
    assert names == ["Quick look", "Balanced", "Thorough", "Deep", "Soft"]
    assert client.patch(f"{API}/{key}", json={"name": "Softer"}).json()["name"] == "Softer"
    started = client.post("/api/v1/runs", json={"dataset_id": run.dataset_id, "preset": key})
    assert started.status_code == 202
    config = client.get(f"/api/v1/runs/{started.json()['id']}").json()["config"]
    assert (config["rank"], config["steps"]) == (3, 40)
    deleted = client.delete(f"{API}/{key}").json()
    assert deleted["freed_bytes"] == 0
    for gone in (client.delete(f"{API}/{key}"), client.patch(f"{API}/{key}", json={"name": "x"})):
        assert gone.status_code == 404
    refused = client.post("/api/v1/runs", json={"dataset_id": run.dataset_id, "preset": key})
    assert refused.json()["errors"][0]["field"] == "preset"
    assert "it may have been deleted" in refused.json()["detail"]
    again = client.post(API, json={"name": "Softer", "config": {"rank": 5}}).json()["id"]
    taken = client.post(deleted["restore"])
    assert (taken.status_code, taken.json()["errors"][0]["field"]) == (422, "name")
    client.delete(f"{API}/{again}")
    for _ in range(2):  # restoring twice is no error
        assert client.post(deleted["restore"]).json()["name"] == "Softer"
    assert client.get(deleted["forever"]).status_code == 409
    client.delete(f"{API}/{key}")
    listed = client.get("/api/v1/storage/deleted?kind=presets").json()
    assert [row["name"] for row in listed] == ["Softer", "Softer"]
    assert client.delete(deleted["forever"]).json()["title"] == "the preset “Softer”"
    assert client.post(deleted["restore"]).status_code == 404


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"name": "soft"}, "name", "There is a preset called “soft” already."),
        ({"name": "Quick  Look"}, "name", "There is a preset called “Quick Look” already."),
        ({"name": "balanced"}, "name", "already"),
        ({"name": " \x07\n"}, "name", "Enter a name."),
        ({"name": "x" * 121}, "name", "This has 121 characters; use at most 120."),
        ({"run_id": None, "config": {}}, "config", "there is nothing to save"),
        ({"run_id": None, "config": {"rank": 0}}, "rank", "At least 1."),
        ({"run_id": None, "config": {"rnak": 1}}, "rnak", "no setting with this name"),
        ({"run_id": None, "config": {"sample_prompts": ["x"]}}, "sample_prompts", "dataset"),
        ({"config": {"rank": 1}}, "body", "Give either run_id or config."),
    ],
)
def test_a_wrong_preset_names_its_field(
    client: TestClient, run: Run, body: dict[str, object], field: str, sentence: str
) -> None:
    save(client)
    answer = client.post(API, json={"name": "New", "run_id": 1} | body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert sentence in error["detail"]
    assert len(client.get(API).json()) == 4


def test_names_of_120_characters_fit_and_errors_keep_what_was_typed(
    client: TestClient, run: Run
) -> None:
    first, second = save(client, "Ä" * 120), save(client)
    assert f'value="{"ß" * 121}"' in client.post("/runs/1/preset", data={"name": "ß" * 121}).text
    answer = client.post(f"/train/presets/{second}/rename", data={"name": "ä" * 120})
    assert answer.status_code == 422
    assert "There is a preset called" in answer.text
    assert f'value="{"ä" * 120}"' in answer.text
    answer = client.post(f"/train/presets/{first}/rename", data={"name": "ä" * 120})
    assert answer.status_code == 200  # its own name
    client.post(f"/presets/{first}/delete?back=/train/presets")
    assert len(client.get(API).json()) == 4
    gone = client.post(
        f"/presets/{first}/delete?back=/train/presets", headers={"accept": "text/html"}
    )
    assert gone.status_code == 404


def test_the_number_of_presets_is_limited(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_presets, "MAX_PRESETS", 1)
    save(client)
    answer = client.post(API, json={"name": "New", "run_id": 1})
    assert "Delete one first." in answer.json()["detail"]


def test_a_preset_of_another_base_warns(
    client: TestClient, state: AppState, run: Run, tmp_path: Path
) -> None:
    key = save(client)
    with state.database.write() as session:
        large = BaseModel(slug="xl", name="Large", source=str(tmp_path), status="ready")
        large.family, large.resolution = "sdxl", 1024
        session.add(large)
    note = (
        "The preset “Soft” was saved for SD 1.x, 128 px, and “Large” is SDXL, 1024 px. Check what "
        "it changes."
    )
    assert note in page_of(client, f"/train/new?preset=own-{key}&base=xl")
    assert note not in page_of(client, f"/train/new?preset=own-{key}")
    body = {"dataset_id": run.dataset_id, "preset": key, "base_model": "xl"}
    answer = client.post("/api/v1/runs", json=body).json()
    assert answer["warnings"][-1] == note
    config = client.get(f"/api/v1/runs/{answer['id']}").json()["config"]
    assert (config["rank"], config["gradient_checkpointing"]) == (3, True)


def test_a_preset_deleted_while_the_form_is_open_says_so(client: TestClient, run: Run) -> None:
    key = save(client)
    form = form_of(client.get(f"/train/new?preset=own-{key}").text) | {"name": "Mine", "alpha": "2"}
    client.delete(f"{API}/{key}")
    answer = client.post("/train/new", data=form)
    assert answer.status_code == 422
    assert 'href="#preset"' in answer.text
    assert "This preset does not exist; it may have been deleted." in answer.text
    assert (form_of(answer.text)["name"], form_of(answer.text)["alpha"]) == ("Mine", "2")


def test_a_run_without_changes_has_nothing_to_save(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    client.post("/api/v1/runs", json={"dataset_id": 1, "preset": "quick"})
    assert "Nothing to save" in page_of(client, "/runs/1/preset")
    assert "No presets yet" in page_of(client, "/train/presets")


def test_another_optimizer_leaves_out_what_belongs_to_the_saved_one() -> None:
    own = {"optimizer": "prodigy", "learning_rate": 0.5, "rank": 3, "gone": 1, "alpha": -1}
    preset = TrainConfig(learning_rate=2e-3)
    saved = with_changes(preset, own)
    assert (saved.optimizer, saved.learning_rate, saved.rank) == (Optimizer.PRODIGY, 0.5, 3)
    assert saved.alpha == preset.alpha
    other = with_changes(preset, own, "adamw")
    assert (other.optimizer, other.learning_rate, other.rank) == (Optimizer.ADAMW, 2e-3, 3)
    assert with_changes(preset, {}, []) == preset
    assert with_changes(preset, {"learning_rate": 1e-3}, "prodigy").learning_rate == 1.0


def test_presets_stay_what_they_are_without_changes() -> None:
    preset = fake_workers.embedded_preset(Preset.QUICK)
    assert with_changes(preset, {}, "adamw") == preset
