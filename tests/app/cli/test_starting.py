"""`serve`, `web` and `migrate` that cannot start: one sentence and an exit status."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.cli import database as database_check
from app.cli import doctor, migrate, web
from app.cli.main import main
from app.registry.actor import Role
from app.registry.adapters.library import search
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.migrate import current_revision, head_revision
from app.registry.people import service as people
from app.registry.tables.adapters import Adapter
from tests.app.cli.conftest import brushwork
from tests.disks import fill, mounted_disk
from tests.next_revision import NEXT, next_revision

pytestmark = pytest.mark.usefixtures("no_surroundings")


# -- serve refuses ----------------------------------------------------------------------------


def test_nothing_is_served_without_accounts_that_people_have(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with database.write() as session:
        people.add_user(session, "Eva", Role.ADMIN)
    database.dispose()
    for command in (["web", "--port", "0"], ["migrate", "--before-serve"]):
        assert main([*command, "--data-dir", str(data_dir)]) == 1
        said = capsys.readouterr().err
        assert "BRUSHWORK_ACCOUNTS=on" in said
        assert "brushwork users leave" in said
    assert main(["migrate", "--data-dir", str(data_dir)]) == 0


@pytest.mark.process
def test_serve_beyond_this_machine_needs_a_password(tmp_path: Path) -> None:
    done = brushwork("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "Set BRUSHWORK_PASSWORD" in done.stderr
    assert not (tmp_path / "data").exists()


def test_web_alone_needs_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data")]) == 2
    assert "Set BRUSHWORK_PASSWORD" in capsys.readouterr().err


def test_web_does_not_serve_a_database_of_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", "--port", "0", "--data-dir", str(tmp_path / "data")]) == 2
    assert "Run `brushwork migrate` first" in capsys.readouterr().err


@pytest.mark.process
def test_a_data_folder_that_cannot_be_written_is_named() -> None:
    done = brushwork("serve", "--data-dir", "/proc/brushwork")
    assert done.returncode == 2
    assert "The data folder /proc/brushwork cannot be written" in done.stderr
    assert "BRUSHWORK_DATA_DIR" in done.stderr


@pytest.mark.process
def test_a_data_folder_on_a_full_or_read_only_disk_is_named(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "size=3m") as disk:
        fill(disk, leave=500_000)
        full = brushwork("serve", "--port", "0", "--data-dir", str(disk / "data"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        locked = brushwork("serve", "--port", "0", "--data-dir", str(disk / "data"))
    assert (full.returncode, locked.returncode) == (2, 2)
    assert full.stderr == (
        f"The disk of the data folder {disk}/data is full. Free some space, or choose another "
        "folder with --data-dir FOLDER or BRUSHWORK_DATA_DIR.\n"
    )
    assert locked.stderr == (
        f"The data folder {disk}/data cannot be written: Read-only file system. Choose another "
        "with --data-dir FOLDER or BRUSHWORK_DATA_DIR.\n"
    )


@pytest.mark.process
def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = brushwork("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert f"Port {port} on 127.0.0.1 is used by another program" in done.stderr


# -- a database that cannot be used -----------------------------------------------------------


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def make_older(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()


def make_garbage(path: Path) -> None:
    path.write_bytes(b"this is a letter, and no database at all. " * 40)


def make_foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def make_foreign_revision(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'a4f09b'")
        connection.commit()


COMMANDS = {
    "web": ["web", "--port", "0"],
    "worker": ["worker", "--queue", "io"],
    "sweep": ["sweep"],
    "adapters": ["adapters"],
    "export": ["export", "ink"],
    "import": ["import", "/nowhere"],
    "doctor": ["doctor"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_a_database_that_is_not_of_this_version(
    command: str,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_run_python", lambda *_: "not tried here")
    database = data_dir / "brushwork.db"
    sentences = {
        make_newer: "of a newer Brushwork: it has revision 9999",
        make_foreign_revision: "belongs to another program. Use another database",
        make_older: "Check out commit 1df9e16, the last one that can upgrade it",
        make_foreign: "belongs to another program. Use another database",
        make_garbage: "is not an SQLite database, or it is damaged. Restore a backup",
    }
    for damage, sentence in sentences.items():
        damage(database)
        before = database.read_bytes()
        status = main([*COMMANDS[command], "--data-dir", str(data_dir)])
        shown = capsys.readouterr()
        assert status == (1 if command == "doctor" else 2)
        assert sentence in (shown.out if command == "doctor" else shown.err)
        assert len(shown.err.splitlines()) <= 1
        assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (make_foreign, "belongs to another program"),
        (make_foreign_revision, "belongs to another program"),
        (make_garbage, "is not an SQLite database"),
        (make_newer, "of a newer Brushwork: it has revision 9999"),
        (make_older, "and run `brushwork migrate` there once. Then come back to this version."),
    ],
)
def test_a_migration_leaves_a_database_alone_that_it_cannot_upgrade(
    damage: Callable[[Path], None],
    sentence: str,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = data_dir / "brushwork.db"
    damage(database)
    before = database.read_bytes()
    assert main(["migrate", "--data-dir", str(data_dir)]) == 2
    assert sentence in capsys.readouterr().err
    assert database.read_bytes() == before
    assert not list(data_dir.glob("*.before-*"))


@pytest.mark.process
def test_serve_leaves_an_older_database_alone_and_says_what_upgrades_it(data_dir: Path) -> None:
    database = data_dir / "brushwork.db"
    make_older(database)
    before = database.read_bytes()
    done = brushwork("serve", "--port", "0", "--data-dir", str(data_dir))
    assert done.returncode != 0
    assert "Check out commit 1df9e16, the last one that can upgrade it" in done.stderr
    assert database.read_bytes() == before
    assert not list(data_dir.glob("*.before-*"))


def test_a_command_asks_for_a_migration_that_was_not_run_yet(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with next_revision(tmp_path):
        assert main(["sweep", "--data-dir", str(data_dir)]) == 2
    assert f"this version needs {NEXT}. Run `brushwork migrate` first" in capsys.readouterr().err


def test_a_server_that_is_shared_with_another_program_can_be_used(postgres_url: str) -> None:
    settings = Settings(database_url=postgres_url)
    engine = make_engine(settings.sqlalchemy_url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA shared")
            connection.exec_driver_sql("CREATE TABLE shared.bookmarks (url TEXT)")
        with engine.connect() as connection:
            connection.exec_driver_sql("SET search_path TO shared")
            # the database of the session may have been migrated before
            assert migrate.usable_revision(connection.engine) in (None, migrate.head_revision())
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA shared CASCADE")
        engine.dispose()


def test_a_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/brushwork")
    assert main(["sweep"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("The database does not answer: ")
    assert "Start it, or check BRUSHWORK_DATABASE_URL." in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("command", ["migrate", "sweep"])
def test_the_data_folder_and_its_files_are_private(command: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    main([command, "--data-dir", str(folder)])
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes
    assert not [path for path, mode in modes.items() if mode & 0o077]


# -- migrate ----------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    assert "from revision none" in migrate.migrate(settings)
    assert "is up to date" in migrate.migrate(settings)
    assert not list(settings.data_dir.glob("*.before-*"))


def test_a_search_index_that_a_crash_left_empty_is_completed(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    database = Database(make_engine(settings.sqlalchemy_url))
    with database.write() as session:
        adapter = Adapter(slug="ink", name="Ink", base_family="sd1")
        session.add(adapter)
    with database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM adapter_search")
    assert "is up to date" in migrate.migrate(settings)
    with database.read() as session:
        found = search.candidates(session, search.needles("ink"), most=5)
    database.dispose()
    assert found == [adapter.id]


@pytest.mark.parametrize(("after", "completed"), [("serve", False), ("nothing", True)])
def test_a_web_server_completes_the_search_unless_serve_has_just_migrated(
    after: str, completed: bool, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Engine] = []
    monkeypatch.setattr(database_check, "complete_search_index", looked.append)
    monkeypatch.setattr(web, "create_app", lambda _: sys.exit(3))
    reading, writing = os.pipe()
    os.close(writing)
    server = socket.create_server(("127.0.0.1", 0))
    arguments = ["web", "--data-dir", str(data_dir), "--fd", str(server.detach())]
    arguments += ["--after-fd", str(reading)] if after == "serve" else []
    with pytest.raises(SystemExit, match="3"):
        main(arguments)
    os.close(reading)
    assert bool(looked) is completed


def test_an_older_database_is_copied_before_it_is_changed(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    copy = migrate.copy_before_upgrade(settings, "0001")
    assert copy == data_dir / "brushwork.db.before-0001"
    engine = make_engine(f"sqlite:///{copy}")
    assert migrate.usable_revision(engine) == migrate.head_revision()
    engine.dispose()


def test_a_good_copy_survives_an_upgrade_that_was_killed_half_way(data_dir: Path) -> None:
    good = data_dir / "brushwork.db.before-0001"
    good.write_bytes(b"as it was before")
    migrate.copy_before_upgrade(Settings(data_dir=data_dir), "0001")
    assert good.read_bytes() == b"as it was before"


def test_a_copy_of_an_earlier_time_does_not_stand_for_this_one(data_dir: Path) -> None:
    old = data_dir / "brushwork.db.before-0001"
    old.write_bytes(b"of another year")
    os.utime(old, (0, 0))
    copy = migrate.copy_before_upgrade(Settings(data_dir=data_dir), "0001")
    assert copy is not None
    assert copy != old
    assert copy.read_bytes().startswith(b"SQLite format 3")
    assert old.exists()


def test_the_command_copies_an_older_database_and_names_the_copy(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = head_revision()
    with next_revision(tmp_path):
        assert main(["migrate", "--data-dir", str(data_dir)]) == 0
    copy = data_dir / f"brushwork.db.before-{before}"
    assert capsys.readouterr().out == (
        f"The database was migrated from revision {before} to {NEXT}. "
        f"The old database was copied to {copy}.\n"
    )
    for path, revision in ((copy, before), (data_dir / "brushwork.db", NEXT)):
        engine = make_engine(f"sqlite:///{path}")
        assert current_revision(engine) == revision
        engine.dispose()


def test_a_migration_on_a_disk_that_gets_full_says_so(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted_disk(tmp_path / "disk", "size=3m") as disk:
        fill(disk, leave=20_000)
        assert main(["migrate", "--data-dir", str(disk)]) == 2
        expected = f"The database cannot be migrated: the disk of {disk} is full.\n"
    assert capsys.readouterr().err == expected


def test_a_database_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRUSHWORK_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/brushwork")
    assert main(["migrate"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The database cannot be migrated: ")
    assert "refused" in line
    assert "hunter2" not in line


def test_only_a_few_copies_are_kept(data_dir: Path) -> None:
    for revision in range(6):
        migrate.copy_before_upgrade(Settings(data_dir=data_dir), f"{revision:04}")
    assert len(list(data_dir.glob("*.before-*"))) == migrate.KEPT_COPIES
