"""The `brushwork` command: flags, refusals, and what each command does to a data folder."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.cli import demo, doctor, migrate, train, verify
from app.cli.adapter_files.arguments import TOOLS, tool_parser
from app.cli.main import build_parser, main, settings_from
from app.cli.serving import has_desktop
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.blobs import ownership
from app.registry.blobs.ownership import Owner
from app.registry.config import Settings
from app.registry.db import Database, make_engine, utcnow
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobStat
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import Event
from tests.app.cli.conftest import ROOT, brushwork
from worker.core import starter
from worker.core.eyes import __main__ as eyes
from worker.core.starter.checksums import write_checksums
from worker.core.starter.examples import Example

pytestmark = pytest.mark.usefixtures("no_surroundings")


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRUSHWORK_PORT", "9000")
    monkeypatch.setenv("BRUSHWORK_OPEN_BROWSER", "true")
    arguments = build_parser().parse_args(["serve", "--port", "9001", "--no-browser"])
    settings = settings_from(arguments)
    assert (settings.port, settings.open_browser) == (9001, False)
    assert settings_from(build_parser().parse_args(["serve"])).port == 9000


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_PORT", "many")
    assert main(["doctor"]) == 2
    assert "BRUSHWORK_PORT: Input should be a valid integer" in capsys.readouterr().err


def parsers_of(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """The parser, and those of its commands and their actions."""
    yield parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for inner in action.choices.values():
                yield from parsers_of(inner)


def test_no_command_takes_a_shortened_flag() -> None:
    tools = [tool_parser(name, ArgumentParser) for name in TOOLS]
    parsers = [*parsers_of(build_parser()), *tools, *parsers_of(eyes.build_parser())]
    assert {"brushwork datasets edit", "brushwork adapters scale"} < {one.prog for one in parsers}
    assert [one.prog for one in parsers if one.allow_abbrev] == []


def test_a_flag_of_another_tool_is_not_read_as_one_that_begins_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["adapters", "scale", "in.safetensors", "scaled.safetensors", "--out", "0.5"]
    with pytest.raises(SystemExit):
        main(words)
    assert "unrecognized arguments: --out 0.5" in capsys.readouterr().err


@pytest.mark.process
def test_the_supervisor_loads_neither_web_nor_database_nor_torch() -> None:
    program = (
        "import sys, app.cli.serve, app.cli.serving, app.supervisor.stack, app.__main__\n"
        "print({'torch', 'fastapi', 'sqlalchemy', 'celery', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n"


def test_train_leaves_its_words_to_the_training_core() -> None:
    words = ["--model", "base", "--steps", "3", "--help"]
    arguments = build_parser().parse_args(["train", *words])
    assert (arguments.module, arguments.words) == ("train", words)
    command = train.command(words, Settings(device="cuda:1", threads=4), train.CORES["train"])
    assert command[1:3] == ["-m", "worker.core.training"]
    assert command[3:] == ["--device", "cuda:1", "--threads", "4", *words]


@pytest.mark.process
def test_train_explains_itself_under_its_own_name() -> None:
    done = brushwork("train", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: brushwork train --base-model")
    assert "--learning-rate" in done.stdout


@pytest.mark.parametrize(
    ("environment", "is_terminal", "opened"),
    [
        ({"DISPLAY": ":0"}, True, True),
        ({"DISPLAY": ":0"}, False, False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "a b"}, True, False),
        ({"DISPLAY": ":0", "CI": "true"}, True, False),
        ({}, True, False),
    ],
)
def test_a_browser_opens_only_where_somebody_sees_it(
    environment: dict[str, str], is_terminal: bool, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_desktop(environment, is_terminal=is_terminal) is opened


# -- doctor -----------------------------------------------------------------------------------


def test_doctor_covers_every_secret() -> None:
    settings = Settings(
        password="hunter2",
        database_url="postgresql://me:hunter2@db/brushwork",
        storage_url="s3://bucket/x?aws_secret_access_key=hunter2&region=eu",
    )
    shown = "\n".join(doctor.effective_settings(settings).values())
    assert "hunter2" not in shown
    assert "me:•••@db" in shown
    assert "region=eu" in shown


@pytest.mark.process
def test_doctor_finds_a_sound_machine_sound(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data-dir", str(data_dir)]) == 0
    shown = capsys.readouterr().out
    assert "BRUSHWORK_DATABASE_URL" in shown
    for organ in doctor.CHECKS:
        assert f"ok   {organ}" in shown


def test_doctor_says_what_does_not_answer(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_BROKER_URL", "redis://:hunter2@127.0.0.1:1/0")
    monkeypatch.setattr(doctor, "CHECKS", {"broker": doctor.check_broker})
    assert main(["doctor", "--data-dir", str(data_dir)]) == 1
    shown = capsys.readouterr().out
    assert "FAIL broker" in shown
    assert "hunter2" not in shown


def test_doctor_says_how_a_damaged_base_model_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(starter.PATH, tmp_path / "weights")
    write_checksums(tmp_path / "weights")
    file = tmp_path / "weights" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")  # readable still
    moved = (
        f"import pathlib, worker.core.starter as starter\n"
        f"starter.PATH = pathlib.Path({str(tmp_path / 'weights')!r})\n"
    )
    monkeypatch.setattr(doctor, "BASE_PROGRAM", moved + doctor.BASE_PROGRAM)
    settings = Settings(data_dir=tmp_path)
    finding = doctor.run_check("base model", doctor.check_base_model, settings)
    assert not finding.fine
    assert "vae/diffusion_pytorch_model.safetensors" in finding.sentence
    assert finding.sentence.endswith(starter.REPAIR)


def test_doctor_asks_for_a_migration(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "brushwork.db").touch()
    finding = doctor.run_check("database", doctor.check_database, settings)
    assert not finding.fine
    assert "Run `brushwork migrate`" in finding.sentence


def test_doctor_misses_a_worker_that_is_not_here(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--queue", "train", "--data-dir", str(data_dir)]) == 1
    assert "No train worker" in capsys.readouterr().err


def test_doctor_finds_a_worker_that_is_here(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.registry.jobs.presence import Presence

    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    Presence("train").announce(database, device="CPU, 2 threads")
    database.dispose()
    assert main(["doctor", "--queue", "train", "--data-dir", str(data_dir)]) == 0
    assert "CPU, 2 threads" in capsys.readouterr().out


def test_doctor_looks_for_no_worker_without_a_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    assert main(["doctor", "--queue", "io", "--data-dir", str(folder)]) == 2
    assert "Run `brushwork migrate` first" in capsys.readouterr().err
    assert not (folder / "brushwork.db").exists()
    (folder / "brushwork.db").touch()
    assert main(["doctor", "--queue", "io", "--data-dir", str(folder)]) == 2


# -- outages, private files -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sweep", "verify"])
def test_an_outage_during_a_command_is_a_sentence(
    command: str,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It begins after the command has seen that the database can be used."""
    impatient = functools.partial(make_engine, patience=0)
    monkeypatch.setattr("app.cli.database.make_engine", impatient)
    other = sqlite3.connect(data_dir / "brushwork.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        assert main([command, "--data-dir", str(data_dir)]) == 1
    assert capsys.readouterr().err.startswith("The database is busy with something else")


def test_a_mistake_of_the_program_keeps_its_traceback(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("a mistake")

    monkeypatch.setattr(verify, "require_database", fail)
    with pytest.raises(LookupError, match="a mistake"):
        main(["verify", "--data-dir", str(data_dir)])


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ("serve", 0o600),
        ("doctor --queue io", 0o600),
        ("verify", 0o600),
        ("adapters", 0o600),
        ("import a", 0o600),
        ("backup", 0o600),
        ("adapters inspect a", 0o644),
        ("export ink", 0o644),
        ("train a", 0o644),
        ("demo", 0o644),
    ],
)
def test_what_lies_in_the_data_folder_is_private_to_its_user(
    words: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_file(*_: object) -> int:
        Path("made").touch()
        return 0

    arguments = build_parser().parse_args(words.split())
    monkeypatch.setattr(f"app.cli.{arguments.module}.run", make_file)
    os.umask(0o022)
    assert main(words.split()) == 0
    assert stat.S_IMODE(Path("made").stat().st_mode) == mode


# -- adapters, export -------------------------------------------------------------------------


def test_an_empty_registry_says_so(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out == "There are no adapters yet.\n"


def test_exporting_what_is_not_there_says_so(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "ink", "--data-dir", str(data_dir)]) == 1
    assert "There is no such adapter" in capsys.readouterr().err
    registry = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with registry.write() as session:
        publish(session, NewVersion("Ink", "sd1", "a" * 64, 5, 8, 8.0))
    registry.dispose()
    assert main(["export", "ink", "--version", "best", "--data-dir", str(data_dir)]) == 1
    assert "best" in capsys.readouterr().err


# -- backup, restore --------------------------------------------------------------------------


def test_a_backup_brings_database_and_files_back(data_dir: Path, tmp_path: Path) -> None:
    (picture,) = LocalBlobStore(data_dir / "blobs").list()
    registry = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with registry.write() as session:
        session.add(Thumbnail(sha256="a" * 64, small_sha256=picture.sha256))
    registry.dispose()
    archive = tmp_path / "copy.tar"
    assert main(["backup", str(archive), "--data-dir", str(data_dir)]) == 0
    other = tmp_path / "other"
    assert main(["restore", str(archive), "--data-dir", str(other)]) == 0
    assert sorted(path.name for path in other.iterdir()) == ["blobs", "brushwork.db"]
    store = LocalBlobStore(other / "blobs")
    (blob,) = store.list()
    with store.open(blob.sha256) as file:
        assert file.read() == b"a picture"
    assert "is up to date" in migrate.migrate(Settings(data_dir=other))
    restored = Database(make_engine(Settings(data_dir=other).sqlalchemy_url))
    with restored.read() as session:
        assert session.get_one(Thumbnail, "a" * 64).small_sha256 == picture.sha256
    restored.dispose()


def test_restored_files_belong_to_the_restored_database(data_dir: Path, tmp_path: Path) -> None:
    """An archive has no trash and no marker: the marker may be of a later event."""
    store, settings = LocalBlobStore(data_dir / "blobs"), Settings(data_dir=data_dir)
    store.discard(store.put_bytes(b"lost").sha256, before=utcnow() + timedelta(minutes=1))
    registry = Database(make_engine(settings.sqlalchemy_url))
    ownership.adopt(registry, store)
    archive, other = tmp_path / "copy.tar", tmp_path / "other"
    assert main(["backup", str(archive), "--data-dir", str(data_dir)]) == 0
    with registry.write() as session:
        hour_ago = utcnow() - timedelta(hours=1)
        session.add(Event(at=hour_ago, subject="x", subject_id=1, kind="queued"))
    ownership.record(registry, store)
    registry.dispose()
    assert main(["restore", str(archive), "--data-dir", str(other)]) == 0
    assert {path.name for path in other.iterdir()} == {"brushwork.db", "blobs"}
    assert list(LocalBlobStore(other / "blobs").list_trash()) == []
    restored = Database(make_engine(Settings(data_dir=other).sqlalchemy_url))
    for owner, of in ((Owner.THIS, other), (Owner.NEWER, data_dir)):
        assert ownership.check(restored, LocalBlobStore(of / "blobs")).owner is owner
    restored.dispose()


def test_a_backup_brings_fused_bases_back_under_the_place_they_have_then(
    data_dir: Path, tmp_path: Path
) -> None:
    own, fused = tmp_path / "own", data_dir / "fused"
    folder, single = fused / "inked-1-0123abcd", fused / "inked-2-0123abcd.safetensors"
    for path in (own, folder / "unet", fused / ".inked-3-0123abcd.1f2e3d4c.part"):
        path.mkdir(parents=True)
    (folder / "unet" / "weights").write_bytes(b"of the folder")
    single.write_bytes(b"of the file")
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with database.write() as session:
        for path in (own, folder, single):
            added_models.add_path(session, base_models.BASE_MODELS, str(path))
    archive, other = tmp_path / "copy.tar", tmp_path / "other"
    assert main(["backup", str(archive), "--data-dir", str(data_dir)]) == 0
    assert main(["restore", str(archive), "--data-dir", str(other)]) == 0
    restored = Database(make_engine(Settings(data_dir=other).sqlalchemy_url))
    with restored.read() as session:
        rows = base_models.list_base_models(session)
        places = [row.location for row in rows]
    assert places == [own, *(other / "fused" / path.name for path in (folder, single))]
    assert (places[1] / "unet" / "weights").read_bytes() == b"of the folder"
    assert places[2].read_bytes() == b"of the file"
    assert len(list((other / "fused").iterdir())) == 2
    with database.read() as session:  # what was backed up is as it was
        rows = base_models.list_base_models(session)
    assert [row.source for row in rows] == [str(path) for path in (own, folder, single)]


def test_a_file_that_is_swept_during_a_backup_does_not_end_it(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = LocalBlobStore.list

    def list_and_lose(store: LocalBlobStore) -> Iterator[BlobStat]:
        lost = store.put_bytes(b"lost")
        for blob in [*listed(store)]:
            store.delete(lost.sha256)
            yield blob

    monkeypatch.setattr(LocalBlobStore, "list", list_and_lose)
    archive = tmp_path / "copy.tar"
    assert main(["backup", str(archive), "--data-dir", str(data_dir)]) == 0
    with tarfile.open(archive) as tar:
        assert len([name for name in tar.getnames() if name.startswith("blobs/")]) == 1


def test_files_nobody_refers_to_are_swept(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (picture,) = (data_dir / "blobs").glob("??/??/*")
    assert main(["sweep", "--data-dir", str(data_dir)]) == 0
    assert "Nothing to delete" in capsys.readouterr().out
    registry = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with registry.write() as session:
        day = utcnow() - timedelta(days=3)
        session.add(Event(at=day, subject="io_job", subject_id=1, kind="queued"))
    registry.dispose()
    moment = (day + timedelta(days=1)).timestamp()
    os.utime(picture, (moment, moment))
    assert main(["sweep", "--dry-run", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out == "1 file, 9 B would go to the trash.\n"
    assert picture.exists()
    assert main(["sweep", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.startswith("Moved 1 file, 9 B to the trash.\nIn the trash: ")
    assert not picture.exists()


def test_files_of_another_version_are_not_swept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = LocalBlobStore(tmp_path / "blobs").put_bytes(b"a picture")
    assert main(["sweep", "--data-dir", str(tmp_path)]) == 2
    assert "Run `brushwork migrate`" in capsys.readouterr().err
    assert LocalBlobStore(tmp_path / "blobs").exists(picture.sha256)


def test_restoring_over_something_is_refused(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "copy.tar"
    main(["backup", str(archive), "--data-dir", str(data_dir)])
    assert main(["restore", str(archive), "--data-dir", str(data_dir)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_damaged_archive_leaves_the_folder_empty_if_nothing_may_be_lost(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, other = tmp_path / "copy.tar", tmp_path / "other"
    main(["backup", str(archive), "--data-dir", str(data_dir)])
    archive.write_bytes(archive.read_bytes().replace(b"a picture", b"b picture"))
    assert main(["restore", str(archive), "--strict", "--data-dir", str(other)]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert list(other.iterdir()) == []


def test_half_an_archive_and_what_is_none_are_told_apart_from_nothing(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, other = tmp_path / "copy.tar", tmp_path / "other"
    main(["backup", str(archive), "--data-dir", str(data_dir)])
    for content in (archive.read_bytes()[:5_000], b"not a tar at all"):
        archive.write_bytes(content)
        assert main(["restore", str(archive), "--data-dir", str(other)]) == 1
        assert "is not a Brushwork archive, or it is truncated" in capsys.readouterr().err
        assert list(other.iterdir()) == []


@pytest.mark.parametrize("member", ["../outside", "/outside", "else.txt"])
def test_a_foreign_archive_is_refused(
    member: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, archive, other = tmp_path / "x", tmp_path / "x.tar", tmp_path / "inside" / "other"
    source.write_text("x")
    with tarfile.open(archive, "w") as tar:
        info = tar.gettarinfo(str(source))
        info.name = member
        with source.open("rb") as file:
            tar.addfile(info, file)
    assert main(["restore", str(archive), "--data-dir", str(other)]) == 1
    assert "Nothing was changed" in capsys.readouterr().err
    assert list(other.iterdir()) == []
    assert not (tmp_path / "inside" / "outside").exists()


def test_a_database_on_a_server_is_backed_up_by_its_own_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_DATABASE_URL", "postgresql://db/brushwork")
    assert main(["backup"]) == 1
    assert "pg_dump" in capsys.readouterr().err


# -- demo -------------------------------------------------------------------------------------


def test_the_demo_reads_the_address_from_the_ready_line() -> None:
    found = demo.READY.match("Brushwork is ready at http://127.0.0.1:8188")
    assert found
    assert found[1] == "http://127.0.0.1:8188"
    assert not demo.READY.match("[web] Brushwork is ready at http://127.0.0.1:8188")


def test_the_demo_adds_up_its_steps() -> None:
    watch = demo.Stopwatch()
    watch.seconds = {"train": 40.0, "draw": 2.5}
    assert watch.table().splitlines()[-1].split() == ["total", "42.5", "s"]


def test_a_job_that_fails_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "failed", "error": "The disk is full."})

    with (
        demo.Api("http://test", transport=httpx.MockTransport(answer)) as api,
        pytest.raises(demo.DemoError, match="The disk is full"),
    ):
        api.wait("/api/v1/runs/1", seconds=1)


@pytest.mark.parametrize(
    ("words", "trained"),
    [
        ("", ["chalkboard"]),
        ("--style linocut", ["linocut"]),
        ("--style linocut --style chalkboard --style linocut", ["linocut", "chalkboard"]),
    ],
)
@pytest.mark.parametrize("learned", [True, False])
def test_the_demo_trains_the_styles_that_are_asked_for(
    words: str, trained: list[str], learned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_style(_: object, example: Example, preset: str, out: Path, watch: object) -> bool:
        jobs.append((example.key, preset, out))
        return learned or example.key != trained[0]

    jobs: list[tuple[str, str, Path]] = []
    stack = contextlib.nullcontext("http://127.0.0.1:1")
    monkeypatch.setattr(demo, "running_stack", lambda folder, watch: stack)
    monkeypatch.setattr(demo, "_await_base", lambda api: None)
    monkeypatch.setattr(demo, "_run_style", run_style)
    options = ["--preset", "balanced", "--out", str(tmp_path)]
    assert main(["demo", *words.split(), *options]) == (0 if learned else 1)
    assert jobs == [(key, "balanced", tmp_path / key) for key in trained]


def test_the_demo_names_the_presets_and_the_styles_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--preset", "fast"]) == 2
    assert "Choose one of quick, balanced, thorough." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--style", "neon"])
    assert "linocut" in capsys.readouterr().err
