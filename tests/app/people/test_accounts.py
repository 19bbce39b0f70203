"""Passwords, invitations and the throttle of logins, below the pages."""

from __future__ import annotations

import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlmodel import select

from app.registry.access.delays import FREE_TRIES, TooManyTries
from app.registry.actor import Role
from app.registry.db import Database, utcnow
from app.registry.errors import AppError, Conflict, InvalidInput, NotFound
from app.registry.people import accounts, invitations, leaving, passwords
from app.registry.people import service as people
from app.registry.people.accounts import LoggedIn, Sender, WrongLogin
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import Event
from app.registry.tables.people import Invitation, LoginFailure, LoginSession, Share, User
from app.registry.tables.renders import SourceUser
from app.registry.wording import aware

GOOD = "staple battery horse"
OTHER = "violet anvil on tuesday"
HOME = Sender("192.0.2.1")
AWAY = Sender("192.0.2.2")


@pytest.fixture
def ana(database: Database) -> User:
    """An administrator whose password is GOOD."""
    token = invite(database, "Ana", Role.ADMIN)
    accounts.use_invitation(database, token, GOOD, HOME)
    return person(database, "Ana")


def invite(database: Database, name: str, role: Role = Role.MEMBER) -> str:
    with database.write() as session:
        user = people.find_user(session, name) or people.add_user(session, name, role)
        return invitations.make_invitation(session, user)


def person(database: Database, name: str) -> User:
    with database.read() as session:
        user = people.find_user(session, name)
        assert user is not None
        return user


def outcome(database: Database, name: str, password: str, sender: Sender = HOME) -> str:
    try:
        accounts.log_in(database, name, password, sender)
    except AppError as error:
        return type(error).__name__
    return "in"


@pytest.mark.parametrize(
    "password",
    [
        "short words",
        "x" * 129,
        "password1234",
        "Ana Ana Ana Ana",
        "aaaaaaaaaaaaaaa",
        "brushwork123",
    ],
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        passwords.hash_new(password, "Ana")
    assert list(refused.value.fields) == ["password"]


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "  spaces around  it ",
        "пароль из четырёх слов",
        "🦊🎻🧊🌵🪁🧲🪨🫖🧵🪚🧯🛶",
        "k" + "fZ q8" * 25,
    ],
)
def test_passwords_of_any_kind_are_kept_whole(password: str) -> None:
    stored = passwords.hash_new(password, "Ana")
    assert passwords.is_right(stored, password)
    for other in (password[:-1], password + " ", password.strip() + "x", password.swapcase() + "."):
        assert not passwords.is_right(stored, other)


def test_nobody_has_no_password() -> None:
    for given in ("", "the password of nobody"):
        assert not passwords.is_right(None, given)
        assert not passwords.is_right("", given)


def test_a_hash_of_an_older_cost_is_renewed_at_login(
    database: Database, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(passwords.COST, "time_cost", 2)
    assert outcome(database, "Ana", GOOD) == "in"
    assert "t=2" in (person(database, "Ana").password_hash or "")
    assert person(database, "Ana").seen_at is not None
    assert outcome(database, "Ana", GOOD) == "in"


def test_a_third_hash_waits_and_then_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT_SECONDS", 0.01)
    with passwords._place(), passwords._place(), pytest.raises(passwords.Busy) as refused:
        passwords.is_right(None, "x")
    assert (refused.value.status, refused.value.retry_after) == (429, 2)
    assert not passwords.is_right(None, "x")


def test_no_more_than_two_hash_at_once_and_no_session_is_open(
    database: Database, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, most, lock, real = [0], [0], threading.Lock(), passwords.hasher

    def watched() -> object:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        with database.write():  # waits for good if the login holds the lock of writers
            pass
        with lock:
            now[0] -= 1
        return real()

    monkeypatch.setattr(passwords, "hasher", watched)
    monkeypatch.setattr(passwords, "WAIT_SECONDS", 60)
    with ThreadPoolExecutor(6) as pool:
        stored = str(ana.password_hash)
        assert all(pool.map(lambda _: passwords.is_right(stored, GOOD), range(6)))
    assert most[0] <= 2
    monkeypatch.setattr(passwords, "renewed", lambda *_: None)
    assert outcome(database, "Ana", GOOD) == "in"
    kept = person(database, "Ana").key
    accounts.change_password(database, kept, GOOD, OTHER, HOME, kept=None)


def test_all_who_cannot_log_in_are_refused_alike(
    database: Database, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    real = passwords.is_right
    monkeypatch.setattr(
        passwords, "is_right", lambda stored, given: asked.append(stored) or real(stored, given)
    )
    invite(database, "Ben")
    invite(database, "Cam")
    with database.write() as session:
        cam = session.get_one(User, person(database, "Cam").key)
        cam.password_hash, cam.disabled_at = ana.password_hash, utcnow()
    said = set()
    for name in ("Ana", "Ben", "Cam", "nobody", "n" * 1_000, "\x07", "ﷺ" * 1_000):
        with pytest.raises(WrongLogin) as refused:
            accounts.log_in(database, name, "wrong" if name == "Ana" else GOOD, Sender(name[:40]))
        said.add(refused.value.detail)
    assert len(said) == 1
    assert len(asked) == 7  # a hash was compared for each of them


def test_names_are_equal_but_for_case_and_unicode_form(database: Database) -> None:
    accounts.use_invitation(database, invite(database, "Zoë", Role.ADMIN), GOOD, HOME)
    for name in ("zoë", "ZOË", unicodedata.normalize("NFD", "Zoë"), " Zoë "):
        assert outcome(database, name, GOOD) == "in"
        with pytest.raises(Conflict), database.write() as session:
            people.add_user(session, name, Role.MEMBER)


# -- the throttle ---------------------------------------------------------------------------------


def later(database: Database, seconds: float) -> None:
    """Let time pass for all failures."""
    with database.write() as session:
        for row in session.exec(select(LoginFailure)):
            row.last_at = aware(row.last_at) - timedelta(seconds=seconds)


def fail(database: Database, name: str, sender: Sender, times: int = FREE_TRIES + 1) -> None:
    for _ in range(times):
        assert outcome(database, name, "wrong", sender) == "WrongLogin"


def test_failures_delay_a_name_from_everywhere_and_an_address_for_all_names(
    database: Database, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(database, "Ana", AWAY)
    monkeypatch.setattr(passwords, "is_right", lambda *_: pytest.fail("hashed while throttled"))
    for name, sender in (("Ana", HOME), ("ANA", HOME), ("Ben", AWAY)):
        with pytest.raises(TooManyTries) as refused:
            accounts.log_in(database, name, GOOD, sender)
        assert 1 <= refused.value.retry_after <= 2
    monkeypatch.undo()
    assert outcome(database, "Ben", GOOD, HOME) == "WrongLogin"
    later(database, 3)
    assert outcome(database, "Ana", GOOD, HOME) == "in"


def test_a_browser_that_logged_in_waits_only_for_its_own_failures(
    database: Database, ana: User
) -> None:
    known = accounts.log_in(database, "Ana", GOOD, HOME).known
    own = Sender(AWAY.address, known={ana.key: known})
    fail(database, "Ana", AWAY)
    assert outcome(database, "Ana", GOOD, own) == "in"
    fail(database, "Ana", own)
    assert outcome(database, "Ana", GOOD, own) == "TooManyTries"
    later(database, 3)
    assert outcome(database, "Ana", GOOD, own) == "in"


def test_what_a_browser_makes_up_does_not_help_it(database: Database, ana: User) -> None:
    known = accounts.log_in(database, "Ana", GOOD, HOME).known
    accounts.use_invitation(database, invite(database, "Ben"), GOOD, HOME)
    of_ben = accounts.log_in(database, "Ben", GOOD, HOME).known
    fail(database, "Ana", AWAY)
    for value in ("", ".", "x", "é.é", of_ben, "00" + known, known[:-1], known.rpartition(".")[0]):
        made_up = Sender(HOME.address, known={ana.key: value})
        assert outcome(database, "Ana", GOOD, made_up) == "TooManyTries"


def test_right_passwords_are_not_counted_and_old_failures_go(database: Database, ana: User) -> None:
    for _ in range(2 * FREE_TRIES):
        assert outcome(database, "Ana", GOOD) == "in"
    with database.read() as session:
        assert session.exec(select(LoginFailure)).all() == []
    fail(database, "secret typed as a name", HOME, times=1)
    with database.read() as session:
        assert "secret" not in str([row.subject for row in session.exec(select(LoginFailure))])
    later(database, 25 * 3_600)
    fail(database, "Ben", AWAY, times=1)
    with database.read() as session:
        assert len(session.exec(select(LoginFailure)).all()) == 2


# -- invitations ----------------------------------------------------------------------------------


def use(database: Database, token: str) -> LoggedIn:
    return accounts.use_invitation(database, token, GOOD, HOME)


def test_a_link_works_once(database: Database) -> None:
    token = invite(database, "Ana", Role.ADMIN)
    with pytest.raises(InvalidInput):
        accounts.use_invitation(database, token, "weak", HOME)
    assert use(database, token).token
    for again in (token, token + "x", token[:-1], ""):
        with pytest.raises(AppError) as refused:
            use(database, again)
        assert refused.value.status == (410 if again == token else 404)
    with database.read() as session:
        assert token not in str([row.model_dump() for row in session.exec(select(Invitation))])


def test_a_link_ends_with_time_with_a_newer_one_and_with_the_account(
    database: Database, ana: User
) -> None:
    first = invite(database, "Ben")
    second = invite(database, "Ben")
    with pytest.raises(NotFound):
        use(database, first)
    with database.write() as session:
        people.disable(session, session.get_one(User, person(database, "Ben").key))
    with pytest.raises(invitations.Gone, match="disabled"):
        use(database, second)
    with pytest.raises(Conflict, match="disabled"):
        invite(database, "Ben")
    with database.write() as session:
        people.enable(session, session.get_one(User, person(database, "Ben").key))
        row = session.exec(select(Invitation).where(Invitation.used_at == None)).one()  # noqa: E711
        row.expires_at = utcnow() - timedelta(seconds=1)
    with pytest.raises(invitations.Gone, match="expired"):
        use(database, second)


def sessions_of(database: Database, user: User) -> list[LoginSession]:
    with database.read() as session:
        query = select(LoginSession).where(LoginSession.user_id == user.key)
        return list(session.exec(query))


def test_a_reset_ends_sessions_and_the_old_password(database: Database, ana: User) -> None:
    known = accounts.log_in(database, "Ana", GOOD, HOME).known
    accounts.use_invitation(database, invite(database, "Ana"), OTHER, HOME)
    assert len(sessions_of(database, ana)) == 1
    assert outcome(database, "Ana", GOOD) == "WrongLogin"
    assert not accounts.is_known(person(database, "Ana"), known)


# -- change of password, disabled people ----------------------------------------------------------


def test_a_change_needs_the_old_password_and_ends_other_sessions(
    database: Database, ana: User
) -> None:
    accounts.log_in(database, "Ana", GOOD, HOME)
    kept = sessions_of(database, ana)[-1].key
    for old, new, field in (("wrong", OTHER, "old_password"), (GOOD, "weak", "password")):
        with pytest.raises(InvalidInput) as refused:
            accounts.change_password(database, ana.key, old, new, HOME, kept=kept)
        assert list(refused.value.fields) == [field]
    assert len(sessions_of(database, ana)) == 2
    accounts.change_password(database, ana.key, GOOD, OTHER, HOME, kept=kept)
    assert [row.key for row in sessions_of(database, ana)] == [kept]
    assert [outcome(database, "Ana", one) for one in (GOOD, OTHER)] == ["WrongLogin", "in"]


def test_guessing_the_old_password_is_throttled_as_a_login(database: Database, ana: User) -> None:
    for _ in range(FREE_TRIES + 1):
        with pytest.raises(InvalidInput):
            accounts.change_password(database, ana.key, "wrong", OTHER, HOME, kept=None)
    with pytest.raises(TooManyTries):
        accounts.change_password(database, ana.key, GOOD, OTHER, HOME, kept=None)


def test_sessions_of_the_disabled_are_deleted(database: Database, ana: User) -> None:
    accounts.use_invitation(database, invite(database, "Ben"), GOOD, HOME)
    ben = person(database, "Ben")
    with database.write() as session:
        people.disable(session, session.get_one(User, ben.key))
    assert sessions_of(database, ben) == []
    assert len(sessions_of(database, ana)) == 1
    with pytest.raises(Conflict), database.write() as session:
        people.disable(session, session.get_one(User, ana.key))


def test_things_change_hands_and_accounts_end(database: Database, ana: User) -> None:
    accounts.use_invitation(database, invite(database, "Ben"), GOOD, HOME)
    ben = person(database, "Ben")
    with database.write() as session:
        row = Dataset(name="a", slug="a", owner_id=ana.key, visibility="private")
        session.add(row)
        session.flush()
        session.add(Share(kind="dataset", thing_id=row.key, user_id=ben.key))
        session.add(SourceUser(sha256="a" * 64, user_id=ben.key))
        session.add_all(SourceUser(sha256=one * 64, user_id=ana.key) for one in "ab")
        session.add(Event(subject="dataset", subject_id=row.key, kind="x", user_id=ben.key))
    with database.write() as session:
        assert leaving.transfer(session, ana, ben) == 1
        assert leaving.private_things(session) == {"Ben": 1}
        uploads = {(row.sha256[0], row.user_id) for row in session.exec(select(SourceUser))}
        assert uploads == {("a", ben.key), ("b", ben.key)}
    with database.write() as session:
        leaving.leave_accounts(session)
    with database.read() as session:
        left = session.get_one(Dataset, row.key)
        assert (left.owner_id, left.visibility) == (1, "studio")
        assert not people.has_people(session)
        for table in (Share, SourceUser):  # later people have the same numbers
            assert session.exec(select(table)).all() == []
        assert session.exec(select(Event).where(Event.user_id != None)).all() == []  # noqa: E711
    assert sessions_of(database, ben) == []
