"""The version in use of an adapter: the one that `latest` points to, with the adapter's cover."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, select

from app.registry.adapters import service
from app.registry.adapters.versions import aliases
from app.registry.tables.adapters import LATEST, Adapter, AdapterVersion


@dataclass(frozen=True)
class UsedVersion:
    """The version that is in use now; `before`: the one that was, None if there was none."""

    adapter: Adapter
    version: AdapterVersion
    before: AdapterVersion | None

    @property
    def undo(self) -> int | None:
        """Number of the version to use again to undo this; None if nothing changed."""
        is_other = self.before is not None and self.before.key != self.version.key
        return self.before.version if self.before and is_other else None


def use_version(session: Session, adapter_id: int, reference: int | str) -> UsedVersion:
    """Point `latest` to a version, given by its number or an alias.

    A cover that is a sample of the version in use before becomes the first sample of this one.
    Raises NotFound, and Conflict for the checkpoints of a run.
    """
    session.exec(select(Adapter).where(Adapter.id == adapter_id).with_for_update()).first()
    adapter = service.require_listed(service.get_adapter(session, adapter_id))
    version = service.get_version(session, adapter, reference)
    before = service.get_version(session, adapter)
    samples = service.version_samples(session, version)
    covers = [row.sha256 for row in service.version_samples(session, before)]
    with service.renewed_download(session, adapter, version):
        if samples and before.key != version.key and adapter.cover_sha256 in covers:
            adapter.cover_sha256 = samples[0].sha256
        aliases.point(session, version, LATEST)
    return UsedVersion(adapter, version, before)


def set_alias(session: Session, version: AdapterVersion, alias: str) -> str:
    """Point an alias to this version, also `latest`; return it as stored."""
    if aliases.read_alias(alias) != LATEST:
        return aliases.set_alias(session, version, alias)
    use_version(session, version.adapter_id, version.version)
    return LATEST
