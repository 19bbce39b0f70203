"""Aliases of versions, and versions that come one after the other whoever publishes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlmodel import select

from app.registry.adapters import service
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import NewVersion, find_equal, publish
from app.registry.db import Database
from app.registry.errors import InvalidInput, NotFound
from app.registry.tables.adapters import Adapter, AdapterVersion


def new(name: str = "Chalk", rank: int = 4) -> NewVersion:
    return NewVersion(
        name=name, base_family="sd1", sha256=f"{rank:064x}", size_bytes=1, rank=rank, alpha=4
    )


def make(database: Database, versions: int = 3) -> int:
    key: int | None = None
    for rank in range(1, versions + 1):
        with database.write() as session:
            key = publish(session, new(rank=rank), adapter_id=key).adapter_id
    assert key is not None
    return key


def used(database: Database, key: int, name: int | str | None = None) -> int:
    with database.read() as session:
        return service.get_version(session, service.get_adapter(session, key), name).version


def name_version(database: Database, key: int, number: int, alias: str) -> None:
    with database.write() as session:
        version = service.get_version(session, service.get_adapter(session, key), number)
        aliases.set_alias(session, version, alias)


def test_an_alias_is_set_moved_and_taken_away(database: Database) -> None:
    key = make(database)
    name_version(database, key, 1, " Best ")
    assert used(database, key, "best") == used(database, key, "BEST") == 1
    name_version(database, key, 2, "best")
    assert used(database, key, "best") == 2
    with database.write() as session:
        assert aliases.alias_numbers(session, key) == {"best": 2, "latest": 3}
        aliases.delete_alias(session, key, "best")
    with pytest.raises(NotFound, match="has no version “best”"):
        used(database, key, "best")
    with pytest.raises(NotFound), database.write() as session:
        aliases.delete_alias(session, key, "best")


def test_latest_follows_the_newest_and_can_be_held_back_until_the_next(database: Database) -> None:
    key = make(database)
    assert used(database, key) == 3
    name_version(database, key, 1, "latest")
    assert used(database, key) == used(database, key, "latest") == 1
    with database.read() as session:
        assert service.summary(session, service.get_adapter(session, key)).version.version == 1
    with (
        pytest.raises(InvalidInput, match="Move it to another version"),
        database.write() as session,
    ):
        aliases.delete_alias(session, key, "latest")
    with database.write() as session:
        publish(session, new(rank=9), adapter_id=key)
    assert used(database, key) == 4


@pytest.mark.parametrize("name", ["1", "v1", " V1 ", "001"])
def test_numbers_name_versions(sqlite_database: Database, name: str) -> None:
    assert used(sqlite_database, make(sqlite_database), name) == 1


def test_what_names_no_version_is_not_found(database: Database) -> None:
    key = make(database, versions=1)
    for name in ("0", "9", "-1", "", "best\0", "🎨", "x" * 5_000, "1; --", "9" * 30):
        with pytest.raises(NotFound):
            used(database, key, name)


@pytest.mark.parametrize(
    ("alias", "reason"),
    [
        ("7", "read as a version number"),
        ("v12", "read as a version number"),
        ("", "letters a to z"),
        ("two words", "letters a to z"),
        ("a/b", "letters a to z"),
        ("../x", "letters a to z"),
        ("beste-Fassung-für-alle", "letters a to z"),
        ("🎨", "letters a to z"),
        ("\u202ebest", "letters a to z"),
        ("a" * 41, "up to 40"),
        ("best\0", "letters a to z"),
    ],
)
def test_odd_aliases_are_refused_with_what_would_do(
    sqlite_database: Database, alias: str, reason: str
) -> None:
    key = make(sqlite_database, versions=1)
    with pytest.raises(InvalidInput, match=reason) as caught:
        name_version(sqlite_database, key, 1, alias)
    assert list(caught.value.fields) == ["alias"]


def test_there_is_an_end_to_aliases_but_not_to_moving_them(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "MAX_ALIASES", 3)
    key = make(sqlite_database, versions=2)
    for alias in ("one", "two", "one"):
        name_version(sqlite_database, key, 2, alias)
    with pytest.raises(InvalidInput, match="at most 3 aliases"):
        name_version(sqlite_database, key, 1, "three")


def at_once(*works: Callable[[], object]) -> None:
    """Do all of this at the same time; the first error is raised."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def begin(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_who_move_one_alias_leave_one(database: Database) -> None:
    key = make(database, versions=2)
    for alias in ("best", "other"):
        at_once(
            lambda alias=alias: name_version(database, key, 1, alias),  # type: ignore[misc]
            lambda alias=alias: name_version(database, key, 2, alias),  # type: ignore[misc]
        )
        assert used(database, key, alias) in (1, 2)


def test_versions_published_at_once_get_numbers_of_their_own(database: Database) -> None:
    key = make(database, versions=1)

    def add(rank: int) -> None:
        with database.write() as session:
            publish(session, new(rank=rank), adapter_id=key)

    at_once(*(lambda rank=rank: add(rank) for rank in range(5, 9)))  # type: ignore[misc]
    with database.read() as session:
        assert [row.version for row in service.list_versions(session, key)] == [5, 4, 3, 2, 1]
    assert used(database, key) == 5


def test_adapters_of_one_name_made_at_once_get_addresses_of_their_own(database: Database) -> None:
    def add() -> None:
        with database.write() as session:
            publish(session, new("Same name"))

    at_once(add, add, add, add)
    with database.read() as session:
        found = session.exec(select(Adapter.slug)).all()
    assert sorted(found) == ["same-name", "same-name-2", "same-name-3", "same-name-4"]


def test_a_deleted_adapter_gets_no_version_but_nothing_is_lost(database: Database) -> None:
    key = make(database, versions=1)
    with database.write() as session:
        service.delete_adapter(session, key)
    with database.write() as session:
        version = publish(session, new(rank=8), adapter_id=key)
        assert version.adapter_id != key
        assert session.get_one(AdapterVersion, version.key).version == 1


def test_the_same_tensors_published_at_once_are_one_adapter(database: Database) -> None:
    def take_in() -> None:
        with database.write() as session:
            tensors = "ab" * 32
            if find_equal(session, canonical="1", uploaded="2", tensors=tensors) is None:
                publish(session, replace(new(), tensor_sha256=tensors))

    at_once(take_in, take_in, take_in)
    with database.read() as session:
        assert len(session.exec(select(AdapterVersion)).all()) == 1
