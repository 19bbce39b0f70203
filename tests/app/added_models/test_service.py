"""Models of both kinds are added from a path or the Hub, checked again, stopped and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import select

from app.registry.added_models import removal, service
from app.registry.added_models.removal import FileRemoval
from app.registry.added_models.service import ModelKind, delete_model_files
from app.registry.base_models.service import BASE_MODELS
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import Conflict, Forbidden, InvalidInput, NotFound
from app.registry.tables.jobs import IoJob
from tests.app.added_models.kinds import REPO, Models, both_kinds, make_folder

pytestmark = both_kinds


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def test_a_folder_is_checked_and_then_ready(
    database: Database, settings: Settings, folder: Path, kind: ModelKind
) -> None:
    with database.write() as session:
        models = Models(session, kind)
        model = service.add(session, kind, f" {folder} ", settings)
        row, job = models.row(), models.newest_job()
        assert (row.status, row.is_changing, model.is_from_hub) == ("checking", True, False)
        assert (job.kind, job.subject_id) == (kind.check.kind, model.key)
        with pytest.raises(Conflict, match=f"This {kind.name} has already been added as “My Mo"):
            service.add(session, kind, str(folder), settings)
        models.make_ready(model)
        row = models.row()
        assert (row.status, row.error, row.missing) == ("ready", None, "")
        assert (model.slug, model.place, model.location) == ("my-model", str(folder), folder)
        with pytest.raises(Conflict, match="already been added"):
            service.add(session, kind, str(folder), settings)
        folder.rmdir()
        assert models.row().missing.endswith(f"are missing from {folder}. Put them back.")


def test_a_model_that_failed_is_checked_again_by_adding_it_or_on_request(
    sqlite_database: Database, settings: Settings, folder: Path, kind: ModelKind
) -> None:
    with sqlite_database.write() as session:
        models = Models(session, kind)
        model = service.add(session, kind, str(folder), settings)
        with pytest.raises(Conflict, match="being downloaded or checked"):
            service.check_again(session, kind, model, settings)
        service.write_unusable(session, kind, model.key, "It has no config.json.")
        assert models.row().error == "It has no config.json."
        assert service.add(session, kind, str(folder), settings).key == model.key
        service.write_unusable(session, kind, model.key, "Still none.")
        service.check_again(session, kind, model, settings)
        assert (model.status, model.error) == ("checking", None)
        assert len(session.exec(select(IoJob)).all()) == 3


def test_what_cannot_be_a_model_is_refused(
    sqlite_database: Database, settings: Settings, kind: ModelKind
) -> None:
    sources = {
        "": f"Enter the path of {kind.places}",
        "./model": "Enter the absolute path",
        "/no/such/place": "does not exist",
        "~nobody-of-this-name/model": "cannot be read",
        "/proc/1/root/model\u0001": "",  # the sentence depends on the rights of the user
        "/" + "x" * 300: "cannot be read",
        "/etc/hostname": kind.other_file,
        "acme/tiny/model.ckpt": kind.other_file,
        "a\0b": "Enter the path",
    }
    with sqlite_database.write() as session:
        for source, sentence in sources.items():
            with pytest.raises(InvalidInput) as refused:
                service.add(session, kind, source, settings)
            assert sentence in refused.value.detail, source
            assert set(refused.value.fields) == {"source"}, source


def test_only_kinds_with_files_of_their_own_take_a_single_file(
    sqlite_database: Database, settings: Settings, tmp_path: Path, kind: ModelKind
) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with sqlite_database.write() as session:
        for source in (str(file), "acme/tiny@v2/model.safetensors"):
            if kind is BASE_MODELS:
                assert service.add(session, kind, source, settings).name == "model"
            else:
                with pytest.raises(InvalidInput, match="Add the whole folder or repository"):
                    service.add(session, kind, source, settings)


def test_a_server_that_others_use_takes_only_allowed_folders_and_no_hub(
    sqlite_database: Database, tmp_path: Path, folder: Path, kind: ModelKind
) -> None:
    shared = Settings(_env_file=None, data_dir=tmp_path / "data", password="a long password")
    with sqlite_database.write() as session:
        with pytest.raises(InvalidInput, match=f"{kind.title} can only be added from the fold"):
            service.add(session, kind, str(folder), shared)
        with pytest.raises(Forbidden, match="BRUSHWORK_HUB=on"):
            service.add(session, kind, REPO, shared)
        allowing = shared.model_copy(update={"model_folders": str(tmp_path), "hub": "on"})
        assert service.add(session, kind, str(folder), allowing).status == "checking"
        assert service.add(session, kind, REPO, allowing).status == "downloading"


def test_a_download_whose_files_are_gone_is_started_again(
    sqlite_database: Database, settings: Settings, tmp_path: Path, kind: ModelKind
) -> None:
    with sqlite_database.write() as session:
        models = Models(session, kind)
        model = service.add(session, kind, REPO, settings)
        service.cancel(session, kind, model.key)
        service.write_downloaded(session, kind, model.key, str(tmp_path / "gone"), "abc")
        assert (models.newest_job().kind, model.status) == (kind.check.kind, "checking")
        models.make_ready(model)
        assert f"are missing. Download it again under {kind.title}." in models.row().missing
        assert service.problem_of(kind, model) == models.row().missing
        assert service.add(session, kind, REPO, settings).status == "downloading"


def test_what_came_from_the_hub_is_deleted_with_its_last_model(
    sqlite_database: Database, settings: Settings, folder: Path, kind: ModelKind
) -> None:
    home = kind.download_folder(settings) / "florence-community--Florence-2-base"
    (home / "abc").mkdir(parents=True)
    with sqlite_database.write() as session:
        own = service.add(session, kind, str(folder), settings)
        first, second = (service.add(session, kind, f"{REPO}{at}", settings) for at in ("", "@v2"))
        for model in (first, second):
            service.cancel(session, kind, model.key)
            service.write_downloaded(session, kind, model.key, str(home / "abc"), "abc")
        assert (first.revision, first.local_path) == ("abc", str(home / "abc"))

        def fate(model: object) -> tuple[FileRemoval, Path | None]:
            return removal.file_removal(session, kind, model, settings)

        assert fate(own) == (FileRemoval.STAY, None)
        assert fate(first) == (FileRemoval.SHARED, None)
        session.delete(first)
        session.flush()
        assert fate(second) == (FileRemoval.FETCHABLE, home)
    delete_model_files(home)
    assert not home.exists()
    assert folder.exists()


def test_results_of_a_model_that_was_removed_meanwhile_are_dropped(
    sqlite_database: Database, kind: ModelKind
) -> None:
    with sqlite_database.write() as session:
        service.write_unusable(session, kind, 9, "It is gone.")
        service.write_downloaded(session, kind, 9, "/x", "abc")
        assert Models(session, kind).rows() == []
        assert session.exec(select(IoJob)).all() == []
        with pytest.raises(NotFound, match=f"This {kind.name} does not exist"):
            service.get_model(session, kind, 9)


def test_a_model_is_found_by_slug_source_name_on_the_hub_and_id(
    database: Database, settings: Settings, folder: Path, kind: ModelKind
) -> None:
    with database.write() as session:
        model = service.add(session, kind, str(folder), settings)
        other = service.add(session, kind, REPO, settings)
        for reference in ("my-model", str(folder), str(model.key), model.key):
            assert service.find_model(session, kind, reference) == model
        for reference in (REPO, f"hf://{REPO}"):
            assert service.find_model(session, kind, reference) == other
        for reference in ("blip", "9" * 30, "a\0b"):
            with pytest.raises(InvalidInput, match="Choose one of: my-model, flor") as refused:
                service.find_model(session, kind, reference)
            assert set(refused.value.fields) == {kind.field}


def test_a_model_says_why_it_cannot_be_used(
    sqlite_database: Database, settings: Settings, folder: Path, kind: ModelKind
) -> None:
    with sqlite_database.write() as session:
        model = service.add(session, kind, str(folder), settings)
        named = f"The {kind.name} “My Model”"
        assert service.problem_of(kind, model).startswith(f"{named} is being checked.")
        service.write_unusable(session, kind, model.key, "It has no config.json.")
        assert service.problem_of(kind, model) == f"{named} cannot be used: It has no config.json."
        models = Models(session, kind)
        models.make_ready(model)
        assert service.problem_of(kind, model) == ""
        other = service.add(session, kind, REPO, settings)
        assert "is being downloaded" in service.problem_of(kind, other)
