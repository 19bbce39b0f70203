"""The folders of other programs: the page, REST, the command line and what is offered to import."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from app.cli.main import main
from app.registry.adapters import folders, service
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.config import Settings
from app.registry.db import Database, database_now
from app.registry.errors import InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.renders.ordered_covers import missing_covers
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.app.adapters.test_pages import safetensors
from tests.claims import end_io_job

HTML = {"accept": "text/html"}


@pytest.fixture
def state(app: FastAPI, tmp_path: Path) -> AppState:
    """A server with the folder of one program, and a trained adapter."""
    (tmp_path / "loras").mkdir()
    state: AppState = app.state.brushwork
    settings = state.settings.model_copy(update={"export_folders": f"ComfyUI={tmp_path}/loras"})
    app.state.brushwork = state = dataclasses.replace(state, settings=settings)
    fake_workers.adapter(state, "Chalk")
    return state


def jobs(state: AppState) -> list[dict[str, object]]:
    with state.database.read() as session:
        found = session.exec(select(IoJob).where(IoJob.kind == "keep_in_folder"))
        return [job.args for job in found]


def test_an_adapter_is_kept_and_removed_on_the_page(client: TestClient, state: AppState) -> None:
    assert 'href="/folders?adapter=chalk"' in client.get("/adapters/chalk").text
    assert 'To begin, open one of the <a href="/adapters">' in client.get("/folders").text
    page = client.get("/folders?adapter=chalk").text
    assert '<option value="latest" selected>latest, now version 1</option>' in page
    sent = {"adapter": "chalk", "version": "latest"}
    told = client.post("/folders/ComfyUI", data=sent).text
    told_job = {"folder": "ComfyUI", "version": "latest", "file": "chalk.safetensors"}
    assert jobs(state) == [told_job]
    assert "chalk.safetensors: being written…" in told
    assert "<p>“Chalk” is being written to ComfyUI.</p>" in told  # where the page begins
    client.post("/folders/ComfyUI", data=sent)
    assert len(jobs(state)) == 1  # it is at work
    removal = {"adapter": "1", "version": "latest"}
    assert client.post("/folders/ComfyUI/removals", data=removal).status_code == 409
    kept = {"version": 1, "sha256": "5" * 64, "hashes": ["6" * 64]}
    end_io_job(
        state.database,
        lambda job: job.kind == "keep_in_folder",
        JobStatus.SUCCEEDED,
        result=kept,
    )
    assert "chalk.safetensors, version 1, written" in client.get("/folders").text
    client.post("/adapters/chalk/delete")
    client.delete("/api/v1/storage/forever/adapters/1")
    page = client.get("/folders").text
    assert "An adapter that was deleted for good" in page
    assert 'aria-label="Remove chalk.safetensors from ComfyUI"' in page
    client.post("/folders/ComfyUI/removals", data=removal)
    assert [job["hashes"] for job in jobs(state)] == [["6" * 64]]
    end_io_job(state.database, lambda job: job.kind == "keep_in_folder", JobStatus.SUCCEEDED)
    assert "chalk.safetensors" not in client.get("/folders").text


def test_the_api_keeps_versions_in_folders_of_the_settings_alone(
    client: TestClient, state: AppState
) -> None:
    address = "/api/v1/folders/ComfyUI/adapters/1"
    kept = client.put(f"{address}?version=V1").json()
    assert (kept["file"], kept["status"]) == ("chalk_v1.safetensors", "queued")
    assert client.get("/api/v1/folders").json() == {"ComfyUI": [kept]}
    assert client.put(f"{address}?version=best").status_code == 404
    assert client.put(address.replace("ComfyUI", "Forge")).status_code == 422
    for version in ("../../etc", "best"):
        assert client.request("DELETE", address, params={"version": version}).status_code == 404
    assert len(jobs(state)) == 1


def test_files_of_others_are_offered_for_import(client: TestClient, state: AppState) -> None:
    folder = state.settings.export_folder_paths["ComfyUI"]
    (folder / "styles").mkdir()
    for name in ("ink.safetensors", "styles/oil.safetensors", "known.safetensors"):
        (folder / name).write_bytes(safetensors())
    (folder / "link.safetensors").symlink_to(folder / "ink.safetensors")
    (folder / "peft").mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / "peft" / name).write_bytes(safetensors())
    known = ("known.safetensors", "peft.safetensors")
    for name in known:  # be it that an equal adapter was here before
        with state.database.write() as session:
            service.order_import(session, sha256="0" * 64, filename=name)
        end_io_job(
            state.database,
            lambda job: job.kind == "import_adapter",
            JobStatus.SUCCEEDED,
            result={"adapter_id": 1, "version": 1, "duplicate": True},
        )
    with state.database.write() as session:
        service.order_import(session, sha256="0" * 64, filename="ink.safetensors")
    end_io_job(state.database, lambda job: job.kind == "import_adapter", JobStatus.FAILED)
    assert "2 files of others, to import" in client.get("/folders").text
    sent = {"file": ["ink.safetensors", "styles/oil.safetensors"]}
    told = client.post("/folders/ComfyUI/imports", data=sent).text
    assert "2 files: 2 to go" in told
    assert "to import" not in client.get("/folders").text
    for name in ("../secret.safetensors", "link.safetensors", "/etc/passwd"):
        with pytest.raises(InvalidInput, match="Choose files of this folder"):
            folders.import_files(state, "ComfyUI", [name])
    folder.rename(folder.with_name("gone"))
    assert "cannot be used: No such file or directory" in client.get("/folders").text


def test_without_a_setting_the_page_says_which(client: TestClient, app: FastAPI) -> None:
    assert "BRUSHWORK_EXPORT_FOLDERS" in client.get("/folders").text
    for value in ("ComfyUI=loras", "/srv/loras", "a/b=/srv"):
        with pytest.raises(ValueError, match="is no name with the absolute path"):
            Settings(_env_file=None, export_folders=value)


def test_the_command_line_keeps_and_removes(
    state: AppState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_EXPORT_FOLDERS", state.settings.export_folders)
    monkeypatch.setenv("BRUSHWORK_DATABASE_URL", state.settings.sqlalchemy_url)
    command = [
        "export",
        "chalk",
        "--keep-in",
        "ComfyUI",
        "--data-dir",
        str(state.settings.data_dir),
    ]
    assert main(command) == 0
    assert "loras/chalk.safetensors." in capsys.readouterr().out
    assert main([*command, "--stop"]) == 1
    assert "is being written" in capsys.readouterr().err


def test_both_databases_know_what_is_kept_imported_and_due(
    database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("other", "known"):
        (folder / f"{name}.safetensors").write_bytes(b"x")
    settings = Settings(_env_file=None, data_dir=tmp_path, export_folders=f"ComfyUI={folder}")
    with database.write() as session:
        version = publish(session, NewVersion("Known", "sd1", "0" * 64, 1, 4, 4.0))
        service.order_import(session, sha256="0" * 64, filename="known.safetensors")
        adapter = session.get_one(Adapter, version.adapter_id)
        job = folders.keep(session, settings, adapter, "ComfyUI").job
        assert folders.other_files(session, settings, "ComfyUI") == ["other.safetensors"]
        assert missing_covers(session).adapters == [adapter]
        job.status, job.finished_at = JobStatus.FAILED, database_now(session) - timedelta(hours=1)
        job.error_code = folders.FolderUnusable.code
        session.add(job)
    folders.order_due(settings, database)
    with database.read() as session:
        (kept,) = folders.list_kept(session, "ComfyUI")
        assert (kept.job.status, kept.job.id != job.id) == ("queued", True)
        deleted = session.get_one(Adapter, adapter.key)
    with database.write() as session:
        deleted.deleted_at = kept.job.finished_at = database_now(session) - timedelta(hours=1)
        kept.job.status = JobStatus.FAILED
        session.add_all([deleted, kept.job])
    folders.order_due(settings, database)
    with database.read() as session:
        assert [row.job.status for row in folders.list_kept(session, "ComfyUI")] == ["failed"]


def test_what_two_order_at_once_is_written_once(database: Database, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, export_folders=f"ComfyUI={tmp_path}")
    with database.write() as session:
        key = publish(session, NewVersion("Chalk", "sd1", "0" * 64, 1, 4, 4.0)).adapter_id

    def keep() -> None:
        with database.write() as session:
            folders.keep(session, settings, session.get_one(Adapter, key), "ComfyUI")

    second = Thread(target=keep)
    with database.write() as session:
        folders.keep(session, settings, session.get_one(Adapter, key), "ComfyUI")
        second.start()
        second.join(0.5)
    second.join()
    with database.read() as session:
        assert len(folders.list_kept(session, "ComfyUI")) == 1
