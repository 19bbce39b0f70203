"""Which database the files of a store belong to: an id in both, and how far the database has got.

The store's marker names the registry and its newest event. A database that has another id, or in
which that event is missing or differs, is another database, an older copy or a copy that has gone
its own way. Its sweeps only report, because the files it does not know may be needed elsewhere.

A marker is only advanced by the database it belongs to, and only lowered by `adopt`. It names an
event that is some minutes old: SQLite may lose its last commits when the power fails, and a
standby server those it had not received, and neither makes the database an older copy.
"""

from __future__ import annotations

import hashlib
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from app.registry.db import Database, utcnow
from app.registry.storage.store import BlobStore
from app.registry.tables.blobs import ONLY_ROW, Registry
from app.registry.tables.jobs import Event

SETTLED = timedelta(minutes=2)  # age from which an event survives a power failure
OTHERS_SEEN = timedelta(days=7)  # how long another database counts as one that uses the store
SEEN_AGAIN = timedelta(hours=1)  # another database is not written down more often


class DamagedMarker(Exception):
    """The marker of the store cannot be read."""


class NewestEvent(BaseModel):
    """An event by its number; the fingerprint tells two events with one number apart."""

    model_config = ConfigDict(frozen=True)
    number: int = 0  # 0: no event yet, which every database has
    fingerprint: str = ""
    at: AwareDatetime | None = None


class OtherDatabase(BaseModel):
    """A database that used the store without owning it; `host` is the machine it was used from."""

    model_config = ConfigDict(frozen=True)
    registry: str
    host: str
    seen_at: AwareDatetime


class Marker(BaseModel):
    """The owner of the store's files, its newest event, and the databases seen beside it."""

    model_config = ConfigDict(frozen=True)
    registry: str
    newest: NewestEvent
    written_at: AwareDatetime
    adopted_at: AwareDatetime | None = None
    others: tuple[OtherDatabase, ...] = ()

    def seen_since(self, moment: datetime) -> tuple[OtherDatabase, ...]:
        """The other databases that used the store since this time."""
        return tuple(other for other in self.others if other.seen_at >= moment)


def read_marker(store: BlobStore) -> Marker | None:
    """The marker of the store; None if it has none. Raises DamagedMarker."""
    data = store.read_marker()
    if data is None:
        return None
    try:
        return Marker.model_validate_json(data)
    except ValidationError as error:
        raise DamagedMarker from error


def write_marker(store: BlobStore, marker: Marker) -> None:
    """Replace the marker of the store."""
    store.write_marker(marker.model_dump_json(indent=1).encode())


class Owner(StrEnum):
    """The owner of the files in a store."""

    THIS = "this"  # this database
    SHARED = "shared"  # this database, but another one used the store lately
    NOBODY = "nobody"  # no database yet
    NEWER = "newer"  # a newer state of this database
    FORKED = "forked"  # a copy of this database, which both went on from
    OTHER = "other"  # another database
    UNKNOWN = "unknown"  # the marker is damaged


@dataclass(frozen=True)
class OwnerCheck:
    """The owner of the files, with a sentence about it if that is not just this database."""

    owner: Owner
    sentence: str = ""
    marker: Marker | None = None

    @property
    def is_this(self) -> bool:
        """True if this database alone uses the files."""
        return self.owner is Owner.THIS

    @property
    def may_advance(self) -> bool:
        """True if this database advances the marker."""
        return self.owner in (Owner.THIS, Owner.SHARED)


def check(database: Database, store: BlobStore, *, now: datetime | None = None) -> OwnerCheck:
    """Find out who the files belong to; writes nothing. Raises StorageUnavailable."""
    try:
        marker = read_marker(store)
    except DamagedMarker:
        return OwnerCheck(Owner.UNKNOWN, "The file registry.json beside the files is damaged.")
    if marker is None:
        return OwnerCheck(Owner.NOBODY, "The files do not say which database they belong to.")
    with database.read() as session:
        owner = _owner(session, marker, now or utcnow())
        newest = _newest_event(session, None)
        registry = _registry(session)
    return OwnerCheck(owner, _sentence(owner, marker, registry, newest), marker)


def record(database: Database, store: BlobStore, *, now: datetime | None = None) -> OwnerCheck:
    """Check the owner, and write down in the store how far this database has got.

    An empty store gets its owner; a database that does not own the store is noted there, so that
    the owner knows of it.
    """
    now = now or utcnow()
    found = check(database, store, now=now)
    if found.owner is Owner.NOBODY and next(iter(store.list()), None) is None:
        return claim(database, store, now=now)
    marker = found.marker
    if marker is None:
        return found
    newest = _newest_settled(database, now)
    if not found.may_advance:
        _note_other(database, store, marker, now)
    elif newest.number > marker.newest.number:
        write_marker(store, marker.model_copy(update={"newest": newest, "written_at": now}))
    return found


def claim(database: Database, store: BlobStore, *, now: datetime | None = None) -> OwnerCheck:
    """Make this database the owner of a store that has none."""
    return _write_owner(database, store, now or utcnow(), adopted=False)


def adopt(database: Database, store: BlobStore, *, now: datetime | None = None) -> OwnerCheck:
    """Make this database the owner of the store, whoever it belonged to."""
    return _write_owner(database, store, now or utcnow(), adopted=True)


def _write_owner(
    database: Database, store: BlobStore, now: datetime, *, adopted: bool
) -> OwnerCheck:
    marker = Marker(
        registry=registry_uid(database),
        newest=_newest_settled(database, now),
        written_at=now,
        adopted_at=now if adopted else None,
    )
    write_marker(store, marker)
    return OwnerCheck(Owner.THIS, marker=marker)


def newest_settled(database: Database) -> int:
    """The number of the event that `record` would write down now; 0 if there is none."""
    return _newest_settled(database, utcnow()).number


def _newest_settled(database: Database, now: datetime) -> NewestEvent:
    with database.read() as session:
        return _newest_event(session, now - SETTLED)


def registry_uid(database: Database) -> str:
    """The id of this registry; made at the first call, the same for concurrent callers."""
    with database.read() as session:
        found = _registry(session)
    if found is not None:
        return found.uid
    insert = sqlite.insert if database.is_sqlite else postgresql.insert
    with database.write() as session:
        row = Registry(uid=uuid.uuid4().hex)
        session.connection().execute(
            insert(Registry).values(**row.model_dump()).on_conflict_do_nothing()
        )
        return session.get_one(Registry, ONLY_ROW).uid


def _registry(session: Session) -> Registry | None:
    return session.get(Registry, ONLY_ROW)


def _newest_event(session: Session, until: datetime | None) -> NewestEvent:
    """The newest event, or the newest that is not younger than `until`."""
    query = select(Event).order_by(col(Event.id).desc()).limit(1)
    if until is not None:
        query = query.where(col(Event.at) <= until)
    event = session.exec(query).first()
    return NewestEvent() if event is None else _as_newest(event)


def _as_newest(event: Event) -> NewestEvent:
    """An event as a marker names it. Its data is left out, as it may be removed for privacy."""
    parts = (
        event.id,
        event.at.astimezone(UTC).isoformat(),
        event.subject,
        event.subject_id,
        event.kind,
    )
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return NewestEvent(number=event.id or 0, fingerprint=digest, at=event.at)


def _owner(session: Session, marker: Marker, now: datetime) -> Owner:
    registry = _registry(session)
    if registry is None or registry.uid != marker.registry:
        return Owner.OTHER
    if marker.newest.number:
        event = session.get(Event, marker.newest.number)
        if event is None and _newest_event(session, None).number < marker.newest.number:
            return Owner.NEWER
        if event is None or _as_newest(event) != marker.newest:
            return Owner.FORKED
    return Owner.SHARED if marker.seen_since(now - OTHERS_SEEN) else Owner.THIS


def _note_other(database: Database, store: BlobStore, marker: Marker, now: datetime) -> None:
    """Write down in the marker that this database used the store."""
    me = OtherDatabase(registry=registry_uid(database), host=socket.gethostname(), seen_at=now)
    others = {(other.registry, other.host): other for other in marker.others}
    seen = others.get((me.registry, me.host))
    if seen is None or seen.seen_at < now - SEEN_AGAIN:
        others[me.registry, me.host] = me
        write_marker(store, marker.model_copy(update={"others": tuple(others.values())}))


def _sentence(owner: Owner, marker: Marker, registry: Registry | None, newest: NewestEvent) -> str:
    """A sentence about an owner that is not just this database."""
    theirs = f"event {marker.newest.number}{_time_text(marker.newest.at)}"
    if owner is Owner.OTHER:
        mine = f"this one is {registry.uid[:8]}" if registry else "this one is new"
        return (
            f"The files belong to another database: registry {marker.registry[:8]}, which used "
            f"them last{_time_text(marker.written_at)}; {mine}."
        )
    if owner is Owner.NEWER:
        return (
            f"This database is older than the files: they were last used with {theirs}, and its "
            f"newest is event {newest.number}{_time_text(newest.at)}."
        )
    if owner is Owner.FORKED:
        return (
            f"Another copy of this database used the files since: {theirs} is not the event of "
            "that number here."
        )
    if owner is Owner.SHARED:
        last = max(marker.others, key=lambda other: other.seen_at)
        return (
            f"Two databases use these files: this one, and registry {last.registry[:8]} on "
            f"{last.host}, last seen{_time_text(last.seen_at)}."
        )
    return ""


def _time_text(moment: datetime | None) -> str:
    return f" ({moment:%Y-%m-%d %H:%M} UTC)" if moment else ""
