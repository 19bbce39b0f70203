"""Caption models are added from a folder or the Hub, checked again, stopped and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, select

from app.registry.caption_models import results, service
from app.registry.config import Settings
from app.registry.datasets.auto_caption import orders, providers
from app.registry.datasets.auto_caption.providers import CaptionRequest
from app.registry.db import Database
from app.registry.errors import Conflict, Forbidden, InvalidInput, NotFound
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.model_sources import delete_model_files
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from tests.app.datasets.test_service import filled
from worker.core.captioning.local.families import CaptionFamily
from worker.core.captioning.local.inspect import CaptionModelInfo
from worker.core.captioning.words import ProviderKind

FLORENCE = "florence-community/Florence-2-base"
INFO = CaptionModelInfo(CaptionFamily.FLORENCE2, 5_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to add; its content is for the io worker to look at."""
    path = tmp_path / "My Florence"
    path.mkdir()
    return path


def ready(session: Session, folder: Path, settings: Settings) -> CaptionModel:
    model = service.add(session, str(folder), settings)
    results.write_checked(session, model.key, INFO)
    return model


def newest_job(session: Session) -> IoJob:
    return session.exec(select(IoJob).order_by(IoJob.id.desc())).first()  # type: ignore


def test_a_folder_is_checked_and_then_ready(
    database: Database, settings: Settings, folder: Path
) -> None:
    with database.write() as session:
        model = service.add(session, f" {folder} ", settings)
        (row,) = service.list_models(session)
        assert (row.status, row.is_moving, row.is_from_hub) == ("checking", True, False)
        assert (newest_job(session).kind, newest_job(session).subject_id) == (
            "check_caption_model",
            model.key,
        )
        with pytest.raises(Conflict, match="already been added as “My Florence”"):
            service.add(session, str(folder), settings)
        results.write_checked(session, model.key, INFO)
        (row,) = service.list_models(session)
        assert (row.status, row.place, row.error) == ("ready", str(folder), None)
        assert (model.slug, model.family_label, model.size_bytes) == (
            "my-florence",
            "Florence-2",
            5_000,
        )
        with pytest.raises(Conflict, match="already been added"):
            service.add(session, str(folder), settings)


def test_a_model_that_failed_is_checked_again_by_adding_it_or_by_asking(
    database: Database, settings: Settings, folder: Path
) -> None:
    with database.write() as session:
        model = service.add(session, str(folder), settings)
        with pytest.raises(Conflict, match="being downloaded or checked"):
            service.check_again(session, model.key, settings)
        results.write_unusable(session, model.key, "It has no config.json.")
        assert service.list_models(session)[0].error == "It has no config.json."
        assert service.add(session, str(folder), settings).key == model.key
        results.write_unusable(session, model.key, "Still none.")
        service.check_again(session, model.key, settings)
        assert (model.status, model.error) == ("checking", None)
        assert len(session.exec(select(IoJob)).all()) == 3


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("", "Enter the path of the folder of a BLIP"),
        ("models/blip", None),  # a name on the Hub
        ("./blip", "Enter the absolute path"),
        ("/no/such/place", "does not exist"),
        ("/etc/hostname", "Add the whole folder"),
        ("acme/blip/model.safetensors", "Add the whole folder or repository"),
        ("a\0b", "Enter the path"),
    ],
)
def test_what_can_be_no_caption_model_is_refused(
    database: Database, settings: Settings, source: str, sentence: str | None
) -> None:
    with database.write() as session:
        if sentence is None:
            assert service.add(session, source, settings).source == f"hf://{source}"
            return
        with pytest.raises(InvalidInput, match=sentence) as refused:
            service.add(session, source, settings)
        assert set(refused.value.fields) == {"source"}


def test_on_a_server_of_others_only_allowed_folders_and_no_hub(
    database: Database, tmp_path: Path, folder: Path
) -> None:
    shared = Settings(_env_file=None, data_dir=tmp_path / "data", password="a long password")
    with database.write() as session:
        with pytest.raises(InvalidInput, match="Caption models can only be added from the fold"):
            service.add(session, str(folder), shared)
        with pytest.raises(Forbidden, match="BRUSHWORK_HUB=on"):
            service.add(session, FLORENCE, shared)
        allowing = shared.model_copy(update={"model_folders": str(tmp_path), "hub": "on"})
        assert service.add(session, str(folder), allowing).status == "checking"
        assert service.add(session, FLORENCE, allowing).status == "downloading"


def test_a_download_shows_its_progress_is_stopped_and_goes_on(
    database: Database, settings: Settings
) -> None:
    with database.write() as session:
        model = service.add(session, f"https://huggingface.co/{FLORENCE}", settings)
        job = newest_job(session)
        assert job.args == {"repo": FLORENCE, "revision": None}
        assert job.kind == "download_caption_model"
        with pytest.raises(Conflict, match="Stop the download first"):
            service.remove(session, model.key, settings)
        job.result = {"bytes_done": 500_000_000, "bytes_total": 10**9, "file": "model.safetensors"}
        session.add(job)
        session.flush()
        (row,) = service.list_models(session)
        assert row.download is not None
        assert (row.download.share, row.download.file) == (0.5, "model.safetensors")
        assert (row.place, row.is_from_hub) == (FLORENCE, True)
        service.cancel(session, model.key)
        (row,) = service.list_models(session)
        assert (row.status, row.download) == ("failed", None)
        assert "stopped at 500 MB of 1 GB" in str(row.error)
        with pytest.raises(Conflict, match="nothing to stop"):
            service.cancel(session, model.key)
        service.check_again(session, model.key, settings)
        assert newest_job(session).kind == "download_caption_model"
        assert model.status == "downloading"


def test_a_download_that_was_lost_shows_as_failed(database: Database, settings: Settings) -> None:
    with database.write() as session:
        model = service.add(session, FLORENCE, settings)
        job = newest_job(session)
        job.status, job.error = JobStatus.FAILED, "The worker stopped."
        session.add(job)
        session.flush()
        (row,) = service.list_models(session)
        assert (row.status, row.error) == ("failed", "The worker stopped.")
        assert service.add(session, FLORENCE, settings).key == model.key


def test_what_came_from_the_hub_is_deleted_with_its_last_model(
    database: Database, settings: Settings, folder: Path
) -> None:
    home = settings.caption_models / "florence-community--Florence-2-base"
    (home / "abc").mkdir(parents=True)
    with database.write() as session:
        own = ready(session, folder, settings)
        models = [service.add(session, f"{FLORENCE}{at}", settings) for at in ("", "@v2")]
        for model in models:
            service.cancel(session, model.key)
            results.write_downloaded(session, model.key, str(home / "abc"), "abc")
            results.write_checked(session, model.key, INFO)
        first, second = models
        assert (first.revision, first.local_path) == ("abc", str(home / "abc"))
        assert not service.deletes_files(session, first, settings)
        assert service.remove(session, first.key, settings) is None
        assert service.deletes_files(session, second, settings)
        assert service.remove(session, own.key, settings) is None
        place = service.remove(session, second.key, settings)
        assert place == home
        session.flush()
        assert service.list_caption_models(session) == []
    delete_model_files(place)
    assert not home.exists()
    assert folder.exists()


def test_results_of_a_model_that_was_removed_meanwhile_are_dropped(
    database: Database, settings: Settings
) -> None:
    with database.write() as session:
        results.write_checked(session, 9, INFO)
        results.write_unusable(session, 9, "It is gone.")
        results.write_downloaded(session, 9, "/x", "abc")
        assert service.list_models(session) == []
        assert session.exec(select(IoJob)).all() == []
        with pytest.raises(NotFound):
            service.get_caption_model(session, 9)


def test_a_ready_model_is_a_provider_and_another_says_why_not(
    database: Database, settings: Settings, folder: Path
) -> None:
    with database.write() as session:
        model = ready(session, folder, settings)
        other = service.add(session, FLORENCE, settings)
        offered = providers.list_providers(session, settings)
        assert [one.value for one in offered[:3]] == ["builtin", "local-1", "local-2"]
        assert (offered[1].name, offered[1].problem, offered[1].takes_prompt) == (
            "My Florence",
            "",
            False,
        )
        assert offered[1].hint.startswith("Florence-2 on this machine")
        assert "is being downloaded" in offered[2].problem

        def ask(model_id: int | None = None, reference: str = "") -> tuple[int | None, str]:
            asked = CaptionRequest(ProviderKind.LOCAL, model_id=model_id, model=reference)
            args = providers.check_request(session, settings, asked)
            return args.model_id, args.model

        expected = (model.key, str(folder))
        assert ask(model.key) == ask(None, "my-florence") == ask(None, str(folder)) == expected
        assert ask(model.key, str(folder)) == expected
        for model_id, reference, sentence in (
            (other.key, "", "is being downloaded"),
            (99, "", "was removed"),
            (model.key, "/another/folder", "was removed"),  # its number was given again
            (None, "blip", "Choose one of: my-florence, florence-2-base"),
        ):
            with pytest.raises(InvalidInput, match=sentence) as refused:
                ask(model_id, reference)
            assert set(refused.value.fields) == {"provider"}
        folder.rmdir()
        with pytest.raises(InvalidInput, match="Put them back"):
            ask(model.key)


def test_a_model_that_captions_wait_for_stays_and_its_proposals_outlive_it(
    database: Database, settings: Settings, folder: Path
) -> None:
    key = filled(database, None)
    with database.write() as session:
        model = ready(session, folder, settings)
        dataset = session.get_one(Dataset, key)
        asked = CaptionRequest(ProviderKind.LOCAL, model_id=model.key)
        job = orders.order_captions(session, dataset, asked, settings)
        assert job.arguments(CaptionImagesArgs).model == str(folder)
        for refused in (service.remove, service.check_again):
            with pytest.raises(Conflict, match="used by captions that are being written"):
                refused(session, model.key, settings)
        orders.cancel_order(session, key, job.key)
        service.remove(session, model.key, settings)
        session.flush()
        with pytest.raises(InvalidInput, match="was removed"):
            orders.continue_order(session, dataset, job.key, settings)
        assert orders.newest_order(session, key) is not None
        assert jobs.has_waiting(session, IoJob)  # only the check of the model
