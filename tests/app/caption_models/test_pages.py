"""The page of the models that caption images on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.config import Settings
from app.registry.datasets import service as datasets
from app.registry.db import utcnow
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs
from app.registry.state import AppState
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.jobs import IoJob
from tests.app.datasets.test_service import picture
from tests.conftest import AppMaker

PAGE = "/caption-models"
MEGABYTE = "x" * 1_000_000


def add_ready(state: AppState, folder: Path, name: str = "blip", **values: object) -> CaptionModel:
    """A model that can be used; its folder is there."""
    (folder / name).mkdir(exist_ok=True)
    given = {"source": str(folder / name), "family": "blip", "size_bytes": 2_000_000_000} | values
    row = CaptionModel(name=name, slug=name, status=ModelStatus.READY, **given)
    with state.database.write() as session:
        session.add(row)
    return row


def test_an_empty_page_says_what_to_do(client: TestClient) -> None:
    page = client.get(PAGE).text
    assert "No caption models yet" in page
    assert "Name on the Hub, or path on this machine" in page
    assert 'hx-trigger="poll"' not in page.partition('id="content"')[2]
    for address in ("/datasets", "/system"):
        assert f'href="{PAGE}"' in client.get(address).text


def test_a_folder_is_added_and_followed_while_it_is_checked(
    client: TestClient, tmp_path: Path
) -> None:
    folder = tmp_path / "my-blip"
    folder.mkdir()
    page = client.post(PAGE, data={"source": str(folder)}).text
    assert "my-blip" in page
    assert "Checking" in page
    assert 'hx-trigger="poll"' in page
    assert ">Refresh</a>" in page  # without scripts
    twice = client.post(PAGE, data={"source": str(folder)})
    assert twice.status_code == 409
    assert "has already been added as “my-blip”" in twice.text
    assert f'value="{folder}"' in twice.text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "Enter the path"),
        ("/nowhere/at all", "/nowhere/at all does not exist"),
        ("blip", "absolute path"),
        ("a/b/c/d", "Add the whole folder or repository"),
        ("acme/tiny/model.safetensors", "Add the whole folder or repository"),
        ("/" + "x" * 9_000, "cannot be read"),
        ("acme/" + "x" * 9_000, "absolute path"),
    ],
    ids=["empty", "missing", "word", "deep", "file", "long path", "long name"],
)
def test_what_cannot_be_added_comes_back_with_the_reason(
    client: TestClient, source: str, reason: str
) -> None:
    answer = client.post(PAGE, data={"source": source})
    assert answer.status_code == 422
    assert 'id="source-error"' in answer.text
    assert reason in answer.text
    assert f'value="{source}"' in answer.text
    assert "No caption models yet" in answer.text
    headers = {"accept": "text/html"}
    endless = client.post(PAGE, data={"source": source + MEGABYTE}, headers=headers)
    assert endless.status_code == 422
    assert "<h1" in endless.text


def test_a_model_of_the_hub_is_followed_stopped_and_downloaded_again(
    client: TestClient, state: AppState
) -> None:
    page = client.post(PAGE, data={"source": "acme/tiny-blip"}).text
    assert "In line: downloads run one at a time" in page
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "download_caption_model")).one()
        job.started_at = utcnow()
        job.result = {"bytes_done": 1_500_000, "bytes_total": 6_000_000, "file": "model.onnx"}
        session.add(job)
    page = client.get(PAGE).text
    assert 'max="6000000" value="1500000"' in page
    assert "1.5 MB of 6 MB (25 %), model.onnx" in page
    refused = client.post(f"{PAGE}/1/remove")
    assert refused.status_code == 409
    assert "Stop the download first" in refused.text
    page = client.post(f"{PAGE}/1/cancel").text
    assert "The download was stopped at 1.5 MB of 6 MB." in page
    assert "Download again" in page
    assert client.post(f"{PAGE}/1/cancel").status_code == 409
    assert "In line" in client.post(f"{PAGE}/1/check").text
    assert client.post(f"{PAGE}/1/check").status_code == 409
    client.post(f"{PAGE}/1/cancel")
    assert "acme/tiny-blip" not in client.post(f"{PAGE}/1/remove").text
    assert client.post(f"{PAGE}/1/remove").status_code == 404


def test_a_model_that_is_broken_says_why_and_is_checked_again(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    add_ready(state, tmp_path)
    page = client.get(PAGE).text
    assert ("Ready" in page, "BLIP" in page, "2 GB" in page) == (True, True, True)
    assert "Check again" not in page
    (tmp_path / "blip").rmdir()
    page = client.get(PAGE).text
    assert f"The files of “blip” are missing from {tmp_path / 'blip'}. Put them back." in page
    assert ("Ready" in page, "Failed" in page) == (False, True)
    assert "Checking" in client.post(f"{PAGE}/1/check").text


def test_removing_says_what_is_deleted_and_waits_for_captions(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    add_ready(state, tmp_path)
    download = state.settings.caption_models / "acme--tiny"
    download.mkdir(parents=True)
    add_ready(state, tmp_path, "tiny", source="hf://acme/tiny", local_path=str(download))
    page = client.get(PAGE).text
    asked = dict(zip(("own", "hub"), page.split('class="menu confirm"')[1:], strict=True))
    assert "its files stay where they are" in asked["own"]
    assert "2 GB, are deleted; it can be downloaded again" in asked["hub"]
    with state.database.write() as session:
        dataset = datasets.create_dataset(session, "Chalk")
        datasets.add_images(session, dataset.key, [picture(0)])
        args = CaptionImagesArgs(provider="local", model_id=1, image_ids=(1,))
        job = IoJob(kind="caption_images", subject_id=dataset.key, args=args.stored())
        session.add(job)
    refused = client.post(f"{PAGE}/1/remove")
    assert refused.status_code == 409
    assert "used by captions that are being written" in refused.text
    with state.database.write() as session:
        session.get_one(IoJob, job.key).status = "canceled"
    client.post(f"{PAGE}/1/remove")
    assert (tmp_path / "blip").is_dir()
    page = client.post(f"{PAGE}/2/remove").text
    assert "No caption models yet" in page
    assert not download.exists()


@pytest.mark.parametrize("hub", ["off", "on"])
def test_where_only_one_kind_of_place_is_allowed_the_form_says_so(
    make_app: AppMaker, settings: Settings, tmp_path: Path, hub: str
) -> None:
    update = {"hub": hub, "host": "0.0.0.0", "model_folders": ""}
    changed = settings.model_copy(update=update)
    with TestClient(make_app(changed), base_url="http://localhost") as client:
        page = client.get(PAGE).text
        assert ("Adding caption models is off" in page) == (hub == "off")
        assert ("Add a caption model" in page) == (hub == "on")
        answer = client.post(PAGE, data={"source": str(tmp_path)})
        assert answer.status_code == 422
        assert "BRUSHWORK_MODEL_FOLDERS" in answer.text
        status = client.post(PAGE, data={"source": "acme/tiny"}).status_code
    assert status == (200 if hub == "on" else 403)


def test_a_local_model_is_chosen_on_the_page_of_a_dataset(
    client: TestClient, state: AppState, tmp_path: Path
) -> None:
    with state.database.write() as session:
        dataset = datasets.create_dataset(session, "Chalk")
        datasets.add_images(session, dataset.key, [picture(0)])
    auto = "/datasets/chalk/captions/auto"
    assert f'<a href="{PAGE}">add a caption model</a>' in client.get(auto).text
    add_ready(state, tmp_path)
    page = client.get(auto).text
    assert "BLIP on this machine" in page
    assert f'<a href="{PAGE}">Caption models</a> of this machine' in page
    sent = {"provider": "local-1", "do_not_name": "chalk, my words", "mode": "fill"}
    assert client.post(auto, data=sent, follow_redirects=False).status_code == 303
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "caption_images")).one()
        job.status = "succeeded"
        session.add(job)
    assert job.arguments(CaptionImagesArgs).model_id == 1
    assert 'id="provider-local-1" checked' in client.get(auto).text
    client.post(f"{PAGE}/1/remove")
    answer = client.post(auto, data=sent)
    assert answer.status_code == 422
    assert 'id="provider-error"' in answer.text
    assert "This caption model was removed" in answer.text
    assert "chalk, my words" in answer.text
    for provider in ("local-0", "local-99999999999999999999", "local-x", MEGABYTE):
        assert client.post(auto, data=sent | {"provider": provider}).status_code == 422
