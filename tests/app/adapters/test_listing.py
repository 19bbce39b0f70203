"""Search, filters, orders and pages of the list of adapters, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import itertools
import json
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.library import listing, search
from app.registry.adapters.library.listing import Filter, Sort, list_adapters
from app.registry.adapters.service import AdapterChange
from app.registry.db import Database
from app.registry.deletion.lists import restore
from app.registry.errors import InvalidInput
from app.registry.tables.adapters import Adapter, AdapterTag, AdapterVersion, is_in_library
from tests.conftest import make_base_ready

START = datetime(2026, 1, 1, tzinfo=UTC)
FEW = 3


def make(database: Database, *names: str, **values: object) -> list[int]:
    """Adapters of these names, each a minute newer than the one before."""
    with database.write() as session:
        rows = [
            Adapter(
                slug=f"a{number}-{len(names)}-{hash(name) % 10**6}",
                name=name,
                base_family=str(values.get("family", "sd1")),
                notes=str(values.get("notes", "")),
                starred=bool(values.get("starred", False)),
                trigger_words=list(values.get("trigger_words", [])),  # type: ignore[call-overload]
                updated_at=START + timedelta(minutes=number),
            )
            for number, name in enumerate(names)
        ]
        session.add_all(rows)
        session.flush()
        for row in rows:
            session.add(
                AdapterVersion(
                    adapter_id=row.key, version=1, sha256="0" * 64, size_bytes=1, rank=4, alpha=4
                )
            )
            for tag in values.get("tags", []):  # type: ignore[attr-defined]
                session.add(AdapterTag(adapter_id=row.key, tag=tag))
    return [row.key for row in rows]


def names(database: Database, **wanted: object) -> list[str]:
    with database.read() as session:
        page = list_adapters(session, Filter(**wanted))  # type: ignore[arg-type]
    return [row.adapter.name for row in page.items]


@pytest.fixture(params=["narrow", "broad"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three, reached the one way and the other."""
    monkeypatch.setattr(listing, "ADAPTERS_A_PAGE", FEW)
    if request.param == "broad":
        monkeypatch.setattr(listing, "MAX_SORTED_IN_PYTHON", 0)


SEARCHES = [
    ("alk", True),  # within a word
    ("CHALK board", True),  # every word, in any order
    ("board chalk", True),
    ("chalk stone", False),
    ('"green board"', True),  # words one after the other
    ('"board green"', False),
    ("b", True),  # short ones at the beginning of words
    ("oa", False),
    ("cafe", True),  # without accents
    ("Cafè", True),
    ("dusty", True),  # a tag
    ("klimt", True),  # a trigger word
    ("sandpaper", True),  # a note
    ("starter", True),  # the base of a version
    ("sd1", True),
    ("🎨", True),
    ("墨絵", True),  # scripts without spaces: anywhere
    ("絵", True),
    ("100%", True),
    ("100_", False),
    ("%", True),
    ("'; DROP TABLE adapter; --", False),
    ('"', False),
    ("NOT AND OR *", False),
    ("\u200f", False),  # a sign of direction and nothing else
    ("x" * 200, False),
]


def test_words_are_found_where_they_may_be(database: Database) -> None:
    base = make_base_ready(database)
    name = "Chalk on green board, Café 🎨 水墨絵"
    words = {"tags": ["dusty"], "trigger_words": ["klimt"], "notes": "Like sandpaper.\n100% real"}
    (key,) = make(database, name, **words)
    make(database, "Plain", family="sdxl")
    with database.write() as session:
        version = service.get_version(session, service.get_adapter(session, key))
        version.base_model_id = base.key
        session.add(version)
    wrong = [
        (query, found) for query, found in SEARCHES if (names(database, q=query) == [name]) != found
    ]
    assert wrong == []
    with database.read() as session:  # the other way to the rows finds the same
        for query, found in SEARCHES:
            needles = search.needles(query)
            if needles:
                rows = session.exec(select(Adapter.id).where(search.matches(needles))).all()
                assert (rows == [key]) is found, query


def test_what_changes_is_found_anew_at_once(database: Database) -> None:
    (key,) = make(database, "Chalk")
    with database.write() as session:
        service.change_adapter(session, key, AdapterChange(name="Slate", tags=["stone"]))
        assert [row.adapter.key for row in list_adapters(session, Filter(q="stone")).items] == [key]
    assert names(database, q="chalk") == []
    assert names(database, q="slate stone") == ["Slate"]
    with database.write() as session:
        service.delete_adapter(session, key)
    assert names(database, q="slate") == names(database) == []
    with database.write() as session:
        restore(session, Adapter, key)
    assert names(database, q="slate") == ["Slate"]


def test_the_text_of_each_adapter_is_the_one_its_rows_make(database: Database) -> None:
    """Whatever is done, in whatever order, the stored texts are those written from nothing."""
    dice = random.Random(4)
    keys = make(database, "Ink", "Chalk", "Oil")
    for _ in range(25):
        with database.write() as session:
            key = dice.choice(keys)
            if dice.random() < 0.2:
                row = session.get_one(Adapter, key)
                if row.deleted_at:
                    restore(session, Adapter, key)
                else:
                    service.delete_adapter(session, key)
            elif session.get_one(Adapter, key).deleted_at is None:
                tags = dice.sample(["red", "blue", "grün"], dice.randrange(3))
                change = AdapterChange(name=dice.choice(["Über", "Sea"]), tags=tags)
                service.change_adapter(session, key, change)
    with database.read() as session:
        connection = session.connection()
        stored = connection.execute(sa.select(search.TEXTS.c.adapter_id, search.TEXTS.c.text))
        assert dict(map(tuple, stored)) == search.texts(connection, keys)
        if database.is_sqlite:
            check = "INSERT INTO adapter_fts(adapter_fts, rank) VALUES ('integrity-check', 1)"
            connection.exec_driver_sql(check)


@pytest.mark.usefixtures("small")
def test_pages_go_on_and_back_over_every_row_once(database: Database) -> None:
    same = ["Style", "style", "STYLE"]  # equal names: the id decides
    make(database, "Style é", *same, "b style", "a style", "Zz style", "style 9")
    with database.read() as session:
        for sort, q in itertools.product(Sort, ("", "style")):
            keys = walk_pages(session, sort, q)
            opposite = {Sort.NEWEST: Sort.OLDEST, Sort.NAME: Sort.NAME_DOWN}.get(sort)
            if opposite:
                first = list_adapters(session, Filter(q=q, sort=opposite))
                assert [row.adapter.key for row in first.items] == keys[::-1][:FEW]


def walk_pages(session: Session, sort: Sort, q: str) -> list[int]:
    """The rows of all three pages, the same on the way back and by number."""
    whole, cursor = [], ""
    while True:
        page = list_adapters(session, Filter(q=q, sort=sort, after=cursor))
        whole.append([row.adapter.key for row in page.items])
        assert page.total == (8 if not (q and page.more) else page.total)
        if page.next is None:
            break
        cursor = page.next
    assert [len(keys) for keys in whole] == [3, 3, 2]
    assert len({key for keys in whole for key in keys}) == 8
    back = [whole[-1]]
    while page.previous is not None:
        page = list_adapters(session, Filter(q=q, sort=sort, before=page.previous))
        back.append([row.adapter.key for row in page.items])
    assert back[::-1] == whole
    by_number = [list_adapters(session, Filter(q=q, sort=sort, page=n)) for n in (1, 2, 3, 4)]
    assert [[row.adapter.key for row in page.items] for page in by_number] == [*whole, []]
    return [key for keys in whole for key in keys]


@pytest.mark.usefixtures("small")
def test_a_new_adapter_moves_nothing_to_another_page(database: Database) -> None:
    make(database, "a", "b", "c", "d")
    with database.read() as session:
        first = list_adapters(session, Filter())
    with database.write() as session:
        session.add(Adapter(slug="new", name="new", base_family="sd1"))
    assert names(database, after=first.next) == ["a"]


@pytest.mark.usefixtures("small")
def test_filters_and_counts_agree_with_a_count_by_hand(database: Database) -> None:
    make(database, "a red", "b red", family="sd1", tags=["x", "y"])
    make(database, "c red", family="sdxl", tags=["x"], starred=True)
    make(database, "d blue", family="sdxl", tags=["y"])
    assert names(database, tags=("x",), sort=Sort.NAME) == ["a red", "b red", "c red"]
    assert names(database, tags=("x", "Y"), sort=Sort.NAME) == ["a red", "b red"]
    assert names(database, tags=("x",), base="sdxl") == ["c red"]
    assert names(database, q="red", starred=True, base="sdxl") == ["c red"]
    assert names(database, tags=("z",)) == names(database, tags=("\0",)) == []
    with database.read() as session:
        page = list_adapters(session, Filter(base="sdxl"))
        assert (page.total, page.more, page.families, page.starred) == (
            2,
            False,
            {"sd1": 2, "sdxl": 2},
            1,
        )
        both = list_adapters(session, Filter(base="sdxl", starred=True))
    assert both.total == 1


def test_counts_stop_where_they_would_cost_too_much(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNT_END", 4)
    monkeypatch.setattr(listing, "MAX_SORTED_IN_PYTHON", 2)
    make(database, *"abcdef", notes="word")
    with database.read() as session:
        whole = list_adapters(session, Filter())
        found = list_adapters(session, Filter(q="word"))
        few = list_adapters(session, Filter(q="word", starred=True))
    assert (whole.total, whole.more, dict(whole.families)) == (4, True, {"sd1": 5})
    assert (found.total, found.more, dict(found.families)) == (2, True, {"sd1": None})
    assert (few.total, few.more, few.items) == (0, False, [])


def cursor(*content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "é",
        "=",
        "A" * 2_001,
        cursor("newest", "2026-01-01T00:00:00+00:00"),
        cursor("newest", "2026-01-01T00:00:00+00:00", "1"),
        cursor("newest", "2026-01-01T00:00:00+00:00", True),
        cursor("newest", "2026-01-01T00:00:00+00:00", 2**40),
        cursor("newest", "2026-01-01", 1),
        cursor("newest", "yesterday", 1),
        cursor("newest", 5, 1),
        cursor("newest", None, 1),
        cursor("name", "ink", 1),  # of another order
        cursor(["newest"], "ink", 1),
    ],
)
def test_what_is_no_cursor_is_refused_with_what_to_do(sqlite_database: Database, text: str) -> None:
    with sqlite_database.read() as session:
        for name in ("after", "before"):
            with pytest.raises(InvalidInput, match="Start at the first page") as caught:
                list_adapters(session, Filter(**{name: text}))  # type: ignore[arg-type]
            assert list(caught.value.fields) == [name]
        odd = cursor("name", "\ud800", 1)
        with pytest.raises(InvalidInput):
            list_adapters(session, Filter(sort=Sort.NAME, after=odd))


def test_a_cursor_goes_with_nothing_else(sqlite_database: Database) -> None:
    here = cursor("newest", "2026-01-01T00:00:00+00:00", 1)
    with sqlite_database.read() as session:
        with pytest.raises(InvalidInput, match="not both"):
            list_adapters(session, Filter(after=here, before=here))
        with pytest.raises(InvalidInput, match="not both"):
            list_adapters(session, Filter(after=here, page=2))


def test_every_order_walks_its_index(database: Database) -> None:
    """Without one, each page would sort all adapters."""
    make(database, *(f"a{number}" for number in range(200)))
    make(database, "b", family="sdxl")
    seen = []
    with database.read() as session:
        connection = session.connection()
        if not database.is_sqlite:
            connection.exec_driver_sql("ANALYZE adapter")  # one page is read as soon by any index
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        for sort in Sort:
            for base in ("", "sdxl"):
                plan = explain(session, Filter(sort=sort, base=base))
                seen.append(plan)
                column = "updated_at" if sort.by_time else "sort_name"
                family = "base_family_" if base else ""
                assert f"ix_adapter_live_{family}{column}" in plan, plan
                assert "TEMP B-TREE" not in plan
                assert "Sort" not in plan
    assert len(seen) == 8


def explain(session: Session, wanted: Filter) -> str:
    """The plan of the query that fetches a page."""
    column, key = wanted.sort.column, col(Adapter.id)
    query = select(Adapter).where(is_in_library())
    if wanted.base:
        query = query.where(Adapter.base_family == wanted.base)
    down = wanted.sort.is_descending
    query = query.order_by(*((column.desc(), key.desc()) if down else (column, key))).limit(25)
    connection = session.connection()
    compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
    words = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{words} {compiled}")
    return "\n".join(str(row[-1]) for row in rows)


def test_who_edits_one_adapter_at_the_same_time_waits_and_both_edits_are_found(
    migrated_postgres: sa.Engine,
) -> None:
    database = Database(migrated_postgres)
    (key,) = make(database, "Edited by two")
    process = sa.select(sa.func.pg_backend_pid())
    started, pids = threading.Event(), []

    def star() -> None:
        with database.write() as session:
            pids.append(session.connection().execute(process).scalar_one())
            started.set()
            service.change_adapter(session, key, AdapterChange(starred=True))

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            session.add(AdapterTag(adapter_id=key, tag="dusty"))
            session.flush()
            other = pool.submit(star)
            assert started.wait(10)
            until_blocked(database, pids[0], other)
        other.result(10)
    assert names(database, q="edited two", tags=("dusty",), starred=True) == ["Edited by two"]


def until_blocked(database: Database, pid: int, work: Future[None]) -> None:
    """Return when this backend waits for a lock; fail when its work ends without having waited."""
    waits = sa.text("SELECT cardinality(pg_blocking_pids(:pid)) > 0").bindparams(pid=pid)
    while not work.done():
        with database.read() as session:
            if session.connection().execute(waits).scalar_one():
                return
        time.sleep(0.01)
    pytest.fail(f"It did not wait: {work.exception()}")
