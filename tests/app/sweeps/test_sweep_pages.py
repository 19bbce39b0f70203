"""Pages of sweeps: from two runs over the cost to a winner, and to no difference."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.state import AppState
from app.registry.sweeps import service
from tests import fake_sweeps, fake_workers
from tests.app.runs.test_pages import form_of
from tests.app.sweeps.test_sweeps import clear, equal
from tests.fake_workers import FakeTraining

FORM = {"a": "1", "seeds": "2", "title": "", "setting_0": "rank", "values_0": "2, 4, 8"}


@pytest.fixture
def run(state: AppState) -> int:
    """A run that ended, on images of a style."""
    fake_workers.measured_base(state)
    images = fake_sweeps.images_of_style(state)
    fake_workers.queued_run(state, images)
    training = FakeTraining(state)
    training.train(40)
    training.finish()
    return training.run_id


def text(client: TestClient, address: str) -> str:
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return html.unescape(answer.text)


def start(client: TestClient) -> str:
    answer = client.post("/sweeps/new", data=FORM | {"act": "start"}, follow_redirects=False)
    assert answer.status_code == 303
    return answer.headers["location"]


def test_a_sweep_is_planned_started_and_names_its_winner(
    client: TestClient, state: AppState, run: int
) -> None:
    assert f'href="/sweeps/new?a={run}"' in text(client, f"/runs/{run}")
    assert "What does it cost?" in text(client, f"/sweeps/new?a={run}")
    planned = html.unescape(client.post("/sweeps/new", data=FORM | {"act": "estimate"}).text)
    assert "Rank of Linocut" in planned
    assert "6 runs, " in planned
    assert "rank 2; rank 4; rank 8" in planned
    address = start(client)
    page = text(client, address)
    assert "All train to half of their steps." in page
    assert f'action="{address}/pause"' in page
    assert "Rank of Linocut" in text(client, "/runs")
    client.post(f"{address}/pause")
    assert f'action="{address}/resume"' in text(client, address)
    client.post(f"{address}/resume")
    fake_sweeps.run_to_the_end(state, clear)
    page = text(client, address)
    assert 'class="evaluation-step">Rank 8 wins.</h2>' in page
    assert "0.31 more style than rank 4" in page
    assert "ended at 20" in page
    assert re.search('aria-current="[a-z]+" data-shortcut="[^"]+">.*?</svg>Training</a>', page)
    (blind,) = re.findall('href="(/blind-tests/new[^"]+)"', page)
    assert text(client, blind).count("Step 40") >= 2
    assert "/storage/forever/sweeps/1/others" in page
    assert "Part of a sweep." in text(client, f"/runs/{run + 1}")
    assert "part of a sweep" in text(client, "/runs?sweep=1")
    assert "its adapter was deleted" not in text(client, "/runs?sweep=1")
    used = client.post(f"{address}/use", follow_redirects=False)
    assert "Version 1 of “Linocut” is in use now" in text(client, used.headers["location"])
    (preset,) = re.findall('href="(/runs/[0-9]+/preset)"', page)
    assert "Seed" not in text(client, preset).partition("<main")[2]
    assert "but those of rank 8" in text(client, "/storage/forever/sweeps/1/others")
    client.post("/storage/forever/sweeps/1/others")
    assert "deleted</span>" in text(client, address)
    client.post(f"{address}/delete?back=/runs")
    assert "Rank of Linocut" in text(client, "/storage/deleted?kind=sweeps")
    client.post(f"{address}/restore")
    assert "wins." in text(client, address)
    assert "Rank of Linocut: " not in text(client, "/grids")
    assert "Rank of Linocut: confirm" in text(client, "/grids/3")
    assert "belongs to a blind test or a sweep" in client.delete("/api/v1/grids/3").text
    client.post(f"{address}/delete?back=/runs")
    assert "3 grids" in text(client, "/storage/forever/sweeps/1")
    client.post("/storage/forever/sweeps/1")
    assert client.get("/grids/3").status_code == 404


def test_no_difference_is_as_complete_as_a_winner(
    client: TestClient, state: AppState, run: int
) -> None:
    address = start(client)
    fake_sweeps.run_to_the_end(state, equal)
    page = text(client, f"{address}?seed=1")
    assert "No difference found at this cost.</h2>" in page
    assert ">not told apart<" in page
    assert "no images, 0" in page
    assert "Use the cheapest" in page
    more = page.partition('name="count" value="')[2].partition('"')[0]
    client.post(f"{address}/seeds", data={"count": more})
    assert "These train to the end." in text(client, address)
    client.post(f"{address}/cancel")
    assert "Not finished" in text(client, address)


def test_a_sweep_starts_from_the_form_of_a_new_run(client: TestClient, state: AppState) -> None:
    fake_workers.measured_base(state)
    fake_sweeps.images_of_style(state)
    typed = form_of(client.get("/train/new?dataset=1&preset=quick").text) | {"sweep": "1"}
    typed |= {"steps": "40", "name": "Ink", "sample_prompts": "a castle\na dog", "seed": "7"}
    refused = client.post("/train/new", data=typed | {"alpha": "x"})
    assert "This run was not started." in refused.text
    page = client.post("/train/new", data=typed).text
    assert "All share the settings of the form" in page
    asked = form_of(page, "sweep-form") | {"setting_0": "rank", "values_0": "2, 4", "seeds": "2"}
    back = form_of(client.post("/train/new/datasets", data=asked).text)
    kept = ("name", "steps", "sample_prompts", "seed")
    assert [back[name] for name in kept] == [typed[name] for name in kept]
    assert client.post("/sweeps/new", data=asked | {"alpha": "x"}).status_code == 422
    planned = client.post("/sweeps/new", data=asked).text
    assert "Rank of Ink</strong>: 4 runs" in planned
    asked = form_of(planned, "sweep-form") | {"act": "start"}
    answer = client.post("/sweeps/new", data=asked, follow_redirects=False)
    assert answer.headers["location"] == "/sweeps/1"
    with state.database.read() as session:
        configs = [run.config for run in service.runs_of(session, service.get_sweep(session, 1))]
    assert [(one["rank"], one["seed"], one["steps"]) for one in configs] == [
        (rank, seed, 40) for seed in (7, 8) for rank in (2, 4)
    ]
    assert configs[0]["sample_prompts"] == ["a castle", "a dog"]
    assert client.get("/sweeps/new", follow_redirects=False).headers["location"] == "/train/new"


def test_a_form_says_what_cannot_be_compared(client: TestClient, run: int) -> None:
    for changes, says in (
        ({"values_0": "4, 9999"}, "256 at most"),
        ({"values_0": ""}, "no values"),
        ({"seeds": "1"}, "2 to 16"),
        ({"setting_0": "sample_seed"}, "cannot differ"),
        ({"values_0": "x" * 100_000}, "one configuration"),
    ):
        answer = client.post("/sweeps/new", data=FORM | changes | {"act": "start"})
        assert answer.status_code == 422
        assert says in html.unescape(answer.text)
    assert "differ in no setting" in text(client, f"/sweeps/new?a={run}&b={run}")
    assert client.get("/sweeps/new?a=99").status_code == 404
    assert client.get("/sweeps/99").status_code == 404
