"""Two runs side by side, on a page with an address of its own and in the API."""

from __future__ import annotations

import html

import pytest
from fastapi.testclient import TestClient

from app.registry.comparison.side_by_side import pair_samples
from app.registry.datasets import service as datasets
from app.registry.deletion import runs as deletion
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run, Sample
from tests import fake_workers
from tests.fake_workers import FakeTraining

HTML = {"accept": "text/html"}


@pytest.fixture
def runs(state: AppState) -> tuple[int, int]:
    """A finished run and one that trains, of another rank, on one caption more."""
    dataset = fake_workers.dataset(state)
    first = fake_workers.queued_run(state, dataset)
    training = FakeTraining(state)
    training.train(20)
    training.sample(10)
    training.sample(20)
    training.finish()
    with state.database.write() as session:
        image = datasets.list_images(session, dataset.key)[0]
        datasets.caption_image(session, image.key, "a wolf")
    second = fake_workers.queued_run(state, dataset, rank=3, sample_prompts=["a <i>castle"])
    training = FakeTraining(state)
    training.train(10)
    training.sample(10, ["a castle", "a rocket at night", "a frog"])
    return first.key, second.key


def page_of(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers=HTML)
    assert answer.status_code == status
    return " ".join(html.unescape(answer.text).split())


def test_the_page_leads_with_the_settings_that_differ(
    client: TestClient, runs: tuple[int, int]
) -> None:
    page = page_of(client, "/runs/compare?a=1&b=2")
    assert page.index("Settings</h2>") < page.index("Results</h2>")
    assert '<th scope="row">Rank</th><td dir="auto">4</td><td dir="auto">3</td>' in page
    assert "a &lt;i&gt;castle" in client.get("/runs/compare?a=1&b=2").text
    assert '<th scope="row">Alpha</th>' not in page
    assert '<th scope="row">Steps trained</th><td dir="auto">20</td><td dir="auto">10</td>' in page
    assert '<th scope="row">Epochs</th><td dir="auto">53.3</td><td dir="auto">26.7</td>' in page
    assert '<th scope="row">Steps per second</th><td dir="auto">4.0</td>' in page  # as on its page
    assert '<th scope="row">State</th><td dir="auto">has finished</td>' in page
    assert "Between run 1 and run 2 the dataset changed: 1 caption changed." in page
    assert "base models" not in page


def test_samples_meet_by_prompt_then_by_place(client: TestClient, runs: tuple[int, int]) -> None:
    found = client.get("/api/v1/runs/compare?a=1&b=2").json()
    pairs = [(row["caption"], bool(row["a_url"]), bool(row["b_url"])) for row in found["samples"]]
    assert pairs == [
        ("a castle, seed 0", True, True),
        ("a rocket, seed 1 / a rocket at night, seed 1", True, True),
        ("a frog, seed 2", False, True),
    ]
    page = page_of(client, "/runs/compare?a=1&b=2")
    assert page.count("Run 1, step 20") >= 2  # the newest
    assert page.count("data-comparison-slider") == 2


def test_equal_prompts_with_equal_seeds_meet_one_by_one() -> None:
    first, second = (
        [
            Sample(run_id=run, step=1, prompt_index=place, prompt="a fox", seed=0, sha256="")
            for place in range(2)
        ]
        for run in (1, 2)
    )
    pairs = pair_samples(first, second)
    assert [(pair.a, pair.b) for pair in pairs] == list(zip(first, second, strict=True))


def test_the_api_has_all_figures_and_only_settings_that_differ(
    client: TestClient, runs: tuple[int, int]
) -> None:
    found = client.get("/api/v1/runs/compare?a=1&b=2").json()
    assert [row["name"] for row in found["settings"]] == ["rank", "sample_prompts"]
    results = {row["name"]: (row["a"], row["b"]) for row in found["results"]}
    assert results["step"] == (20, 10)
    assert results["adapter"] == ("Chalk", None)
    assert results["held_out"] == (None, None)
    data = {row["name"]: (row["a"], row["b"]) for row in found["data"]}
    assert data["dataset"] == ("Chalk", "Chalk")
    assert client.get("/api/v1/runs/compare?a=1").status_code == 422
    missing = client.get("/api/v1/runs/compare?a=1&b=77")
    assert missing.status_code == 404
    assert missing.json()["detail"].startswith("Run 77 does not exist")


def test_a_run_that_was_not_named_is_chosen(client: TestClient, runs: tuple[int, int]) -> None:
    link = 'href="/runs/compare?b=2">Compare with another run</a>'
    assert link in page_of(client, "/runs/2")
    for query in ("?b=2", "?a=1", ""):
        page = page_of(client, f"/runs/compare{query}")
        assert "<title>Compare runs 1 and 2" in page
    assert "Both are the same run." in page_of(client, "/runs/compare?a=2&b=2")


def test_a_deleted_run_is_named_and_others_can_be_chosen(
    client: TestClient, state: AppState, runs: tuple[int, int]
) -> None:
    with state.database.write() as session:
        deletion.delete_run(session, 1)
    page = page_of(client, "/runs/compare?a=1&b=2", 404)
    assert "Run 1 does not exist; it may have been deleted. Choose another one." in page
    assert '<option value="2" selected>2: Chalk</option>' in page
    page = page_of(client, "/runs/compare?b=2")
    assert "There is no other run to compare with yet." in page
    assert page_of(client, "/runs/compare").count("<option") == 0


def test_runs_on_other_bases_and_without_samples_are_compared(
    client: TestClient, state: AppState, runs: tuple[int, int]
) -> None:
    third = fake_workers.queued_run(state, fake_workers.dataset(state, name="Ink")).key
    with state.database.write() as session:
        other = BaseModel(slug="other", name="Other base", source="other")
        session.add(other)
        session.flush()
        session.get_one(Run, third).base_model_id = other.key
    page = page_of(client, f"/runs/compare?a=1&b={third}")
    assert "They were trained on different base models" in page
    assert "All settings are equal." in page
    assert "Samples are compared when both runs have some." in page
    assert "the dataset changed" not in page
