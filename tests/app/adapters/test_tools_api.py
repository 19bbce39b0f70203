"""The tools over REST: what is ordered, what is refused at once, how one asks for the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.registry.adapters import service
from app.registry.adapters.tools import KINDS
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.job_kinds.kinds import InspectBaseArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.claims import end_io_job


def add(state: AppState, name: str, *, family: str = "sd1", base_id: int | None = None) -> int:
    """The id of an adapter whose weights nobody reads here."""
    sha256 = fake_workers.blob(state, name.encode())
    new = NewVersion(name, family, sha256, 10, 8, 8.0, base_model_id=base_id)
    with state.database.write() as session:
        return publish(session, new).adapter_id


@pytest.fixture
def base(state: AppState) -> BaseModel:
    return fake_workers.ready_base(state)


@pytest.fixture
def two(state: AppState, base: BaseModel) -> tuple[int, int]:
    return add(state, "Ink", base_id=base.key), add(state, "Chalk", base_id=base.key)


def add_base(state: AppState, name: str, family: str = "sd1") -> BaseModel:
    folder = state.settings.data_dir / name
    folder.mkdir()
    with state.database.write() as session:
        row = BaseModel(
            slug=name,
            name=name,
            source=str(folder),
            family=family,
            status=ModelStatus.READY,
        )
        session.add(row)
        session.flush()
        return row


def end_job(state: AppState, status: JobStatus, **values: Any) -> int:
    """A worker ends the tool's job that waits."""
    return end_io_job(state.database, lambda job: job.kind != "inspect_base", status, **values).key


def test_a_merge_is_ordered_and_can_be_asked_for(
    client: TestClient, state: AppState, two: tuple[int, int]
) -> None:
    body = {
        "name": "Both",
        "adapters": [
            {"id": two[0], "weight": 0.8},
            {"id": two[1], "weight": -0.5, "text_encoder_weight": 0.25, "version": 1},
        ],
        "method": "ties",
        "rank": 8,
        "density": 0.3,
    }
    answer = client.post("/api/v1/adapters/merge", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["tool"], job["status"], job["progress"], job["result"]) == (
        "merge",
        "queued",
        0,
        None,
    )
    with state.database.read() as session:
        args = session.get_one(IoJob, job["id"]).args
    assert (args["method"], args["rank"], args["density"], args["seed"]) == ("ties", 8, 0.3, 0)
    assert [part["weight"] for part in args["parts"]] == [0.8, -0.5]
    result = {"adapter_id": 7, "version": 1, "slug": "both", "energy_min": 0.9}
    end_job(state, JobStatus.SUCCEEDED, result=result)
    job = client.get(f"/api/v1/tool-jobs/{job['id']}").json()
    assert (job["status"], job["progress"], job["result"]) == ("succeeded", 1.0, result)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"adapters": [{"id": 1}]}, "adapters", "at least 2"),
        ({"adapters": [{"id": 1}, {"id": 1, "weight": 2}]}, "adapters", "“Ink” is named twice"),
        ({"adapters": [{"id": 1}, {"id": 2, "weight": 1e9}]}, "weight", "from -10 to 10"),
        ({"method": "svd"}, "rank", "Choose the rank"),
        ({"method": "svd", "rank": 0}, "rank", "At least 1."),
        ({"method": "dare", "rank": 5000}, "rank", "1,024 at most."),
        ({"method": "dare", "rank": 8, "density": 0}, "density", "More than 0."),
        ({"name": "  "}, "name", "cannot be empty"),
        ({"name": "x" * 150}, "name", "at most 120"),
        ({"adapters": [{"id": n} for n in range(1, 30)]}, "adapters", "at most 16"),
        ({"method": "sum"}, "method", ""),
    ],
)
def test_what_cannot_be_merged_is_refused_with_the_field(
    changes: dict[str, Any], field: str, words: str, client: TestClient, two: tuple[int, int]
) -> None:
    assert two == (1, 2)
    body = {"name": "Both", "adapters": [{"id": 1}, {"id": 2}]} | changes
    answer = client.post("/api/v1/adapters/merge", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert words in problem["detail"]
    assert problem["errors"][0]["field"].endswith(field)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(
    weight: float, client: TestClient, two: tuple[int, int]
) -> None:
    text = f'{{"name": "x", "adapters": [{{"id": 1}}, {{"id": 2, "weight": {weight}}}]}}'
    text = text.replace("nan", "NaN").replace("inf", "Infinity")
    answer = client.post(
        "/api/v1/adapters/merge", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert "is not a number" in answer.json()["detail"]


def test_families_do_not_mix(client: TestClient, state: AppState, two: tuple[int, int]) -> None:
    add(state, "Large", family="sdxl")
    body = {"name": "Both", "adapters": [{"id": 1}, {"id": 3}]}
    answer = client.post("/api/v1/adapters/merge", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "“Ink” was made for “starter” and “Large” for SDXL. Choose adapters for the same kind "
        "of base model to merge them.",
    )
    answer = client.post("/api/v1/adapters/3/fuse", json={"name": "x", "base_model": "starter"})
    assert "“Large” was made for SDXL and does not fit “starter”." in answer.json()["detail"]
    answer = client.post("/api/v1/adapters/3/fuse", json={"name": "x"})
    assert "Choose a base model" in answer.json()["detail"]


def test_what_was_made_for_bases_of_two_sizes_is_refused_at_once(
    client: TestClient, state: AppState, two: tuple[int, int]
) -> None:
    real = add(state, "Real")
    body = {"name": "Both", "adapters": [{"id": 1}, {"id": real}]}
    problem = client.post("/api/v1/adapters/merge", json=body).json()
    assert problem["errors"][0]["field"] == "adapters"
    assert "“Ink” was made for “starter” and “Real” for SD 1.x. Choose" in problem["detail"]
    for sent in (
        client.post(f"/api/v1/adapters/{real}/fuse", json={"name": "x", "base_model": "starter"}),
        client.post("/api/v1/adapters/1/fuse", json={"name": "x", "others": [{"id": real}]}),
    ):
        assert (sent.status_code, sent.json()["errors"][0]["field"]) == (422, "base_model")
        assert "“Real” was made for SD 1.x and does not fit “starter”." in sent.json()["detail"]
    with state.database.read() as session:
        assert session.exec(select(IoJob).where(col(IoJob.kind).in_(KINDS))).all() == []


def test_a_version_is_named_by_an_alias_too(
    client: TestClient, state: AppState, two: tuple[int, int]
) -> None:
    with state.database.write() as session:
        adapter = session.get_one(Adapter, 1)
        aliases.set_alias(session, service.get_version(session, adapter), "best")
        new = NewVersion("Ink", "sd1", "d" * 64, 10, 8, 8.0, base_model_id=1)
        publish(session, new, adapter_id=1)
    bodies: dict[str, dict[str, Any]] = {
        "merge": {"name": "x", "adapters": [{"id": 1, "version": "best"}, {"id": 2}]},
        "1/fuse": {"name": "x", "version": "best"},
        "2/fuse": {"name": "x", "others": [{"id": 1, "version": "v1"}]},
        "1/resize": {"version": "Best", "rank": 2},
    }
    for path, body in bodies.items():
        answer = client.post(f"/api/v1/adapters/{path}", json=body)
        assert answer.status_code == 202, answer.text
        with state.database.read() as session:
            job = session.get_one(IoJob, answer.json()["id"])
        parts = [part for part in job.args.get("parts", ()) if part["adapter_id"] == 1]
        assert [part["version"] for part in parts] == [1] * len(parts)
        assert parts or job.subject_id == 1
    for wrong, status in (("worst", 404), (9, 404), ("", 422), (0, 422), ("x" * 61, 422)):
        answer = client.post("/api/v1/adapters/1/resize", json={"version": wrong, "rank": 2})
        assert answer.status_code == status, wrong


def test_a_deleted_adapter_is_not_found(client: TestClient, two: tuple[int, int]) -> None:
    client.delete("/api/v1/adapters/2")
    body = {"name": "Both", "adapters": [{"id": 1}, {"id": 2}]}
    assert client.post("/api/v1/adapters/merge", json=body).status_code == 404
    assert client.post("/api/v1/adapters/2/resize", json={"rank": 2}).status_code == 404
    for nobody in (0, "nobody"):
        fused = client.post(f"/api/v1/adapters/{nobody}/fuse", json={"name": "Fused"})
        assert fused.status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "Choose either"),
        ({"rank": 4, "energy": 0.9}, "Choose either"),
        ({"rank": 0}, "At least 1."),
        ({"energy": 1.5}, "1 at most."),
        ({"rank": 2, "dynamic": True}, "need a share of energy"),
    ],
)
def test_an_impossible_size_is_refused(
    body: dict[str, Any], words: str, client: TestClient, two: tuple[int, int]
) -> None:
    answer = client.post("/api/v1/adapters/1/resize", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_resize_scale_and_fuse_are_ordered(client: TestClient, two: tuple[int, int]) -> None:
    answer = client.post("/api/v1/adapters/1/resize", json={"energy": 0.95, "dynamic": True})
    assert (answer.status_code, answer.json()["tool"]) == (202, "resize")
    body: dict[str, Any] = {"block_weights": {"output": 0.5}}
    answer = client.post("/api/v1/adapters/1/scale", json=body)
    assert (answer.status_code, answer.json()["tool"]) == (202, "scale")
    answer = client.post("/api/v1/adapters/1/scale", json={"block_weights": {"output": 1}})
    assert (answer.status_code, "changes nothing" in answer.text) == (422, True)
    body = {"name": "Inked", "weight": 0.7, "others": [{"id": 2, "weight": -0.2}]}
    answer = client.post("/api/v1/adapters/1/fuse", json=body)
    assert (answer.status_code, answer.json()["tool"]) == (202, "fuse")


def test_fuses_that_make_no_sense_are_refused(client: TestClient, two: tuple[int, int]) -> None:
    def refused(**changes: object) -> str:
        answer = client.post("/api/v1/adapters/1/fuse", json={"name": "x"} | changes)
        assert answer.status_code == 422
        return str(answer.json()["detail"])

    assert "All weights are 0" in refused(weight=0)
    assert "A folder cannot be downloaded" in refused(keep="download")
    assert "Unknown base model “none”" in refused(base_model="none")


def test_two_bases_of_one_family_can_be_compared(
    client: TestClient, state: AppState, base: BaseModel
) -> None:
    add_base(state, "tuned")
    add_base(state, "large", "sdxl")

    def order(**changes: object) -> Any:
        body = {"name": "Learned", "base": "starter", "tuned": "tuned", "rank": 8} | changes
        return client.post("/api/v1/base-models/extract", json=body)

    assert (order().status_code, order().json()["tool"]) == (202, "extract")
    assert "are the same base model" in order(tuned=base.key).json()["detail"]
    assert "“starter” is SD 1.x and “large” is SDXL" in order(tuned="large").json()["detail"]
    assert "At least 1." in order(rank=0).json()["detail"]


def test_waiting_work_can_be_canceled_once_and_failed_work_says_why(
    client: TestClient, state: AppState, two: tuple[int, int]
) -> None:
    job = client.post("/api/v1/adapters/1/resize", json={"rank": 2}).json()["id"]
    assert client.post(f"/api/v1/tool-jobs/{job}/cancel").json()["status"] == "canceled"
    client.post("/api/v1/adapters/1/resize", json={"rank": 2})
    job = end_job(state, JobStatus.FAILED, error="It did not fit.", error_code="adapter")
    found = client.get(f"/api/v1/tool-jobs/{job}").json()
    assert (found["status"], found["error"], found["result"]) == ("failed", "It did not fit.", None)
    assert client.post(f"/api/v1/tool-jobs/{job}/cancel").status_code == 409
    assert client.get(f"/api/v1/tool-jobs/{job}/file").status_code == 404


def test_other_io_jobs_are_no_work_of_tools(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        job = jobs.enqueue_io(session, InspectBaseArgs(), subject_id=1)
    assert client.get(f"/api/v1/tool-jobs/{job.key}").status_code == 404


def test_a_fused_file_can_be_downloaded(
    client: TestClient, state: AppState, two: tuple[int, int]
) -> None:
    body = {"name": "Inked", "layout": "single", "keep": "download"}
    client.post("/api/v1/adapters/1/fuse", json=body)
    result = {"sha256": fake_workers.blob(state, b"weights"), "filename": "inked.safetensors"}
    job = end_job(state, JobStatus.SUCCEEDED, result=result | {"layers": 3, "size_bytes": 7})
    told = client.get(f"/api/v1/tool-jobs/{job}").json()["result"]
    assert told == {"layers": 3, "size_bytes": 7, "download_url": f"/api/v1/tool-jobs/{job}/file"}
    file = client.get(told["download_url"])
    assert file.content == b"weights"
    assert 'filename="inked.safetensors"' in file.headers["content-disposition"]
    assert "It is kept for 7 days." in client.get(f"/tool-jobs/{job}").text
    state.store.delete(result["sha256"])  # as a sweep does
    gone = client.get(told["download_url"])
    assert gone.status_code == 410
    assert "was deleted after 7 days. Fuse it again" in gone.json()["detail"]
    with state.database.read() as session:
        assert session.get_one(Adapter, 1).name == "Ink"
