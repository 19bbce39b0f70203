"""The page of base models."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.db import utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.base_models import BaseModel
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
    assert "hx-trigger" not in page.partition('id="bases"')[2].partition(">")[0]


def test_a_base_is_added_by_its_path_and_followed_while_it_is_looked_at(
    client: TestClient, tmp_path: Path
) -> None:
    folder = tmp_path / "my-base"
    folder.mkdir()
    page = client.post("/base-models", data={"source": str(folder)}).text
    assert "my-base" in page
    assert "Checking" in page
    assert 'hx-trigger="poll"' in page
    twice = client.post("/base-models", data={"source": str(folder)})
    assert twice.status_code == 409
    assert "has already been added as" in twice.text


def test_a_path_that_cannot_be_used_comes_back_with_its_reason(client: TestClient) -> None:
    answer = client.post("/base-models", data={"source": "/nowhere/at all"})
    assert answer.status_code == 422
    assert 'value="/nowhere/at all"' in answer.text
    assert "/nowhere/at all does not exist" in answer.text
    assert client.post("/base-models", data={}).status_code == 422


def test_a_base_that_failed_says_why(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        session.add(
            BaseModel(
                slug="bad",
                name="bad",
                source="/models/bad",
                status=ModelStatus.FAILED,
                error="This folder holds no UNet.",
            )
        )
    page = client.get("/base-models").text
    assert "Failed" in page
    assert "This folder holds no UNet." in page


def test_a_base_whose_files_are_gone_can_be_downloaded_again(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    gone = {"status": ModelStatus.READY, "local_path": str(tmp_path / "gone")}
    here = tmp_path / "here"
    here.mkdir()
    with state.database.write() as session:
        session.add(BaseModel(slug="hub", name="hub", source="hf://stab/hub", **gone))
    page = client.get("/base-models").text
    assert "The files of “hub” are missing. Download it again" in page
    assert '<button class="button">Download again</button>' in page
    assert "Failed" in page
    client.post("/base-models", data={"source": "stab/hub"})
    with state.database.write() as session:
        base = session.exec(select(BaseModel).where(BaseModel.slug == "hub")).one()
        assert base.status == ModelStatus.DOWNLOADING
        base.status, base.source = ModelStatus.READY, str(tmp_path / "mine")
        base.local_path = None
        session.add(base)
    page = client.get("/base-models").text
    assert "are missing from" in page
    assert "Download again" not in page
    assert "Check again" not in page
    here.rename(tmp_path / "mine")
    assert "are missing" not in client.get("/base-models").text


def test_a_download_from_the_hub_is_followed_stopped_and_tried_again(
    client: TestClient, state: AppState
) -> None:
    page = client.post("/base-models", data={"source": "acme/tiny", "precision": "fp32"}).text
    assert "In line: downloads run one at a time" in page
    assert 'hx-trigger="poll"' in page
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_base")).one()
        base_id = job.subject_id
        assert job.args["precision"] == "fp32"
        job.started_at = utcnow()
        job.result = {"bytes_done": 1_500_000, "bytes_total": 6_000_000, "file": "vae/x"}
        session.add(job)
    page = client.get("/base-models").text
    assert "Downloading" in page
    assert 'max="6000000" value="1500000"' in page
    assert "1.5 MB of 6 MB (25 %), vae/x" in page
    page = client.post(f"/base-models/{base_id}/cancel").text
    assert "The download was stopped at 1.5 MB of 6 MB." in page
    assert "Download again" in page
    client.post("/base-models", data={"source": "acme/tiny"})
    with state.database.read() as session:
        jobs = session.exec(select(IoJob).where(IoJob.kind == "download_base")).all()
    assert [job.args["precision"] for job in jobs] == ["fp32", "fp32"]
    client.post(f"/base-models/{base_id}/cancel")
    assert "acme/tiny" not in client.post(f"/base-models/{base_id}/remove").text


def test_a_download_whose_worker_was_lost_too_often_says_so(
    client: TestClient, state: AppState
) -> None:
    client.post("/base-models", data={"source": "acme/tiny"})
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_base")).one()
        job.status, job.error = JobStatus.FAILED, "The worker stopped 20 times."
        session.add(job)
    page = client.get("/base-models").text
    assert "The worker stopped 20 times." in page
    assert "Downloading" not in page
    assert client.post("/base-models", data={"source": "acme/tiny"}).status_code == 200


def test_removing_asks_first_and_says_what_is_lost_and_what_stays(
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
