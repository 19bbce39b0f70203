"""The page that lists runs, as a browser without scripts gets it."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.db import utcnow
from app.registry.runs.changing import change_description
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import Run
from tests import fake_sweeps, fake_workers

LONG = "Long name " * 12


def links_of(page: str) -> set[str]:
    return {html.unescape(href) for href in re.findall(r'href="([^"]+)"', page)}


@pytest.fixture
def runs(state: AppState) -> list[int]:
    """A finished run, a failed one with notes, and two that wait, of two datasets."""
    adapter = fake_workers.adapter(state)
    of = fake_workers.dataset(state, "Ink & <wash>")
    fake_workers.queued_run(state, of)
    fake_workers.FakeTraining(state).fail("diverged", "The loss is NaN.")
    for _ in range(2):
        fake_workers.queued_run(state, of)
    with state.database.write() as session:
        change_description(session, 2, name=LONG[:120], notes="Too <b>fast</b>.")
        adapters.delete_adapter(session, adapter.key)
        session.get_one(Dataset, 1).deleted_at = utcnow()
        session.get_one(Run, 1).loss = 0.1234
    return [1, 2, 3, 4]


def test_the_list_filters_by_state(client: TestClient, state: AppState) -> None:
    assert "No runs yet" in client.get("/runs").text
    of = fake_workers.dataset(state)
    first = fake_workers.queued_run(state, of)
    fake_workers.queued_run(state, of)
    client.post(f"/runs/{first.key}/cancel")
    page = client.get("/runs").text
    for chip in ("All 2", "Waiting 1", "Canceled 1"):
        assert chip in page
    waiting = client.get("/runs?status=queued").text
    assert f'href="/runs/{first.key}"' not in waiting
    nonsense = "/runs?status=nonsense&page=9&sort=x&dataset=x&base=0&adapter=99999999999"
    assert "2 runs. " in client.get(nonsense).text  # the last page of the whole list


def test_a_row_says_what_a_run_is_about(client: TestClient, runs: list[int]) -> None:
    page = client.get("/runs").text
    rows = page.split("<tr>")[2:]
    assert len(rows) == len(runs)
    assert "Place 2 of 2 in the queue" in rows[0]
    assert "Next in the queue" in rows[1]
    assert "No samples yet" in rows[1]
    assert LONG[:120].strip() in rows[2]
    assert "Too &lt;b&gt;fast&lt;/b&gt;." in rows[2]
    assert "Ink &amp; &lt;wash&gt;" in rows[2]
    assert rows[3].count("<img") == 2
    assert "Step 40" in rows[3]
    assert "Quick, rank 4, learning rate 0.002" in rows[3]
    assert "40 of 40 steps, loss 0.123" in rows[3]
    for words in ("Chalk (deleted)", "starter", "version 1"):
        assert words in re.sub("<[^>]+>", "", rows[3]), words
    assert 'href="/adapters/' not in rows[3]


def test_links_keep_the_filters_and_one_clears_them(client: TestClient, runs: list[int]) -> None:
    page = client.get("/runs?q=ink&dataset=2&sort=name").text
    assert "3 runs found." in page
    links = links_of(page)
    assert "/runs?q=ink&status=failed&dataset=2&sort=name" in links
    assert "/runs?sort=name" in links  # clears search and filters
    assert "/runs/2/edit?back=/runs%3Fq%3Dink%26dataset%3D2%26sort%3Dname" in links
    assert '<option value="2" selected>Ink &amp; &lt;wash&gt;</option>' in page
    assert '<option value="1">Chalk (deleted)</option>' in page
    nothing = client.get("/runs?q=no+such+thing&status=failed").text
    assert "No run matches" in nothing
    assert 'href="/runs">Show all runs</a>' in nothing


def test_chosen_runs_are_compared_or_deleted(
    client: TestClient, state: AppState, runs: list[int]
) -> None:
    def location(address: str) -> str:
        return client.get(address, follow_redirects=False).headers["location"]

    assert location("/runs/compare-chosen?run=2&run=1&back=/runs") == "/runs/compare?a=1&b=2"
    assert location("/runs/compare-chosen?run=2&run=2&back=/runs%3Fq%3Da") == "/runs?q=a"
    for back, to in (("//example.org", "/"), ("/runs?q=a", "/runs?q=a")):
        answer = client.post("/runs/delete", data={"back": back}, follow_redirects=False)
        assert answer.headers["location"] == to
    chosen = {"back": "/runs?sort=name", "run": ["1", "2", "3", "77"]}
    answer = client.post("/runs/delete", data=chosen, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?sort=name")
    shown = client.get("/runs").text
    assert "2 runs were deleted. “Ink &amp; &lt;wash&gt;” is waiting. Cancel it first" in shown
    assert 'action="/runs/restore?run=2&amp;run=1&amp;back=%2Fruns%3Fsort%3Dname"' in shown
    with state.database.read() as session:
        assert session.get(Run, 1) is None
        assert session.get(Run, 3) is not None
    for left, status in (("3", 409), ("1", 404)):
        answer = client.post("/runs/delete", data={"run": left}, headers={"accept": "text/html"})
        assert answer.status_code == status


def test_the_api_searches_sorts_and_counts(client: TestClient, runs: list[int]) -> None:
    answer = client.get("/api/v1/runs?q=ink&sort=oldest&status=queued")
    assert answer.headers["x-total-count"] == "2"
    assert [(row["id"], row["queue_place"]) for row in answer.json()] == [(3, 1), (4, 2)]
    assert client.get("/api/v1/runs/4").json()["queue_place"] == 2
    assert client.get("/api/v1/runs/1").json()["queue_place"] is None
    (made,) = client.get("/api/v1/runs?dataset_id=1&base_model=1&adapter_id=1").json()
    assert (made["id"], made["adapter_id"], made["adapter_version"]) == (1, 1, 1)
    for nothing in ("dataset_id=0", "adapter_id=x"):
        assert client.get(f"/api/v1/runs?{nothing}").json() == []
    for wrong in ("sort=best", "status=odd"):
        assert client.get(f"/api/v1/runs?{wrong}").status_code == 422


def test_a_sweep_is_one_row_that_opens_into_its_runs(client: TestClient, state: AppState) -> None:
    dataset = fake_sweeps.images_of_style(state)
    fake_workers.ready_base(state)
    single = fake_workers.queued_run(state, dataset)
    sweep = fake_sweeps.start(state, fake_sweeps.request(dataset))
    page = client.get("/runs").text
    assert page.count('class="row-link"') == 2
    assert f'href="/sweeps/{sweep}" id="sweep-{sweep}"' in page
    assert "6 waiting" in page
    assert "From place 2 of 7 in the queue" in page
    assert f'id="run-{single.key}"' in page
    opened = re.search('Sweep of <a href="([^"]+)">6 runs</a>', page)
    assert opened is not None
    runs = client.get(html.unescape(opened[1])).text
    assert runs.count('class="row-link"') == 6
    assert f'name="sweep" value="{sweep}"' in runs
    assert len(client.get("/api/v1/runs").json()) == 7
    with state.database.write() as session:
        session.get_one(Run, 7).deleted_at = utcnow()
    assert ">5 runs</a>" in client.get("/runs").text
