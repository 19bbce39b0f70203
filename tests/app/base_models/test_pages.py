"""The page of base models."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models.service import write_size
from app.registry.base_models.service import BASE_MODELS
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.jobs import IoJob
from tests.conftest import embedded_info


def test_the_embedded_base_is_listed_with_its_facts(client: TestClient) -> None:
    page = client.get("/base-models").text
    assert "built in" in page
    assert f"{embedded_info().resolution} px" in page
    assert "without VAE" in page
    counts = embedded_info().parameters
    tunable = (counts["unet"] + counts["text_encoder"]) / 1e6  # as the pages of runs count
    assert f'<td class="number">{tunable:.1f} M</td>' in page
    assert "hx-trigger" not in page.partition('id="models"')[2].partition(">")[0]


def test_a_base_whose_files_are_gone_can_be_downloaded_again(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    ready = {"status": ModelStatus.READY}
    gone = str(tmp_path / "gone")
    with state.database.write() as session:
        session.add(BaseModel(slug="own", name="own", source=gone, **ready))
    page = client.get("/base-models").text
    assert ("are missing from" in page, "Failed" in page) == (True, True)
    assert ("Download again" in page, "Check again" in page) == (False, False)
    with state.database.write() as session:
        hub = BaseModel(slug="hub", name="hub", source="hf://stab/hub", local_path=gone, **ready)
        session.add(hub)
    assert '<button class="button">Download again</button>' in client.get("/base-models").text


def test_the_form_chooses_the_precision_of_a_download(client: TestClient, state: AppState) -> None:
    client.post("/base-models", data={"source": "acme/tiny", "precision": "fp32"})
    with state.database.read() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_base")).one()
    assert job.args["precision"] == "fp32"


def test_a_size_that_was_asked_for_is_no_failure_and_is_followed_by_the_download(
    client: TestClient, state: AppState
) -> None:
    asked = {"source": "acme/tiny", "precision": "fp32", "size_only": "1"}
    client.post("/base-models", data=asked)
    with state.database.write() as session:
        row = session.exec(select(BaseModel).where(BaseModel.source == "hf://acme/tiny")).one()
        write_size(session, BASE_MODELS, row.key, 20_520_000_000)
    page = client.get("/base-models").text
    assert '<p class="hint">Not downloaded yet: its files take 20.5 GB.' in page
    assert '<button class="button">Download</button>' in page
    assert "Failed" not in page
    answer = client.get(f"/api/v1/base-models/{row.key}").json()
    assert (answer["status"], answer["size_bytes"]) == ("failed", 20_520_000_000)
    client.post("/base-models", data={"source": "acme/tiny"})
    with state.database.read() as session:
        jobs = session.exec(select(IoJob).where(IoJob.kind == "download_base")).all()
    assert [job.args.get("size_only") for job in jobs] == [True, None]
    assert {job.args["precision"] for job in jobs} == {"fp32"}


def test_removing_asks_first_and_lists_what_is_lost_and_what_is_kept(
    client: TestClient, state: AppState
) -> None:
    fused = state.settings.data_dir.resolve() / "fused" / "inked"
    sources = {"own": "/models/own", "tiny": "hf://acme/tiny", "inked": str(fused)}
    with state.database.write() as session:
        for name, source in sources.items():
            row = BaseModel(slug=name, name=name, source=source, status=ModelStatus.READY)
            row.size_bytes = 2_000_000_000
            session.add(row)
            session.flush()
            if name == "own":
                new = NewVersion("Ink", "sd1", "a" * 64, 5, 8, 8.0, base_model_id=row.key)
                publish(session, new)
    page = client.get("/base-models").text
    asked = dict(zip(("own", "tiny", "inked"), page.split('class="menu confirm"')[1:], strict=True))
    assert "its files stay where they are" in asked["own"]
    assert "Everything made with it stays: 1 adapter." in asked["own"]
    assert "2 GB, are deleted; it can be downloaded again" in asked["tiny"]
    assert "Everything made with it" not in asked["tiny"]
    assert "are deleted for good, because it was fused here" in asked["inked"]
    for base_id in (2, 3, 4):
        page = client.post(f"/base-models/{base_id}/remove").text
    assert page.count("/remove") == 0
    assert client.get("/adapters/ink").status_code == 200


def test_what_is_built_in_or_needed_is_not_removed(client: TestClient, state: AppState) -> None:
    assert "/base-models/1/remove" not in client.get("/base-models").text
    answer = client.post("/base-models/1/remove")
    assert answer.status_code == 409
    notice = answer.text.partition('<div class="notice bad" role="alert">')[2].partition("</div>")[
        0
    ]
    assert "built in and cannot be removed" in notice
    assert 'id="source-error"' not in answer.text
