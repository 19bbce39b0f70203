"""The marker of a store: the registry that its files belong to, and others that used them."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from app.registry.storage.store import BlobStore


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
