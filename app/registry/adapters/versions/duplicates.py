"""Finds adapters that are already in the registry, regardless of file name and metadata."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library


def same_tensors(session: Session, tensor_sha256: str) -> AdapterVersion | None:
    """The oldest version imported from, or offered as, a file with identical tensors.

    The hash covers a file's bytes after its header; other programs use it to identify a LoRA.
    """
    from_file = col(AdapterVersion.file_tensor_sha256) == tensor_sha256
    query = (
        select(AdapterVersion)
        .join(Adapter)
        .where(is_in_library(), from_file)
        .order_by(col(AdapterVersion.id))
    )
    return session.exec(query).first()
