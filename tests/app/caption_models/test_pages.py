"""The page of the models that caption images on this machine."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.datasets import service as datasets
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs
from app.registry.state import AppState
from app.registry.tables.added_models import CaptionModel, ModelStatus
from app.registry.tables.jobs import IoJob
from tests.app.added_models.kinds import MEGABYTE
from tests.app.datasets.test_service import picture

PAGE = "/caption-models"


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
