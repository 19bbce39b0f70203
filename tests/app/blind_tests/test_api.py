"""Blind tests over REST, and what an answer, an address or a file tells a judge."""

from __future__ import annotations

import io
import json
import re

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlmodel import select

from app.registry.blind_tests.images import REAL
from app.registry.state import AppState
from app.registry.tables.blind_tests import BlindVote, PairKind
from app.registry.tables.renders import RenderImage
from tests import fake_workers

API = "/api/v1"
TESTS = f"{API}/blind-tests"


@pytest.fixture
def address(client: TestClient, state: AppState, run: int) -> str:
    """A test of two checkpoints at different weights, whose images are drawn."""
    answer = client.post(TESTS, json=body(run))
    assert answer.status_code == 202
    fake_workers.draw(state)
    location = str(answer.headers["location"])
    assert location == f"{TESTS}/1"
    return location


def body(run: int, **values: object) -> dict[str, object]:
    candidates = [{"run_id": run, "step": 20, "weight": 0.83}, {"run_id": run, "step": 40}]
    return {"question": "closer", "candidates": candidates, **values}


def answers(
    client: TestClient, state: AppState, address: str, count: int = 130
) -> dict[str, object]:
    """Prefer the second candidate and real images, until no pair comes."""
    turn: dict[str, object] = client.post(f"{address}/pairs").json()
    for _ in range(count):
        if turn["state"] != "pair":
            break
        with state.database.read() as session:
            vote = session.exec(select(BlindVote).where(BlindVote.number == turn["number"])).one()
        wanted = REAL if vote.kind == PairKind.CONTROL else 1
        sent = {"number": turn["number"], "answer": "left" if vote.left == wanted else "right"}
        turn = client.post(f"{address}/votes", json=sent).json()
    return turn


def test_it_is_estimated_started_and_listed(client: TestClient, state: AppState, run: int) -> None:
    estimate = client.post(f"{TESTS}/estimate", json=body(run)).json()
    assert estimate["labels"] == ["Step 20 at 0.83", "Step 40"]
    assert (estimate["pairs"], estimate["found"], estimate["notes"]) == (106, 0.75, [])
    assert client.get(TESTS).json() == []
    refused = client.post(TESTS, json=body(run, candidates=[{"run_id": run, "step": 20}] * 2))
    assert refused.status_code == 422
    assert "nobody can tell them apart" in refused.json()["errors"][0]["detail"]
    started = client.post(TESTS, json=body(run)).json()
    assert (started["run_id"], started["labels"], started["grid_id"]) == (run, None, None)
    assert [one["id"] for one in client.get(f"{TESTS}?run_id={run}").json()] == [started["id"]]
    assert client.get(f"{TESTS}?run_id=99").json() == []
    assert client.get(f"{TESTS}/1").json() == started
    waiting = client.post(f"{TESTS}/1/pairs").json()
    assert (waiting["state"], waiting["left_url"], waiting["number"]) == ("waiting", None, 0)


def test_nothing_tells_which_is_which(client: TestClient, state: AppState, address: str) -> None:
    with state.database.read() as session:
        hashes = set(session.exec(select(RenderImage.sha256)))
    told = [
        "Step",
        "0.83",
        "weight",
        "Chalk",
        "adapter",
        "sha256",
        *hashes,
        *(h[:12] for h in hashes),
    ]
    turn = client.post(f"{address}/pairs")
    for number in range(1, 15):
        pair = turn.json()
        assert pair["state"] == "pair"
        sides = [client.get(pair[f"{side}_url"]) for side in ("left", "right")]
        references = [client.get(url) for url in pair["reference_urls"]]
        assert len(references) == 3
        for response in (turn, *sides, *references):
            assert response.status_code == 200
            text = json.dumps(dict(response.headers)) + str(response.url)
            text += response.content.decode("latin-1")
            assert [word for word in told if word in text] == []
        assert {one.headers["cache-control"] for one in sides} == {"no-store"}
        assert not any("etag" in one.headers for one in sides)
        opened = [Image.open(io.BytesIO(one.content)) for one in sides]
        assert len({(one.size, one.mode, one.format) for one in opened}) == 1
        assert [one.info for one in opened] == [{}, {}]
        assert not re.search(rb"tEXt|iTXt|zTXt|eXIf", sides[0].content + sides[1].content)
        turn = client.post(f"{address}/votes", json={"number": number, "answer": "tie"})
    for hidden in ("grids/1", "grids/2", "grids/2/sheet", "renders/1", "blind-tests/1/result"):
        assert client.get(f"{API}/{hidden}").status_code == 409, hidden
    assert client.get("/grids/2", headers={"accept": "text/html"}).status_code == 409
    assert client.get(f"{API}/grids").json() == []
    assert [one for one in client.get(f"{API}/jobs").json() if one["kind"] == "grid"] == []
    assert client.delete(f"{API}/grids/2").status_code == 409


def test_a_decided_test_is_read_and_its_winner_used(
    client: TestClient, state: AppState, address: str
) -> None:
    turn = answers(client, state, address)
    assert turn["state"] == "ended"
    shown = client.get(address).json()
    assert shown["labels"] == ["Step 20 at 0.83", "Step 40"]
    for address_of_grid in (f"{API}/grids/{shown['grid_id']}", f"/grids/{shown['grid_id']}"):
        page = client.get(address_of_grid, headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "Step 20 at 0.83" in page.text
    found = client.get(f"{address}/result").json()
    assert found["winner"] == 1
    _, share = found["shares"]
    assert (share["candidate"], share["over"]) == ("Step 40", "Step 20 at 0.83")
    assert share["share"] > share["low"] > 0.5
    (one,) = found["judges"]
    assert (one["repeats"], one["alike"], one["controls"], one["right"]) == (4, 4, 4, 4)
    assert client.get(found["pairs"][0]["one_url"]).status_code == 200
    late = client.post(f"{address}/votes", json={"number": 1, "answer": "tie"})
    assert late.status_code == 409
    assert "has ended" in late.json()["detail"]
    used = client.post(f"{address}/use", json={"candidate": 0}).json()
    assert used["told"].endswith("is in use now, at the usual weight 0.83.")


def test_judging_is_stopped_undone_and_gone_on_with(
    client: TestClient, state: AppState, address: str
) -> None:
    assert client.post(f"{address}/undo").status_code == 409
    assert answers(client, state, address, 3)["number"] == 4
    again = client.post(f"{address}/undo").json()
    assert (again["number"], again["judged"]) == (3, 2)
    assert client.post(f"{address}/end").json()["ended_at"]
    assert client.post(f"{address}/end").status_code == 200
    found = client.get(f"{address}/result").json()
    assert (found["winner"], found["counted"]) == (None, 2)
    assert found["sentence"].startswith("Undecided")
    assert client.post(f"{address}/continue").json()["ended_at"] is None
    assert client.post(f"{address}/pairs").json()["number"] == 3
    deleted = client.delete(address).json()
    assert client.post(f"{address}/pairs").status_code == 409
    assert client.post(deleted["restore"]).status_code == 200
    client.delete(address)
    assert client.get(deleted["forever"]).json()["goes"][-1] == "2 answers"
    assert client.delete(deleted["forever"]).status_code == 200
    assert client.get(address).status_code == 404
