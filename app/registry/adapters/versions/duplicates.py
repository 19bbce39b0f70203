"""Whether the registry has an adapter already, however its file is called or what it says."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.adapters.models import Adapter, AdapterVersion


def same_tensors(session: Session, tensor_sha256: str) -> AdapterVersion | None:
    """The oldest version that came from, or was given out as, a file with these very tensors.

    The hash is that of a file's bytes after its header, which other programs know a LoRA by.
    """
    told = col(AdapterVersion.file_tensor_sha256) == tensor_sha256
    query = (
        select(AdapterVersion)
        .join(Adapter)
        .where(col(Adapter.deleted_at).is_(None), told)
        .order_by(col(AdapterVersion.id))
    )
    return session.exec(query).first()
