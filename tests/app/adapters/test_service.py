"""Adapters in the registry, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.registry.adapters import service
from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.service import AdapterChange, Filter, Sort
from app.registry.adapters.versions.create_version import NewFile, add_file
from app.registry.db import Database, Session
from app.registry.errors import InvalidInput, NotFound
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.renders.covers import put_cover
from app.registry.tables.adapters import Adapter, AdapterAlias, AdapterVersion
from worker.core.words import FileFormat, WeightDtype

FP16 = WeightDtype.FP16
KOHYA = FileFormat.KOHYA


def make(database: Database, name: str, *, family: str = "sd1", versions: int = 1) -> int:
    with database.write() as session:
        adapter = Adapter(
            slug=name.lower().replace(" ", "-"),
            name=name,
            base_family=family,
            trigger_words=[name.split()[0].lower()],
        )
        session.add(adapter)
        session.flush()
        for number in range(1, versions + 1):
            session.add(
                AdapterVersion(
                    adapter_id=adapter.key,
                    version=number,
                    sha256=f"{number:064x}",
                    size_bytes=1,
                    rank=4,
                    alpha=4,
                )
            )
    return adapter.key


def names(database: Database, **wanted: object) -> list[str]:
    with database.read() as session:
        page = service.list_adapters(session, Filter(**wanted))  # type: ignore[arg-type]
    return [row.adapter.name for row in page.items]


def test_the_list_is_newest_first_or_as_asked(database: Database) -> None:
    for name in ("Chalk", "board", "Ink"):
        make(database, name)
    assert names(database) == ["Ink", "board", "Chalk"]
    assert names(database, sort=Sort.OLDEST) == ["Chalk", "board", "Ink"]
    assert names(database, sort=Sort.NAME) == ["board", "Chalk", "Ink"]


def test_signs_that_mean_something_in_sql_are_only_signs(database: Database) -> None:
    make(database, "100% ink_wash")
    make(database, "Chalk")
    assert names(database, q="%") == ["100% ink_wash"]
    assert names(database, q="k_w") == ["100% ink_wash"]
    assert names(database, q="\\") == []
    assert names(database, q="CHALK") == ["Chalk"]


def test_counts_of_families_do_not_change_with_the_chosen_one(database: Database) -> None:
    make(database, "Chalk")
    make(database, "Ink", family="sdxl")
    with database.read() as session:
        page = service.list_adapters(session, Filter(base="sdxl"))
    assert ([row.adapter.name for row in page.items], page.total) == (["Ink"], 1)
    assert page.families == {"sd1": 1, "sdxl": 1}


def test_long_lists_come_in_pages(database: Database) -> None:
    for number in range(service.ADAPTERS_A_PAGE + 2):
        make(database, f"a{number}")
    with database.read() as session:
        second = service.list_adapters(session, Filter(page=2))
    assert (len(second.items), second.total) == (2, service.ADAPTERS_A_PAGE + 2)


def test_latest_can_be_moved_to_an_older_version(database: Database) -> None:
    key = make(database, "Chalk", versions=3)
    with database.write() as session:
        adapter = service.get_adapter(session, key)
        assert service.get_version(session, adapter).version == 3
        second = service.get_version(session, adapter, 2)
        session.add(AdapterAlias(adapter_id=key, alias="latest", version_id=second.key))
        session.flush()
        assert service.get_version(session, adapter).version == 2
        with pytest.raises(NotFound, match="no version 9"):
            service.get_version(session, adapter, 9)


def test_tags_are_words_in_lower_case_once_each(database: Database) -> None:
    key = make(database, "Chalk")
    for tags in (["Green", "green ", "", "board"], ["board"]):
        with database.write() as session:
            adapter = service.change_adapter(session, key, AdapterChange(tags=tags))
            shown = service.summary(session, adapter).tags
    assert shown == ["board"]
    with pytest.raises(InvalidInput, match="at most 20 tags"), database.write() as session:
        service.change_adapter(session, key, AdapterChange(tags=[str(n) for n in range(21)]))


def test_a_download_is_ordered_once_until_the_order_has_ended(database: Database) -> None:
    make(database, "Chalk")
    with database.write() as session:
        first = service.order_file(session, 1)
        assert service.order_file(session, 1).key == first.key
        assert (
            service.order_file(
                session, 1, ExportAdapterArgs(format=KOHYA, dtype=WeightDtype.FP32)
            ).key
            != first.key
        )
        first.status = JobStatus.FAILED
        session.add(first)
        session.flush()
        assert service.order_file(session, 1).key != first.key


@pytest.mark.parametrize(
    ("change", "in_every_file"),
    [
        (AdapterChange(name="Slate"), True),
        (AdapterChange(license="CC0-1.0"), True),
        (AdapterChange(trigger_words=["slate"]), True),
        ("c" * 64, True),  # another cover
        (AdapterChange(notes="Of a wedding."), False),
        (AdapterChange(tags=["wedding"]), False),
        (AdapterChange(starred=True), None),
    ],
)
def test_a_file_that_says_what_is_no_longer_true_is_written_anew(
    database: Database, change: AdapterChange | str, in_every_file: bool | None
) -> None:
    key = make(database, "Chalk")
    for with_tags in (False, True):
        wanted = ExportAdapterArgs(format=KOHYA, dtype=FP16, with_tags=with_tags)
        with database.write() as session:
            version = session.get_one(AdapterVersion, 1)
            metadata = version_metadata(session, version, with_tags=with_tags)
            file = NewFile("kohya", "fp16", "a" * 64, 7, {"passed": True}, with_tags)
            add_file(session, 1, file)
            assert service.find_file(session, 1, wanted) is None  # nobody kept what it says
            first = add_file(session, 1, replace(file, facts_sha256=facts_sha256(metadata)))
            assert service.find_file(session, 1, wanted) is first

    def apply(session: Session) -> None:
        if isinstance(change, str):
            put_cover(session, service.get_adapter(session, key), change)
        else:
            service.change_adapter(session, key, change)

    with database.write() as session:
        apply(session)
        order = service.newest_order(session, 1)
        assert (order is not None) == bool(in_every_file)  # the one most people take, at once
        apply(session)
        assert service.newest_order(session, 1) is order
    for with_tags, told in ((False, in_every_file), (True, in_every_file is not None)):
        wanted = ExportAdapterArgs(format=KOHYA, dtype=FP16, with_tags=with_tags)
        with database.read() as session:
            assert (service.find_file(session, 1, wanted) is None) == bool(told)
            assert service.download_bytes(session, session.get_one(AdapterVersion, 1)) == 7
