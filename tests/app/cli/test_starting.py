"""`serve`, `web` and `migrate` that cannot start: one sentence and an exit status."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from app.cli import migrate
from app.cli.main import main
from app.registry.config import Settings
from app.registry.db import make_engine
from tests.app.cli.conftest import brushwork
from tests.disks import fill, mounted_disk

pytestmark = pytest.mark.usefixtures("no_surroundings")


# -- serve refuses ----------------------------------------------------------------------------


@pytest.mark.process
def test_serve_beyond_this_machine_needs_a_password(tmp_path: Path) -> None:
    done = brushwork("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "Set BRUSHWORK_PASSWORD" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.process
def test_web_alone_needs_it_too(tmp_path: Path) -> None:
    done = brushwork("web", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "Set BRUSHWORK_PASSWORD" in done.stderr


@pytest.mark.process
def test_web_does_not_serve_a_database_of_another_version(tmp_path: Path) -> None:
    done = brushwork("web", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "Run `brushwork migrate` first" in done.stderr


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


# -- migrate ----------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    assert "from revision none" in migrate.migrate(settings)
    assert "is up to date" in migrate.migrate(settings)
    assert not list(settings.data_dir.glob("*.before-*"))


def test_an_older_database_is_copied_before_it_is_changed(data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    copy = migrate.copy_before_upgrade(settings, "0001")
    assert copy == data_dir / "brushwork.db.before-0001"
    engine = make_engine(f"sqlite:///{copy}")
    assert migrate.current_revision(engine) == migrate.head_revision()
    engine.dispose()


def test_a_good_copy_survives_an_upgrade_that_was_killed_half_way(data_dir: Path) -> None:
    good = data_dir / "brushwork.db.before-0001"
    good.write_bytes(b"as it was before")
    migrate.copy_before_upgrade(Settings(data_dir=data_dir), "0001")
    assert good.read_bytes() == b"as it was before"


def test_a_database_of_a_newer_version_is_left_alone(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine(f"sqlite:///{data_dir / 'brushwork.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    assert main(["migrate", "--data-dir", str(data_dir)]) == 2
    assert "of a newer Brushwork: it has revision 9999" in capsys.readouterr().err
    assert not list(data_dir.glob("*.before-*"))


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
