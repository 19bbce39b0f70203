"""Base models through the REST API."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models.service import write_ready, write_unusable
from app.registry.base_models.service import BASE_MODELS
from app.registry.db import Session
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.conftest import embedded_info
from worker.core.families.variants import Variant
from worker.core.starter.subjects import known_subjects
from worker.core.words import SamplerName

FOREVER = "/api/v1/storage/forever/base-models"


def test_the_embedded_base_is_there(client: TestClient) -> None:
    (base,) = client.get("/api/v1/base-models").json()
    assert (base["slug"], base["family"], base["status"]) == ("starter", "sd1", "ready")
    assert base["resolution"] == embedded_info().resolution
    assert base["parameters"] == sum(embedded_info().parameters.values())


def test_a_download_has_the_precision_that_was_chosen_last(
    client: TestClient, state: AppState
) -> None:
    source = {"source": "acme/tiny@v2/a.safetensors"}
    for chosen in ({}, {"precision": "fp32"}, {}):
        base = client.post("/api/v1/base-models", json=source | chosen).json()
        client.post(f"/api/v1/base-models/{base['id']}/cancel")
    with state.database.read() as session:
        jobs = session.exec(select(IoJob).where(IoJob.kind == "download_base")).all()
    args = {"repo": "acme/tiny", "revision": "v2", "file": "a.safetensors"}
    assert [job.args for job in jobs] == [
        args | {"precision": precision} for precision in ("fp16", "fp32", "fp32")
    ]


def test_a_base_that_was_used_or_is_built_in_is_kept(client: TestClient) -> None:
    answer = client.delete(f"{FOREVER}/1")
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
        removal = f"{FOREVER}/{answer.json()['id']}"
        announced = client.get(removal).json()
        assert announced["size_bytes"] == (0 if place.parent == tmp_path else 2)
        assert client.delete(removal).json() == announced
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
        assert client.delete(f"{FOREVER}/{base.key}").status_code == 200
    assert slugs(client) == ["starter"]
    assert client.get(address).json()["status"] == "removed"
    assert folder.is_dir()
    with state.database.write() as session:  # a look at it that had begun comes too late
        write_unusable(session, BASE_MODELS, base.key, "It is gone.")
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
    assert client.delete(f"{FOREVER}/{other}").status_code == 200
    assert file.exists()  # both are of one repository
    assert client.delete(f"{FOREVER}/{base.key}").json()["size_bytes"] == 2
    assert not file.exists()
    again = client.post("/api/v1/base-models", json={"source": "acme/tiny"})
    assert (again.status_code, again.json()["status"]) == (202, "downloading")
    assert slugs(client) == ["starter", "mine"]


def test_a_base_that_work_needs_stays_until_that_has_ended(
    client: TestClient, tmp_path: Path, state: AppState
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    base = used_base(state, str(folder))
    address = f"{FOREVER}/{base.key}"
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
    assert client.delete(address).status_code == 200


def test_the_embedded_base_lists_its_subjects_and_finds_one_by_any_of_its_names(
    client: TestClient,
) -> None:
    every = client.get("/api/v1/base-models/1/subjects?limit=1000").json()
    assert [found["name"] for found in every] == [known.name for known in known_subjects()]
    (first, *_) = client.get("/api/v1/base-models/1/subjects", params={"q": "tree"}).json()
    assert first == {"name": "deciduous tree", "group": "animals-nature", "plain_names": ["tree"]}
    assert client.get("/api/v1/base-models/1/subjects", params={"q": "zorblax"}).json() == []
    assert client.get("/api/v1/base-models/9/subjects").status_code == 404


def test_another_base_brings_no_list_of_subjects(client: TestClient, tmp_path: Path) -> None:
    added = client.post("/api/v1/base-models", json={"source": str(tmp_path)}).json()
    assert client.get(f"/api/v1/base-models/{added['id']}/subjects").json() == []


def zimage_row(session: Session) -> int:
    """A published Z-Image whose variant was read from its folder."""
    row = BaseModel(slug="z", name="z", source="/models/z", status=ModelStatus.READY)
    row.family, row.variant, row.resolution = "zimage", "turbo", 1024
    row.fingerprint = "f" * 64
    counts = {"unet": 6_154_908_736, "vae": 83_819_683, "text_encoder": 4_022_468_096}
    row.parameters = counts
    session.add(row)
    session.flush()
    return row.key


def test_a_variant_is_corrected_and_stays_while_the_files_do(
    client: TestClient, state: AppState
) -> None:
    with state.database.write() as session:
        base = zimage_row(session)
    address = f"/api/v1/base-models/{base}"
    assert client.get(address).json()["variant"] == "turbo"
    assert client.patch(address, json={"variant": "dedistilled"}).json()["variant"] == "dedistilled"
    found = {"variant": "turbo", "fingerprint": "f" * 64}
    for mark, expected in (("f", "dedistilled"), ("e", "turbo")):
        found["fingerprint"] = mark * 64
        with state.database.write() as session:
            write_ready(session, BASE_MODELS, base, SimpleNamespace(**found))
        assert client.get(address).json()["variant"] == expected
    page = client.post(f"/base-models/{base}/variant", data={"variant": "base"}).text
    assert '<option value="base" selected>Base</option>' in page
    refused = client.patch("/api/v1/base-models/1", json={"variant": "turbo"})
    assert refused.status_code == 422
    assert "a family without variants" in refused.text


def test_the_memory_of_a_large_base_is_computed(client: TestClient, state: AppState) -> None:
    assert client.get("/api/v1/base-models/1").json()["memory"] is None
    with state.database.write() as session:
        base = zimage_row(session)
    memory = client.get(f"/api/v1/base-models/{base}").json()["memory"]
    assert {name: round(size / 1e9, 1) for name, size in memory.items()} == {
        "training_bytes": 17.1,
        "int8_training_bytes": 11.8,
        "drawing_bytes": 23.2,
    }
    turbo = client.get("/base-models").text
    assert "an image takes 23.2 GB of GPU memory" in turbo
    assert "training takes" not in turbo
    client.patch(f"/api/v1/base-models/{base}", json={"variant": "base"})
    assert "training takes 17.1 GB of GPU memory" in client.get("/base-models").text


def test_what_is_usual_for_images_is_told_for_each_base_model(
    client: TestClient, state: AppState
) -> None:
    starter = client.get("/api/v1/base-models/1").json()["drawing"]
    with state.database.write() as session:
        base = zimage_row(session)
    body = {"variant": Variant.TURBO}
    turbo = client.patch(f"/api/v1/base-models/{base}", json=body).json()["drawing"]
    assert (starter["samplers"], starter["weight"]) == (list(SamplerName), 1)
    assert turbo == {
        "steps": 9,
        "guidance": 1,
        "samplers": ["euler", "dpmpp_2m"],
        "weight": 2,
        "has_prompt_weights": False,
        "side_step": 16,
    }
    asked = {"prompt": "a fox", "base_model": "starter"}
    drawn = client.post("/api/v1/renders", json=asked).json()
    drawn = client.get(f"/api/v1/renders/{drawn['id']}").json()
    assert {name: drawn[name] for name in ("steps", "guidance")} == {
        name: starter[name] for name in ("steps", "guidance")
    }
