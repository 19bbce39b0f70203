"""The versions that runs made, as tests count them."""

from __future__ import annotations

from sqlmodel import Session, select

from app.registry.tables.adapters import Adapter, AdapterVersion, is_listed


def versions_of_run(session: Session, run_id: int) -> list[AdapterVersion]:
    """The versions in the library that a run made, without those of its checkpoints."""
    made = select(AdapterVersion).where(AdapterVersion.run_id == run_id)
    return list(session.exec(made.join(Adapter).where(is_listed())))
