"""Search for adapters by parts of words, on SQLite and PostgreSQL, for registries of any size.

Each adapter has one text in `adapter_search`: name, slug, trigger words, tags, base models and
notes, folded (case, accents) and with two spaces before each word. Words of three or more
characters match anywhere; shorter ones match at the start of words, where the spaces extend them to
three characters. So every search uses trigrams, which both databases index: SQLite with an FTS5
table (trigram tokenizer, updated by triggers), PostgreSQL with a GIN index on an array of hashed
trigrams. Neither needs an extension or additional privileges.

The text starts with marks for the filters (tag, family, star), so the index also covers
combinations of filters.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, event
from sqlalchemy.orm import UOWTransaction
from sqlmodel import Session, col

from app.registry.tables.adapters import Adapter, AdapterTag, AdapterVersion, is_in_library
from app.registry.tables.added_models import BaseModel
from app.registry.tables.owned import hidden_rows

MAX_WORDS = 12
MAX_TEXT = 30_000  # characters of one adapter's text; notes may have 20,000
MAX_SORT_NAME = 240
MARK = "\1"  # encloses the marks of filters; `fold` removes it from texts
END = f"\n{MARK}2"  # version of the text format: texts of other versions are written again
BATCH = 500
GRAM = 3
PHRASE = re.compile(r'"([^"]*)"|(\S+)')
# Characters that count as words, so that one or two are found anywhere: all except letters and
# digits, and those of scripts without spaces.
ALONE = re.compile(
    r"([^\w\s]|_|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af])"
)
FTS = sa.table("adapter_fts", sa.column("rowid", sa.Integer), sa.column("adapter_fts", sa.Text))
TEXTS = sa.table(
    "adapter_search",
    sa.column("adapter_id", sa.Integer),
    sa.column("text", sa.Text),
    sa.column("grams", sa.ARRAY(sa.Integer)),  # only on PostgreSQL
)


def fold(text: str) -> str:
    """The text without case, accents, control and direction characters, with single spaces."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    kept = (sign for sign in signs if unicodedata.category(sign) not in ("Mn", "Cf", "Cs"))
    joined = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in kept)
    return " ".join(unicodedata.normalize("NFKC", joined).casefold().split())


def sort_name(name: str) -> str:
    """The key for sorting by name, equal on every database."""
    return fold(name)[:MAX_SORT_NAME]


def spaced(text: str) -> str:
    """The folded text with two spaces before each word."""
    words = ALONE.sub(r" \1 ", fold(text)).split()
    return "".join(f"  {word}" for word in words)


def searched_lines(values: Iterable[str]) -> str:
    """The searched text of these values; each is on its own line, so phrases cannot span two."""
    return "\n".join(spaced(value) for value in values if value)


def needles(query: str) -> list[str]:
    """The strings that a matching text must contain, each at least three characters long.

    Words may occur in any order; phrases in "quotation marks" only as a whole.
    """
    found = []
    for phrase, word in PHRASE.findall(query)[:MAX_WORDS]:
        needle = spaced(phrase or word)
        if len(needle.strip()) >= GRAM:
            found.append(needle.strip())
        elif needle:
            found.append(needle[-GRAM:])
    return list(dict.fromkeys(found))


def tag_mark(tag: str) -> str:
    """The search string for a stored tag."""
    return f"{MARK}t{tag}{MARK}"


def family_mark(family: str) -> str:
    """The search string for a base family."""
    return f"{MARK}b{family}{MARK}"


STAR_MARK = f"{MARK}*{MARK}"


def grams(text: str) -> list[int]:
    """The distinct trigrams of a text as signed 32-bit numbers."""
    parts = {text[start : start + GRAM] for start in range(len(text) - GRAM + 1)}
    return sorted({zlib.crc32(part.encode()) - 2**31 for part in parts})


def candidates(session: Session, strings: Sequence[str], *, most: int) -> list[int] | None:
    """The ids of adapters that contain all these strings; None if there are more than `most`."""
    if session.get_bind().dialect.name == "sqlite":
        words = " AND ".join('"{}"'.format(needle.replace('"', '""')) for needle in strings)
        key, query = FTS.c.rowid, sa.select(FTS.c.rowid)
        query = query.where(FTS.c.adapter_fts.op("MATCH")(words))
    else:
        parts = sorted({part for needle in strings for part in grams(needle)})
        key, query = TEXTS.c.adapter_id, sa.select(TEXTS.c.adapter_id)
        query = query.where(
            TEXTS.c.grams.op("@>")(sa.cast(parts, sa.ARRAY(sa.Integer))), contains(strings)
        )
    hidden = hidden_rows(session, Adapter, "id")
    if hidden is not None:
        query = query.where(key.not_in(hidden))
    found = session.connection().execute(query.limit(most + 1)).scalars().all()
    return None if len(found) > most else list(found)


def contains(strings: Iterable[str]) -> ColumnElement[bool]:
    """Condition for rows of `adapter_search` whose text contains all these strings."""
    return sa.and_(
        sa.true(), *(TEXTS.c.text.contains(needle, autoescape=True) for needle in strings)
    )


def matches(strings: Iterable[str]) -> ColumnElement[bool]:
    """Condition for adapters that contain all these strings, for scans of an adapter index.

    Without EXISTS, because PostgreSQL assumes that LIKE '%…%' is selective and reads all texts.
    """
    fits = sa.select(contains(strings)).where(TEXTS.c.adapter_id == col(Adapter.id))
    return fits.scalar_subquery()


def index(connection: Connection, adapter_ids: Iterable[int]) -> None:
    """Update the texts of these adapters if they changed; deleted and unlisted ones have none."""
    keys = sorted(set(adapter_ids))
    for start in range(0, len(keys), BATCH):
        _index_batch(connection, keys[start : start + BATCH])


def missing_texts(connection: Connection) -> list[int]:
    """The ids of adapters whose text is missing or outdated, such as after a migration."""
    known = sa.select(TEXTS.c.adapter_id).where(TEXTS.c.text.endswith(END))
    missing = sa.select(col(Adapter.id)).where(is_in_library(), col(Adapter.id).not_in(known))
    return [key for key in connection.execute(missing).scalars() if key is not None]


def index_missing(connection: Connection) -> None:
    """Write missing or outdated texts."""
    keys = missing_texts(connection)
    index(connection, keys)
    if keys:
        names = sa.select(col(Adapter.id), col(Adapter.name)).where(col(Adapter.sort_name) == "")
        values = [{"key": key, "sort": sort_name(name)} for key, name in connection.execute(names)]
        if values:
            table: Any = Adapter.__table__  # type: ignore[attr-defined]
            change = sa.update(table).where(table.c.id == sa.bindparam("key"))
            connection.execute(change.values(sort_name=sa.bindparam("sort")), values)


def _index_batch(connection: Connection, keys: Sequence[int]) -> None:
    _lock_texts(connection, keys)
    here = TEXTS.c.adapter_id.in_(keys)
    query = sa.select(TEXTS.c.adapter_id, TEXTS.c.text).where(here)
    old = {row.adapter_id: row.text for row in connection.execute(query)}
    new = texts(connection, keys)
    changed = [key for key, text in old.items() if new.get(key) != text]
    if changed:
        connection.execute(sa.delete(TEXTS).where(TEXTS.c.adapter_id.in_(changed)))
    rows = [{"adapter_id": key, "text": text} for key, text in new.items() if old.get(key) != text]
    if rows:
        insert_texts(connection, rows)


def _lock_texts(connection: Connection, keys: Sequence[int]) -> None:
    """Serialize concurrent writes to the texts of one adapter.

    On PostgreSQL, each statement sees what was committed before it began, so a waiting writer reads
    the other's text. SQLite has one writer anyway.
    """
    if connection.dialect.name != "sqlite":
        rows = sa.select(col(Adapter.id)).where(col(Adapter.id).in_(keys)).order_by(col(Adapter.id))
        connection.execute(rows.with_for_update(key_share=True)).all()


def insert_texts(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of `adapter_id` and `text`, with the values for the database's index."""
    if connection.dialect.name != "sqlite":
        rows = [row | {"grams": grams(row["text"])} for row in rows]
    connection.execute(sa.insert(TEXTS), rows)


def texts(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """The texts of these adapters by id, except deleted and unlisted ones."""
    adapters = connection.execute(
        sa.select(
            col(Adapter.id),
            col(Adapter.name),
            col(Adapter.slug),
            col(Adapter.notes),
            col(Adapter.trigger_words),
            col(Adapter.base_family),
            col(Adapter.starred),
        ).where(col(Adapter.id).in_(keys), is_in_library())
    ).all()
    tags = _words_of(
        connection,
        sa.select(col(AdapterTag.adapter_id), col(AdapterTag.tag)).where(
            col(AdapterTag.adapter_id).in_(keys)
        ),
    )
    bases = _words_of(
        connection,
        sa.select(col(AdapterVersion.adapter_id), col(BaseModel.name))
        .join(BaseModel, col(BaseModel.id) == col(AdapterVersion.base_model_id))
        .where(col(AdapterVersion.adapter_id).in_(keys))
        .distinct(),
    )
    return {
        row.id: text_of(
            [row.name, row.slug, *row.trigger_words, *bases.get(row.id, [])],
            tags=tags.get(row.id, []),
            family=row.base_family,
            starred=row.starred,
            notes=row.notes,
        )
        for row in adapters
    }


def _words_of(connection: Connection, query: Any) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for key, words in connection.execute(query):
        found.setdefault(key, []).append(words)
    return found


def text_of(
    words: Iterable[str], *, tags: Iterable[str], family: str, starred: bool, notes: str
) -> str:
    """The text of an adapter; each value is on its own line, so phrases cannot span two."""
    tags = sorted(tags)
    marks = [family_mark(family), *map(tag_mark, tags), *([STAR_MARK] if starred else [])]
    parts = [spaced(part) for part in [*words, *tags, family, notes] if part]
    return "\n".join(["".join(marks), *parts])[:MAX_TEXT] + END


@event.listens_for(Session, "before_flush")
def _name_for_sorting(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    for row in (*session.new, *session.dirty):
        if isinstance(row, Adapter):
            row.sort_name = sort_name(row.name)


@event.listens_for(Session, "after_flush")
def _index_changes(session: Session, _context: UOWTransaction) -> None:
    """Update the texts in the same transaction as adapters, tags and versions."""
    keys: set[int] = set()
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, Adapter) and row.id is not None:
            keys.add(row.id)
        elif isinstance(row, AdapterTag | AdapterVersion):
            keys.add(row.adapter_id)
    if keys:
        index(session.connection(), keys)
