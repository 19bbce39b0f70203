"""Removal of models: only downloads are deleted, and only if no other model has them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.added_models import downloads
from app.registry.added_models.service import ModelKind, Row
from app.registry.config import Settings
from app.registry.errors import Conflict
from app.registry.tables.added_models import ModelStatus


class FileRemoval(StrEnum):
    """The treatment of the files of a removed model."""

    STAY = "stay"
    SHARED = "shared"
    DELETED = "deleted"
    FETCHABLE = "fetchable"


def require_no_download(session: Session, kind: ModelKind[Row], model: Row) -> None:
    """Raise Conflict while a model is being downloaded."""
    if downloads.active_download(session, kind.download, model.key):
        raise Conflict(f"“{model.name}” is being downloaded. Stop the download first.")


def file_removal(
    session: Session, kind: ModelKind[Row], model: Row, settings: Settings
) -> tuple[FileRemoval, Path | None]:
    """The treatment of the files of a model if it is removed, and the path to delete, if any.

    The revisions of a repository share one folder.
    """
    source, table = model.hub_source, kind.table
    if source is None:
        return FileRemoval.STAY, None
    others = select(table).where(col(table.id) != model.key, table.status != ModelStatus.REMOVED)
    repositories = [other.hub_source for other in session.exec(others)]
    if any(other is not None and other.repo == source.repo for other in repositories):
        return FileRemoval.SHARED, None
    return FileRemoval.FETCHABLE, kind.download_folder(settings) / source.folder
