"""Base models through the REST API."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.base_models.inspection import write_unusable
from app.registry.config import Settings
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.conftest import AppMaker, embedded_info
from worker.core.starter.subjects import known_subjects


def add(client: TestClient, source: str) -> tuple[int, str]:
    answer = client.post("/api/v1/base-models", json={"source": source})
    return answer.status_code, answer.json().get("detail", answer.json().get("status"))


def test_the_embedded_base_is_there(client: TestClient) -> None:
    (base,) = client.get("/api/v1/base-models").json()
    assert (base["slug"], base["family"], base["status"]) == ("starter", "sd1", "ready")
    assert base["resolution"] == embedded_info().resolution
    assert base["parameters"] == sum(embedded_info().parameters.values())


def test_a_folder_is_added_and_looked_at_by_an_io_worker(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    folder = tmp_path / "my base"
    folder.mkdir()
    assert add(client, str(folder)) == (202, "checking")
    with state.database.read() as session:
        job = session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
    assert job is not None
    assert job.kind == "inspect_base"
    status, detail = add(client, str(folder))
    assert status == 409
    assert "already" in detail


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/place", "does not exist"),
        ("./relative/place", "absolute path"),
        ("", "source"),
        ("a\0b", "path"),
    ],
)
def test_a_wrong_place_says_what_to_do(client: TestClient, source: str, reason: str) -> None:
    status, detail = add(client, source)
    assert status == 422
    assert reason in detail


def test_a_checkpoint_that_could_run_code_is_refused(client: TestClient, tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"x")
    status, detail = add(client, str(file))
    assert status == 422
    assert "can run code" in detail


def test_there_is_no_base_ninety(client: TestClient) -> None:
    assert client.get("/api/v1/base-models/90").status_code == 404


def test_a_model_of_the_hub_is_ordered_by_its_name(client: TestClient, state: AppState) -> None:
    source = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    answer = client.post("/api/v1/base-models", json={"source": source})
    base = answer.json()
    assert answer.status_code == 202
    assert (base["status"], base["source"], base["name"]) == (
        "downloading",
        source,
        "stable-diffusion-v1-5",
    )
    assert base["download"] == {"bytes_done": 0, "bytes_total": None, "file": ""}
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_base")).one()
        assert job.args == {"repo": source, "revision": None, "file": None, "precision": "fp16"}
        job.result = {"bytes_done": 500, "bytes_total": 2000, "file": "unet/x.safetensors"}
        session.add(job)
    shown = client.get(f"/api/v1/base-models/{base['id']}").json()
    assert shown["download"] == {
        "bytes_done": 500,
        "bytes_total": 2000,
        "file": "unet/x.safetensors",
    }
    status, detail = add(client, source)
    assert (status, "already" in detail) == (409, True)


def test_a_download_can_be_stopped_and_the_model_put_away(client: TestClient) -> None:
    base = client.post("/api/v1/base-models", json={"source": "acme/tiny@v2/a.safetensors"}).json()
    address = f"/api/v1/base-models/{base['id']}"
    assert client.delete(address).status_code == 409
    stopped = client.post(f"{address}/cancel").json()
    assert stopped["status"] == "failed"
    assert "was stopped" in stopped["error"]
    assert client.post(f"{address}/cancel").status_code == 409
    assert add(client, "acme/tiny@v2/a.safetensors") == (202, "downloading")
    client.post(f"{address}/cancel")
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404


def test_a_base_that_was_used_or_is_built_in_stays(client: TestClient) -> None:
    answer = client.delete("/api/v1/base-models/1")
    assert answer.status_code == 409
    assert "built in" in answer.json()["detail"]


def test_the_files_of_a_removed_base_go_only_when_they_were_fused_here(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    fused = state.settings.data_dir / "fused"
    places = [fused / "inked-1-0123abcd", fused / "inked-2-0123abcd.safetensors", tmp_path / "own"]
    for place in places:
        file = place if place.suffix else place / "model_index.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")
        answer = client.post("/api/v1/base-models", json={"source": str(place)})
        assert answer.status_code == 202
        assert client.delete(f"/api/v1/base-models/{answer.json()['id']}").status_code == 204
    assert [place.exists() for place in places] == [False, False, True]
    assert fused.is_dir()


def used_base(state: AppState, source: str) -> BaseModel:
    """A base model that can be used, and an adapter of it."""
    with state.database.write() as session:
        row = BaseModel(
            slug="mine", name="mine", source=source, status=ModelStatus.READY, family="sd1"
        )
        session.add(row)
        session.flush()
        publish(session, NewVersion("Ink", "sd1", "a" * 64, 5, 8, 8.0, base_model_id=row.key))
        return row


def slugs(client: TestClient) -> list[str]:
    return [base["slug"] for base in client.get("/api/v1/base-models").json()]


def test_what_was_made_with_a_removed_base_stays_and_meets_it_again(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    base = used_base(state, str(folder))
    address = f"/api/v1/base-models/{base.key}"
    for _ in range(2):  # asking twice is no mistake
        assert client.delete(address).status_code == 204
    assert slugs(client) == ["starter"]
    assert client.get(address).json()["status"] == "removed"
    assert folder.is_dir()
    with state.database.write() as session:  # a look at it that had begun comes too late
        write_unusable(session, base.key, "It is gone.")
    assert client.get(address).json()["status"] == "removed"
    (adapter,) = client.get("/api/v1/adapters").json()
    assert client.get("/adapters/ink").status_code == 200
    order = {"prompt": "x", "adapters": [{"id": adapter["id"]}]}
    refused = client.post("/api/v1/renders", json=order)
    assert refused.status_code == 422
    assert "The base model “mine” was removed. Add it again" in refused.text
    again = client.post("/api/v1/base-models", json={"source": str(folder)}).json()
    assert (again["id"], again["status"]) == (base.key, "checking")
    assert slugs(client) == ["starter", "mine"]


def test_the_files_of_a_used_base_from_the_hub_go_with_it(
    client: TestClient, state: AppState
) -> None:
    base = used_base(state, "hf://acme/tiny")
    other = client.post("/api/v1/base-models", json={"source": "acme/tiny@v2"}).json()["id"]
    client.post(f"/api/v1/base-models/{other}/cancel")
    file = state.settings.hub_models / "acme--tiny" / "abc" / "model_index.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    assert client.delete(f"/api/v1/base-models/{other}").status_code == 204
    assert file.exists()  # both are of one repository
    assert client.delete(f"/api/v1/base-models/{base.key}").status_code == 204
    assert not file.exists()
    assert add(client, "acme/tiny") == (202, "downloading")
    assert slugs(client) == ["starter", "mine"]


def test_a_base_that_work_needs_stays_until_that_has_ended(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    base = used_base(state, str(folder))
    address = f"/api/v1/base-models/{base.key}"
    order = {"prompt": "x", "base_model": "mine"}
    render = client.post("/api/v1/renders", json=order).json()["id"]
    fuse = client.post("/api/v1/adapters/1/fuse", json={"name": "Inked"}).json()["id"]
    refused = client.delete(address)
    assert refused.status_code == 409
    assert "is used by unfinished renders and tools" in refused.json()["detail"]
    client.post(f"/api/v1/renders/{render}/cancel")
    assert "is used by unfinished tools" in client.delete(address).json()["detail"]
    client.post(f"/api/v1/tool-jobs/{fuse}/cancel")
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    with state.database.write() as session:
        session.get_one(Run, run.key).base_model_id = base.key
    assert "is used by unfinished runs" in client.delete(address).json()["detail"]
    client.post(f"/api/v1/runs/{run.key}/cancel")
    assert client.delete(address).status_code == 204


@pytest.mark.parametrize(
    ("hub", "host", "password", "expected"),
    [
        ("auto", "127.0.0.1", None, 202),
        ("auto", "0.0.0.0", "secret", 403),
        ("on", "0.0.0.0", "secret", 202),
        ("off", "127.0.0.1", None, 403),
    ],
)
def test_the_hub_is_asked_only_where_it_may_be(
    make_app: AppMaker,
    settings: Settings,
    hub: str,
    host: str,
    password: str | None,
    expected: int,
) -> None:
    changed = settings.model_copy(update={"hub": hub, "host": host})
    assert password or changed.is_loopback
    with TestClient(make_app(changed), base_url="http://localhost") as client:
        status, detail = add(client, "acme/tiny")
    assert status == expected
    if expected == 403:
        assert "BRUSHWORK_HUB" in detail


@pytest.mark.parametrize("path", ["~nobody/model", "/" + "x" * 300, "/proc/1/root/model\u0001"])
def test_a_path_that_the_system_refuses_is_invalid(client: TestClient, path: str) -> None:
    answer = client.post("/api/v1/base-models", json={"source": path})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "source"
    page = client.post("/base-models", data={"source": path}, headers={"accept": "text/html"})
    assert page.status_code == 422


def test_the_embedded_base_lists_its_subjects_and_finds_one_by_any_of_its_names(
    client: TestClient,
) -> None:
    every = client.get("/api/v1/base-models/1/subjects").json()
    assert [found["name"] for found in every] == [known.name for known in known_subjects()]
    (first, *_) = client.get("/api/v1/base-models/1/subjects", params={"q": "tree"}).json()
    assert first == {"name": "deciduous tree", "group": "animals-nature", "plain_names": ["tree"]}
    assert client.get("/api/v1/base-models/1/subjects", params={"q": "zorblax"}).json() == []
    assert client.get("/api/v1/base-models/9/subjects").status_code == 404


def test_another_base_brings_no_list_of_subjects(client: TestClient, tmp_path: Path) -> None:
    added = client.post("/api/v1/base-models", json={"source": str(tmp_path)}).json()
    assert client.get(f"/api/v1/base-models/{added['id']}/subjects").json() == []
