"""The pages of base models and caption models: what both do."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.registry.added_models.service import ModelKind
from app.registry.config import Settings
from app.registry.db import utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from tests.app.added_models.kinds import KINDS, MEGABYTE, Models, both_kinds, make_folder
from tests.conftest import AppMaker


@both_kinds
def test_a_folder_is_added_and_followed_while_it_is_checked(
    client: TestClient, tmp_path: Path, kind: ModelKind
) -> None:
    folder = make_folder(tmp_path)
    assert 'hx-trigger="poll"' not in client.get(kind.address).text.partition('id="content"')[2]
    page = client.post(kind.address, data={"source": str(folder)}).text
    assert "My Model" in page
    assert "Checking" in page
    assert 'hx-trigger="poll"' in page
    assert ">Refresh</a>" in page  # without scripts
    twice = client.post(kind.address, data={"source": str(folder)})
    assert twice.status_code == 409
    assert "has already been added as “My Model”" in twice.text
    assert f'value="{folder}"' in twice.text


@both_kinds
def test_a_source_that_cannot_be_added_comes_back_with_the_reason(
    client: TestClient, kind: ModelKind
) -> None:
    sources = {
        "": "Enter the path",
        "/nowhere/at all": "/nowhere/at all does not exist",
        "word": "absolute path",
        "acme/tiny/model.ckpt": kind.other_file,
        "/" + "x" * 9_000: "cannot be read",
        "acme/" + "x" * 9_000: "absolute path",
    }
    for source, reason in sources.items():
        answer = client.post(kind.address, data={"source": source})
        assert answer.status_code == 422
        assert 'id="source-error"' in answer.text
        assert reason in answer.text
        assert f'value="{source}"' in answer.text
    headers = {"accept": "text/html"}
    endless = client.post(kind.address, data={"source": MEGABYTE}, headers=headers)
    assert (endless.status_code, "<h1" in endless.text) == (422, True)


@both_kinds
def test_a_download_is_followed_stopped_resumed_and_removed(
    client: TestClient, state: AppState, kind: ModelKind
) -> None:
    page = client.post(kind.address, data={"source": "acme/tiny"}).text
    assert "In line: downloads run one at a time" in page
    assert 'hx-trigger="poll"' in page
    with state.database.write() as session:
        models = Models(session, kind)
        address, job = f"{kind.address}/{models.row().model.key}", models.newest_job()
        job.started_at = utcnow()
        job.result = {"bytes_done": 1_500_000, "bytes_total": 6_000_000, "file": "model.onnx"}
        session.add(job)
    page = client.get(kind.address).text
    assert "Downloading" in page
    assert 'max="6000000" value="1500000"' in page
    assert "1.5 MB of 6 MB (25 %), model.onnx" in page
    refused = client.post(f"{address}/remove")
    assert refused.status_code == 409
    assert "Stop the download first" in refused.text
    page = client.post(f"{address}/cancel").text
    assert "The download was stopped at 1.5 MB of 6 MB." in page
    assert "Download again" in page
    assert "was stopped at 1.5 MB" in client.post(f"{address}/cancel").text  # once more
    assert "In line" in client.post(kind.address, data={"source": "acme/tiny"}).text
    client.post(f"{address}/cancel")
    assert "acme/tiny" not in client.post(f"{address}/remove").text
    assert client.post(f"{address}/remove").status_code == 404


@both_kinds
def test_a_model_that_failed_says_why(
    client: TestClient, state: AppState, tmp_path: Path, kind: ModelKind
) -> None:
    client.post(kind.address, data={"source": str(make_folder(tmp_path))})
    with state.database.write() as session:
        models = Models(session, kind)
        models.fail(models.row().model, "It has no config.json.")
    page = client.get(kind.address).text
    assert ("Failed" in page, "It has no config.json." in page) == (True, True)
    assert '<button class="button">Check again</button>' in page


@both_kinds
def test_a_download_whose_worker_was_lost_too_often_can_be_started_again_or_removed(
    client: TestClient, state: AppState, kind: ModelKind
) -> None:
    client.post(kind.address, data={"source": "acme/tiny"})
    with state.database.write() as session:
        job = Models(session, kind).newest_job()
        job.status, job.error = JobStatus.FAILED, "The worker stopped 20 times."
        session.add(job)
    page = client.get(kind.address).text
    assert "The worker stopped 20 times." in page
    assert "Downloading" not in page
    assert '<button class="button">Download again</button>' in page
    assert 'aria-label="Remove tiny"' in page
    assert client.post(kind.address, data={"source": "acme/tiny"}).status_code == 200


@pytest.mark.parametrize("hub", ["off", "on"])
def test_where_only_one_kind_of_place_is_allowed_the_form_says_so(
    settings: Settings, make_app: AppMaker, tmp_path: Path, hub: str
) -> None:
    update = {"hub": hub, "host": "0.0.0.0", "model_folders": ""}
    changed = settings.model_copy(update=update)
    with TestClient(make_app(changed), base_url="http://localhost") as client:
        for kind in KINDS:
            page = client.get(kind.address).text
            assert (f"Adding {kind.name}s is off" in page) == (hub == "off")
            assert (f"Add a {kind.name}" in page) == (hub == "on")
            answer = client.post(kind.address, data={"source": str(tmp_path)})
            assert answer.status_code == 422
            assert "BRUSHWORK_MODEL_FOLDERS" in answer.text
            status = client.post(kind.address, data={"source": "acme/tiny"}).status_code
            assert status == (200 if hub == "on" else 403)
