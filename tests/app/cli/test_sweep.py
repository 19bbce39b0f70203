"""`brushwork sweep` says what it takes, why it takes nothing, and the way out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.cli import doctor
from app.cli.main import main
from app.registry.blobs import ownership
from app.registry.config import Settings
from app.registry.db import Database, make_engine, utcnow
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.jobs import Event, IoJob

pytestmark = pytest.mark.usefixtures("no_surroundings")

Sweep = Callable[..., tuple[int, str]]
NOTHING = (
    "Nothing to delete. Every file is in use, newer than a day, or older than this database (so it "
    "may belong to another one).\n"
)


@pytest.fixture
def registry(data_dir: Path) -> Iterator[Database]:
    """The database of the data folder, older than its blob, which is two days old."""
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with database.write() as session:
        at = utcnow() - timedelta(days=3)
        session.add(Event(at=at, subject="x", subject_id=1, kind="queued"))
    (blob,) = (data_dir / "blobs").glob("??/??/*")
    moment = (utcnow() - timedelta(days=2)).timestamp()
    os.utime(blob, (moment, moment))
    yield database
    database.dispose()


@pytest.fixture
def run(data_dir: Path, registry: Database, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """The command in the data folder: its exit code and what it says."""

    def run(*flags: str) -> tuple[int, str]:
        code = main(["sweep", *flags, "--data-dir", str(data_dir)])
        return code, capsys.readouterr().out

    return run


def belong_to_another(data_dir: Path, tmp_path: Path, sqlite_template: Path) -> None:
    """Make the files of the data folder those of another database."""
    path = tmp_path / "other.db"
    path.write_bytes(sqlite_template.read_bytes())
    other = Database(make_engine(f"sqlite:///{path}"))
    ownership.adopt(other, LocalBlobStore(data_dir / "blobs"))
    other.dispose()


def test_what_is_swept_can_be_brought_back_or_deleted_for_good(run: Sweep) -> None:
    assert run() == (
        0,
        "Moved 1 file, 9 B to the trash.\n"
        "In the trash: 1 file, 9 B, each for 14 days. `brushwork sweep --empty-trash` deletes them "
        "now, `--restore` brings them back.\n",
    )
    assert run("--restore", "--dry-run") == (0, "1 file, 9 B would come back from the trash.\n")
    assert run("--restore") == (0, "1 file, 9 B came back from the trash.\n")
    assert run("--restore") == (0, "The trash is empty.\n")


def test_emptying_the_trash_says_how_much_that_freed(run: Sweep) -> None:
    run()
    code, said = run("--empty-trash", "--dry-run")
    assert said.startswith("1 file, 9 B would be deleted from the trash for good.\nIn the trash: ")
    assert run("--empty-trash") == (0, "1 file, 9 B deleted from the trash for good.\n")
    assert run("--empty-trash") == (0, "The trash is empty.\n")
    assert code == 0


def test_files_of_another_database_are_reported_with_the_way_out(
    run: Sweep, data_dir: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    belong_to_another(data_dir, tmp_path, sqlite_template)
    for flags in ((), ("--dry-run",)):
        code, said = run(*flags)
        assert code == 3
        assert said.startswith("Nothing was deleted. The files belong to another database: ")
        assert "A sweep would move 1 file, 9 B to the trash.\n" in said
        assert said.endswith(
            "If this is the right database for these files, run `brushwork sweep --adopt`.\n"
        )
    code, said = run("--empty-trash")
    assert code == 3
    assert said.startswith("Nothing was deleted. The files belong to another database: ")


def test_adopting_shows_what_differs_first(
    run: Sweep, data_dir: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    belong_to_another(data_dir, tmp_path, sqlite_template)
    code, said = run("--adopt", "--dry-run")
    assert code == 0
    assert said.startswith("The files belong to another database: registry ")
    assert said.endswith("1 file, 9 B would go to the trash.\n")
    assert run()[0] == 3
    code, said = run("--adopt")
    assert code == 0
    assert "\nThey belong to this database now.\nMoved 1 file, 9 B to the trash.\n" in said
    assert run("--adopt")[1].startswith("The files belong to this database already.\n")


def test_a_database_put_back_beside_all_files_costs_none(
    run: Sweep, data_dir: Path, registry: Database
) -> None:
    """The file of an earlier hour is copied back, and the newer files are kept to the end."""
    store = LocalBlobStore(data_dir / "blobs")
    with registry.write() as session:
        (blob,) = store.list()
        session.add(IoJob(kind="x", args={"sha256": blob.sha256}))
    assert run()[0] == 0
    registry.dispose()
    earlier = (data_dir / "brushwork.db").read_bytes()
    adapter = store.put_bytes(b"an adapter of the lost hour").sha256
    with registry.write() as session:
        session.add(IoJob(kind="x", args={"sha256": adapter}))
        at = utcnow() - timedelta(minutes=30)
        session.add(Event(at=at, subject="x", subject_id=2, kind="queued"))
    two_days = (utcnow() - timedelta(days=2)).timestamp()
    os.utime(store.local_path(adapter, data_dir), (two_days, two_days))
    assert run() == (0, NOTHING)
    registry.dispose()
    later = (data_dir / "brushwork.db").read_bytes()

    (data_dir / "brushwork.db").write_bytes(earlier)
    code, said = run()
    assert code == 3
    assert said.startswith("Nothing was deleted. This database is older than the files: ")
    assert len(list(store.list())) == 2
    assert run("--adopt")[0] == 0
    assert [found.sha256 for found in store.list_trash()] == [adapter]

    registry.dispose()
    (data_dir / "brushwork.db").write_bytes(later)
    code, said = run()
    assert code == 0, said  # the earlier database wrote nothing new, so this one has its newest
    assert "1 file in the trash that rows refer to came back." in said
    assert len(list(store.list())) == 2


def test_the_doctor_says_whose_the_files_are(
    run: Sweep, data_dir: Path, tmp_path: Path, sqlite_template: Path
) -> None:
    settings = Settings(data_dir=data_dir)
    run()
    found = doctor.check_owner(settings)
    assert found == "the files are this database's; 1 file, 9 B in the trash"
    belong_to_another(data_dir, tmp_path, sqlite_template)
    with pytest.raises(doctor.CheckError, match="belong to another database") as caught:
        doctor.check_owner(settings)
    assert "run `brushwork sweep --adopt`" in str(caught.value)
    assert doctor.check_owner(Settings(data_dir=tmp_path / "new")) == "no files yet"
    assert doctor.CHECKS["owner"] is doctor.check_owner


def test_of_what_excludes_itself_one_is_chosen(
    run: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--adopt", "--empty-trash")
    assert "not allowed with argument" in capsys.readouterr().err
