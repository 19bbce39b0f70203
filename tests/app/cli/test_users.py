"""`brushwork users`: links, roles, a leaver's things, and the way back to one person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import Session, SQLModel, select

from app.cli.main import main
from app.registry.access import service as sessions
from app.registry.access.secret_marks import PERSON
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.people import accounts, passwords, tokens
from app.registry.people import service as people
from app.registry.people.leaving import ACCOUNTS
from app.registry.people.service import require_accounts
from app.registry.tables.datasets import Dataset
from app.registry.tables.people import LoginSession, Share, User
from app.supervisor.lock import DataFolderLock, LockOwner

pytestmark = pytest.mark.usefixtures("no_surroundings")

GOOD = "staple battery horse"
Users = Callable[..., tuple[int, str]]


@pytest.fixture
def registry(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(passwords, "COST", {"time_cost": 1, "memory_cost": 8, "parallelism": 1})
    monkeypatch.setenv("BRUSHWORK_ACCOUNTS", "on")
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    yield database
    database.dispose()


@pytest.fixture
def users(data_dir: Path, registry: Database, capsys: pytest.CaptureFixture[str]) -> Users:
    """The command: its exit code and all that it says."""

    def run(*words: str) -> tuple[int, str]:
        code = main(["users", *words, "--data-dir", str(data_dir)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def invited(registry: Database, users: Users, name: str, role: str = "member") -> User:
    """A person who used their link."""
    code, said = users("invite", name, "--role", role)
    assert code == 0, said
    token = said.split("/invite/")[1].strip()
    accounts.use_invitation(registry, token, GOOD, accounts.Sender("192.0.2.1"))
    return named(registry, name)


def named(registry: Database, name: str) -> User:
    with registry.read() as session:
        user = people.find_user(session, name)
        assert user is not None
        return user


def test_the_first_person_is_an_administrator_and_number_one(
    registry: Database, users: Users
) -> None:
    assert "invite NAME --role admin" in users("list")[1]
    code, said = users("invite", "Eva")
    assert (code, "administrator" in said) == (1, True)
    assert invited(registry, users, "Eva", "admin").key == 1
    code, said = users("list")
    assert "Eva  admin" in said
    assert GOOD not in said
    assert "argon2" not in said


def test_a_link_has_the_address_of_the_server_that_runs(
    registry: Database, users: Users, data_dir: Path
) -> None:
    assert "\nhttp://127.0.0.1:8188/invite/" in users("invite", "Eva", "--role", "admin")[1]
    with DataFolderLock(data_dir) as lock:
        assert lock.acquire()
        lock.write(LockOwner(1, "http://127.0.0.1:9000"))
        assert "\nhttp://127.0.0.1:9000/invite/" in users("reset", "Eva")[1]


def test_a_link_says_if_accounts_are_off(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRUSHWORK_ACCOUNTS")
    assert "BRUSHWORK_ACCOUNTS is off" in users("invite", "Eva", "--role", "admin")[1]


@pytest.mark.parametrize("name", ["", "   ", "x" * 1_000, "a\x07b", "a\u202eb", "EVA", "Ｅｖａ"])
def test_names_that_cannot_be_used_are_refused(registry: Database, users: Users, name: str) -> None:
    invited(registry, users, "Eva", "admin")
    for words in (["invite", name], ["rename", "Ben", name]):
        if words[0] == "rename":
            invited(registry, users, "Ben")
        code, said = users(*words)
        assert code == 1
        assert len(said) < 200
    with registry.read() as session:
        assert sorted(session.exec(select(User.name))) == ["Ben", "Eva"]


def test_names_and_roles_change_and_people_are_disabled(registry: Database, users: Users) -> None:
    invited(registry, users, "Eva", "admin")
    ana = invited(registry, users, "Ana")
    for words in (["role", "eva", "member"], ["disable", "Eva"], ["role", "Nobody", "admin"]):
        assert users(*words)[0] == 1
    assert users("rename", "ana", "Anna") == (0, "Ana is called Anna now.\n")
    assert users("role", "Anna", "viewer")[0] == 0
    assert users("disable", "Anna")[0] == 0
    assert "disabled" in users("list")[1]
    with registry.read() as session:
        assert sessions.list_sessions(session, user_id=ana.key) == []
    code, said = users("reset", "Anna")
    assert (code, "disabled" in said) == (1, True)
    assert users("enable", "Anna")[0] == 0
    assert "/invite/" in users("reset", "Anna")[1]


def test_a_leavers_things_go_to_somebody(registry: Database, users: Users) -> None:
    eva = invited(registry, users, "Eva", "admin")
    ana, ben = invited(registry, users, "Ana"), invited(registry, users, "Ben")
    with registry.write() as session:
        own, others = thing(session, "own", ana), thing(session, "others", eva)
        session.add(Share(kind="dataset", thing_id=others, user_id=ana.key, may_edit=True))
        session.add(Share(kind="dataset", thing_id=others, user_id=ben.key))
        session.add(Share(kind="dataset", thing_id=own, user_id=ben.key))
    assert users("transfer", "Ana", "Ben") == (0, "1 thing of Ana now belongs to Ben.\n")
    with registry.read() as session:
        assert session.get_one(Dataset, own).owner_id == ben.key
        shares = [
            (one.thing_id, one.user_id, one.may_edit) for one in session.exec(select(Share)).all()
        ]
    assert shares == [(others, ben.key, True)]
    assert users("transfer", "Ana", "Ana")[0] == 1
    assert users("disable", "Ben")[0] == 0
    assert users("transfer", "Ana", "Ben")[0] == 1


def thing(session: Session, name: str, owner: User) -> int:
    row = Dataset(name=name, slug=name, owner_id=owner.key, visibility="private")
    session.add(row)
    session.flush()
    return row.key


def test_the_way_back_says_what_becomes_visible_and_leaves_nothing_of_accounts(
    registry: Database, users: Users
) -> None:
    ana = invited(registry, users, "Eva", "admin")
    ana = invited(registry, users, "Ana")
    with registry.write() as session:
        key = thing(session, "own", ana)
        tokens.make_token(session, ana, "t", "read")
        sessions.open_session(session, secret_mark="salt$hash", address="", browser="")
    code, said = users("leave")
    assert (code, "1 of Ana" in said, "--yes" in said) == (1, True, True)
    assert named(registry, "Ana").password_hash
    code, said = users("leave", "--yes")
    assert (code, "1 of Ana" in said) == (0, True)
    with registry.read() as session:
        row = session.get_one(Dataset, key)
        assert (row.owner_id, row.visibility) == (1, "studio")
        assert [table for table in ACCOUNTS if rows_of(session, table)] == []
        marks = [one.secret_mark for one in session.exec(select(LoginSession))]
        assert PERSON not in marks
        assert len(marks) == 1
        require_accounts(session, accounts=False)
    assert invited(registry, users, "Cam", "admin").key == 1


def rows_of(session: Session, table: type[SQLModel]) -> int:
    return len(session.exec(select(table)).all())


def test_quotas_are_set_and_what_cannot_be_read_is_refused(
    registry: Database, users: Users
) -> None:
    invited(registry, users, "Eva", "admin")
    code, said = users("quota", "eva", "--disk", "1.5TB", "--device-hours", "20", "--waiting", "0")
    assert (code, said) == (0, "Eva: waiting 0, device 0 min of 20 h, disk 0 B of 1,500 GB.\n")
    user = named(registry, "Eva")
    assert (user.disk_bytes, user.device_minutes, user.waiting_jobs) == (
        1_500_000_000_000,
        1_200,
        0,
    )
    assert users("quota", "Eva", "--device-hours", "default")[0] == 0
    assert named(registry, "Eva").device_minutes is None
    for flag, text in (("--disk", "much"), ("--device-hours", "nan"), ("--waiting", "1e9")):
        code, said = users("quota", "Eva", flag, text)
        assert (code, "0 for no limit" in said) == (1, True), said
    assert "Nobody here is called" in users("quota", "Zoe")[1]
