"""REST: adapters by nearness, from an adapter, a dataset and an image that is not kept."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.db import utcnow
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.likeness import similar
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from tests.app.likeness.looked import add_adapter, look, named
from tests.claims import end_io_job

API = "/api/v1"


def ask(client: TestClient, address: str, status: int = 200) -> Any:
    answer = client.get(f"{API}{address}")
    assert answer.status_code == status, answer.text
    return answer.json()


def test_the_list_is_sorted_paged_and_says_what_it_compared(
    client: TestClient, state: AppState
) -> None:
    ink = add_adapter(state.database, "Ink", 0)
    for number, name in enumerate(("Chalk", "Pen", "Brush")):
        add_adapter(state.database, name, 3 - number)
    add_adapter(state.database, "Large", 9, family="sdxl")
    first = client.get(f"{API}/adapters/{ink}/similar?limit=2")
    assert [one["adapter"]["name"] for one in first.json()] == ["Brush", "Pen"]
    assert first.headers["x-total-count"] == "4"
    second = client.get(first.links["next"]["url"])
    assert [one["adapter"]["name"] for one in second.json()] == ["Chalk", "Large"]
    assert "next" not in second.links
    (large,) = ask(client, "/adapters/ink/similar?base=sdxl")
    assert (large["basis"], large["own_basis"]) == ("cover", "cover")
    assert large["own_url"] == f"/media/{named('cover of Ink')}"
    assert large["url"] == f"/media/{named('cover of Large')}"
    assert (large["subject"], large["nearly_same"]) == (None, False)


def test_what_cannot_be_compared_says_what_to_do(client: TestClient, state: AppState) -> None:
    bare = add_adapter(state.database, "Bare", None)
    late = add_adapter(state.database, "Late", 1, measured=False)
    assert "has no image" in ask(client, f"/adapters/{bare}/similar", 409)["detail"]
    problem = ask(client, f"/adapters/{late}/similar", 409)
    assert problem["type"].endswith("not_measured")
    ask(client, "/adapters/99/similar", 404)
    ask(client, "/datasets/99/similar", 404)
    with state.database.write() as session:
        session.get_one(Adapter, late).deleted_at = utcnow()
    ask(client, f"/adapters/{late}/similar", 404)


def test_an_image_is_searched_by_and_kept_nowhere(
    client: TestClient, state: AppState, png: Callable[..., bytes]
) -> None:
    stored = list(state.store.list())
    sent = client.post(f"{API}/style-searches", files={"file": ("a.png", png())})
    assert (sent.status_code, sent.json()["status"]) == (202, "queued")
    address = f"/style-searches/{sent.json()['id']}"
    assert sent.headers["location"] == f"{API}{address}"
    assert "is being measured" in ask(client, f"{address}/similar", 409)["detail"]
    assert list(state.store.list()) == stored
    result = {"look": b64encode(look(1)).decode()}
    end_io_job(
        state.database, lambda job: job.kind == "measure_image", JobStatus.SUCCEEDED, result=result
    )
    assert ask(client, address)["status"] == "succeeded"
    assert ask(client, f"{address}/similar") == []  # an empty registry
    add_adapter(state.database, "Chalk", 4)
    add_adapter(state.database, "Pen", 2)
    found = ask(client, f"{address}/similar")
    assert [(one["adapter"]["name"], one["distance"]) for one in found] == [
        ("Pen", pytest.approx(1, abs=0.01)),
        ("Chalk", pytest.approx(3, abs=0.01)),
    ]
    assert found[0]["own_basis"] == "image"
    assert found[0]["own_url"] is None
    with state.database.write() as session:
        job = session.get_one(IoJob, sent.json()["id"])
        job.finished_at = utcnow() - 2 * similar.KEPT
        session.add(job)
        session.flush()
        similar.forget_searches(session)
    ask(client, address, 404)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"%PDF-1.7 a brochure", "This is a PDF"), (b"", ""), (b"\x89PNG\r\n\x1a\n", "")],
)
def test_another_file_is_refused_with_the_reason(
    content: bytes, reason: str, client: TestClient, state: AppState
) -> None:
    sent = client.post(f"{API}/style-searches", files={"file": ("a.png", content)})
    assert sent.status_code == 422
    assert reason in sent.json()["errors"][0]["detail"]
    assert sent.json()["errors"][0]["field"] == "file"
    with state.database.read() as session:
        assert JobKind.MEASURE_IMAGE not in session.exec(select(IoJob.kind)).all()


def test_an_image_of_too_many_pixels_is_refused(
    client: TestClient, png: Callable[..., bytes]
) -> None:
    sent = client.post(f"{API}/style-searches", files={"file": ("a.png", png(size=(30_000, 80)))})
    assert sent.status_code == 422
    assert "pixels" in sent.json()["errors"][0]["detail"]
