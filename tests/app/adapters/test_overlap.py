"""The check of a stack: what is ordered once, what is known then, and what is said of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import overlap
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.claims import end_io_job

LITTLE = [("unet.a", 0.2, 0.9, 0.1), ("unet.b", -0.31, 0.9, 0.1), ("unet.c", 0.1, 0.9, 0.1)]
SOME = [("unet.a", 0.84, 0.9, 0.1), ("unet.b", 0.76, 0.9, 0.1), *[("unet.c", 0.1, 0.9, 0.1)] * 30]
AGAINST = [("unet.a", -0.6, 0.9, 0.1), ("unet.b", 0.1, 0.9, 0.1), ("unet.c", 0.7, 0.9, 0.1)]


def add(state: AppState, name: str, *words: str, base_id: int | None = None) -> int:
    """The id of an adapter whose weights nobody reads here."""
    sha256 = fake_workers.blob(state, name.encode())
    new = NewVersion(
        name, "sd1", sha256, 10, 8, 8.0, trigger_words=list(words), base_model_id=base_id
    )
    with state.database.write() as session:
        return publish(session, new).adapter_id


@pytest.fixture
def two(state: AppState) -> list[int]:
    base = fake_workers.ready_base(state)
    words = ("Ink", "ink style"), ("Chalk", "chalk style")
    return [add(state, *of, base_id=base.key) for of in words]


def ask(client: TestClient, *adapters: int, status: int = 200) -> dict[str, Any]:
    body = {"adapters": [{"id": key} for key in adapters]}
    answer = client.post("/api/v1/adapters/overlap", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def end(state: AppState, layers: list[tuple[str, float, float, float]]) -> IoJob:
    result = {"cosine": 0.25, "changed": 40, "layers": [list(layer) for layer in layers]}
    return end_job(state, JobStatus.SUCCEEDED, result=result)


def end_job(state: AppState, status: JobStatus, **values: Any) -> IoJob:
    def is_meant(job: IoJob) -> bool:
        return job.kind == JobKind.MEASURE_OVERLAP

    return end_io_job(state.database, is_meant, status, **values)


def ordered(state: AppState) -> int:
    with state.database.read() as session:
        found = session.exec(select(IoJob).where(IoJob.kind == JobKind.MEASURE_OVERLAP)).all()
        return len(found)


def test_a_pair_is_compared_once_in_either_order(
    client: TestClient, state: AppState, two: list[int]
) -> None:
    first = ask(client, *two)
    assert (first["status"], first["level"], first["pairs"][0]["layers"]) == ("computing", None, [])
    assert first["sentence"] == "Comparing: both adapters are read layer by layer."
    assert ask(client, *two[::-1])["status"] == "computing"
    end(state, SOME)
    found = ask(client, *two[::-1])
    (pair,) = found["pairs"]
    assert (found["status"], found["level"], pair["cosine"]) == ("ready", "some", 0.25)
    assert [pair[side]["name"] for side in ("first", "second")] == ["Chalk", "Ink"]
    assert pair["layers"][0] == {"layer": "unet.a", "cosine": 0.84, "inputs": 0.9, "outputs": 0.1}
    assert found["sentence"] == (
        "2 of 32 layers pull the same way (cosine 0.84 and 0.76); the trigger words differ."
    )
    assert ordered(state) == 1


@pytest.mark.parametrize(
    ("layers", "level", "sentence"),
    [
        (
            LITTLE,
            "little",
            "None of the 3 layers that both change pulls clearly the same way (cosines up to "
            "−0.31); the trigger words differ.",
        ),
        (
            AGAINST,
            "much",
            "1 of 3 layers pulls the same way (cosine 0.70), and 1 pulls against each other "
            "(cosine −0.60); the trigger words differ.",
        ),
        ([], "little", "They change different layers; the trigger words differ."),
    ],
)
def test_what_was_found_is_said_in_a_sentence(
    client: TestClient,
    state: AppState,
    two: list[int],
    layers: list[tuple[str, float, float, float]],
    level: str,
    sentence: str,
) -> None:
    ask(client, *two)
    end(state, layers)
    found = ask(client, *two)
    assert (found["level"], found["sentence"]) == (level, sentence)


def test_of_several_the_pair_that_overlaps_most_is_named(
    client: TestClient, state: AppState, two: list[int]
) -> None:
    third = add(state, "More ink", "INK  style", base_id=fake_workers.ready_base(state).key)
    ask(client, *two)
    end(state, LITTLE)
    found = ask(client, *two, third)
    assert [pair["status"] for pair in found["pairs"]] == ["ready", "computing", "computing"]
    assert found["sentence"] == "Comparing: 2 pairs left, read layer by layer."
    end(state, SOME)
    end(state, LITTLE)
    found = ask(client, *two, third)
    assert (found["level"], found["shared_trigger_words"]) == ("some", ["ink style"])
    assert found["sentence"] == (
        "“Ink” and “More ink” overlap most: 2 of 32 layers pull the same way (cosine 0.84 and "
        "0.76); the trigger word is the same: “ink style”."
    )
    assert ordered(state) == 3


def test_a_comparison_that_failed_is_said_and_done_again_later(
    client: TestClient, state: AppState, two: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(client, *two)
    end_job(state, JobStatus.FAILED, error="The file is damaged.", error_code="adapter")
    found = ask(client, *two)
    assert (found["status"], found["pairs"][0]["status"]) == ("ready", "failed")
    assert (found["sentence"], found["level"]) == ("The file is damaged.", None)
    assert ordered(state) == 1
    monkeypatch.setattr(overlap, "AGAIN_AFTER", timedelta(0))
    assert ask(client, *two)["status"] == "computing"
    assert ordered(state) == 2


def test_adapters_of_other_base_models_are_not_compared(
    client: TestClient, state: AppState, two: list[int]
) -> None:
    sha256 = fake_workers.blob(state, b"large")
    with state.database.write() as session:
        large = publish(session, NewVersion("Large", "sdxl", sha256, 10, 8, 8.0)).adapter_id
    found = ask(client, two[0], large)
    assert (found["status"], found["pairs"][0]["status"]) == ("ready", "unfit")
    assert found["sentence"] == (
        "“Ink” was made for “starter” and “Large” for SDXL, so they do not go together."
    )
    assert ordered(state) == 0


def test_bad_requests_are_refused(client: TestClient, two: list[int]) -> None:
    alone = ask(client, two[0], status=422)["detail"]
    assert alone == "adapters: Too few entries: 1 given, at least 2 needed."
    ask(client, *two, *range(3, 10), status=422)
    ask(client, two[0], 999, status=404)
    assert "named twice" in ask(client, two[0], two[0], status=422)["detail"]
