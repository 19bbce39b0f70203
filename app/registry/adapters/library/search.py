"""Finding adapters by parts of words, on SQLite and on PostgreSQL, at any size of the registry.

Each adapter has one text in `adapter_search`: name, address, trigger words, tags, bases and notes,
folded (case, accents) and with two spaces before each word. A word of three letters or more is
found anywhere in it, a shorter one at the beginning of words, where the spaces make three signs of
it. So every search is one for trigrams, and both databases have an index for these: SQLite an FTS5
table with the trigram tokenizer, kept in step by triggers; PostgreSQL a GIN index on an array of
hashed trigrams. Neither needs an extension, or rights beyond those for tables.

Before the words stand the marks of the filters (tag, family, star), so that the index also knows
what many filters at once have in common.
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

from app.registry.adapters.models import Adapter, AdapterTag, AdapterVersion
from app.registry.base_models.models import BaseModel

MAX_WORDS = 12
MAX_TEXT = 30_000  # signs of one adapter's text; notes may have 20,000
MAX_SORT_NAME = 240
MARK = "\1"  # around what only filters look for; no text has it, `fold` takes it out
END = f"\n{MARK}2"  # which way of writing texts this is: those of another one are written anew
BATCH = 500
GRAM = 3
PHRASE = re.compile(r'"([^"]*)"|(\S+)')
# Signs that are words of their own, so that one or two are found anywhere: all but letters and
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
    """The text without case, accents, control and direction signs, each run of spaces as one."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    kept = (sign for sign in signs if unicodedata.category(sign) not in ("Mn", "Cf", "Cs"))
    joined = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in kept)
    return " ".join(unicodedata.normalize("NFKC", joined).casefold().split())


def sort_name(name: str) -> str:
    """What the order by name goes by, the same on every database."""
    return fold(name)[:MAX_SORT_NAME]


def spaced(text: str) -> str:
    """The folded text with two spaces before each word."""
    words = ALONE.sub(r" \1 ", fold(text)).split()
    return "".join(f"  {word}" for word in words)


def needles(query: str) -> list[str]:
    """What has to occur in a text that this search finds, each at least three signs long.

    Words may come in any order; those in "quotation marks" one after the other.
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
    """The needle of a tag as it is stored."""
    return f"{MARK}t{tag}{MARK}"


def family_mark(family: str) -> str:
    """The needle of a family of bases."""
    return f"{MARK}b{family}{MARK}"


STAR_MARK = f"{MARK}*{MARK}"


def grams(text: str) -> list[int]:
    """The trigrams of a text as signed 32-bit numbers, each once."""
    parts = {text[start : start + GRAM] for start in range(len(text) - GRAM + 1)}
    return sorted({zlib.crc32(part.encode()) - 2**31 for part in parts})


def candidates(session: Session, wanted: Sequence[str], *, most: int) -> list[int] | None:
    """The ids of the adapters with all these needles; None when there are more than `most`."""
    if session.get_bind().dialect.name == "sqlite":
        words = " AND ".join('"{}"'.format(needle.replace('"', '""')) for needle in wanted)
        query = sa.select(FTS.c.rowid).where(FTS.c.adapter_fts.op("MATCH")(words))
    else:
        parts = sorted({part for needle in wanted for part in grams(needle)})
        query = sa.select(TEXTS.c.adapter_id).where(
            TEXTS.c.grams.op("@>")(sa.cast(parts, sa.ARRAY(sa.Integer))), contains(wanted)
        )
    found = session.connection().execute(query.limit(most + 1)).scalars().all()
    return None if len(found) > most else list(found)


def contains(wanted: Iterable[str]) -> ColumnElement[bool]:
    """True for a row of `adapter_search` whose text has all these needles."""
    return sa.and_(
        sa.true(), *(TEXTS.c.text.contains(needle, autoescape=True) for needle in wanted)
    )


def matches(wanted: Iterable[str]) -> ColumnElement[bool]:
    """True for an adapter with all these needles: for walks along an index of adapters.

    No EXISTS: PostgreSQL takes every LIKE '%…%' for rare and reads all texts before it sorts.
    """
    fits = sa.select(contains(wanted)).where(TEXTS.c.adapter_id == col(Adapter.id))
    return fits.scalar_subquery()


def index(connection: Connection, adapter_ids: Iterable[int]) -> None:
    """Write the texts of these adapters anew, as far as they changed; deleted ones have none."""
    keys = sorted(set(adapter_ids))
    for start in range(0, len(keys), BATCH):
        _index_batch(connection, keys[start : start + BATCH])


def index_missing(connection: Connection) -> None:
    """Write the texts of adapters that have none, or an older one, as after a migration."""
    known = sa.select(TEXTS.c.adapter_id).where(TEXTS.c.text.endswith(END))
    missing = sa.select(col(Adapter.id)).where(
        col(Adapter.deleted_at).is_(None), col(Adapter.id).not_in(known)
    )
    keys = [key for key in connection.execute(missing).scalars() if key is not None]
    index(connection, keys)
    if keys:
        names = sa.select(col(Adapter.id), col(Adapter.name)).where(col(Adapter.sort_name) == "")
        values = [{"key": key, "sort": sort_name(name)} for key, name in connection.execute(names)]
        if values:
            table: Any = Adapter.__table__  # type: ignore[attr-defined]
            change = sa.update(table).where(table.c.id == sa.bindparam("key"))
            connection.execute(change.values(sort_name=sa.bindparam("sort")), values)


def _index_batch(connection: Connection, keys: Sequence[int]) -> None:
    _lock(connection, keys)
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


def _lock(connection: Connection, keys: Sequence[int]) -> None:
    """Let who writes texts of one adapter at the same time come one after the other.

    Who waited reads what the other wrote: on PostgreSQL each statement sees what is committed when
    it begins. SQLite has one writer anyway.
    """
    if connection.dialect.name != "sqlite":
        rows = sa.select(col(Adapter.id)).where(col(Adapter.id).in_(keys)).order_by(col(Adapter.id))
        connection.execute(rows.with_for_update(key_share=True)).all()


def insert_texts(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Store texts, `adapter_id` and `text` of each, with what the database's index needs."""
    if connection.dialect.name != "sqlite":
        rows = [row | {"grams": grams(row["text"])} for row in rows]
    connection.execute(sa.insert(TEXTS), rows)


def texts(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """The texts of these adapters by id, without deleted ones."""
    adapters = connection.execute(
        sa.select(
            col(Adapter.id),
            col(Adapter.name),
            col(Adapter.slug),
            col(Adapter.notes),
            col(Adapter.trigger_words),
            col(Adapter.base_family),
            col(Adapter.starred),
        ).where(col(Adapter.id).in_(keys), col(Adapter.deleted_at).is_(None))
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
    """The text of an adapter with these words and notes, each on a line that no phrase leaves."""
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
    """Whoever writes an adapter, a tag or a version keeps the texts in step, in one transaction."""
    keys: set[int] = set()
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, Adapter) and row.id is not None:
            keys.add(row.id)
        elif isinstance(row, AdapterTag | AdapterVersion):
            keys.add(row.adapter_id)
    if keys:
        index(session.connection(), keys)
