"""Searches by an image that somebody drops: a job of seconds measures it, and it is not kept."""

from __future__ import annotations

import shutil
from base64 import b64encode
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col

from app.registry.db import database_now
from app.registry.errors import InvalidInput
from app.registry.job_kinds.kinds import JobKind, MeasureImageArgs
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile

KEPT = timedelta(days=1)  # the measured look, after the end of the job


def start(state: AppState, upload: UploadedFile) -> IoJob:
    """Queue the measuring of an image, of which a small copy is in the job until it ends.

    Raises InvalidInput with the reason for a file that cannot be used.
    """
    with temporary_folder(state.settings.scratch, "upload-") as folder:
        source = folder / "image"
        with upload.open() as content, source.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        try:
            image = state.decoder.decode(source, folder)
        except InvalidInput as error:
            raise InvalidInput(error.detail, fields={"file": error.detail}) from error
        small = (image.small or image.thumbnail).read_bytes()
    args = MeasureImageArgs(image=b64encode(small).decode())
    with state.database.write() as session:
        return jobs.enqueue_io(session, args)


def get(session: Session, search_id: int) -> IoJob:
    """Look up a search. Raises NotFound, also a day after its end."""
    return jobs.get_io(session, search_id, "search", JobKind.MEASURE_IMAGE)


def forget_ended(session: Session) -> None:
    """Delete the searches that ended a day ago."""
    ended = col(IoJob.finished_at) < database_now(session) - KEPT
    old = sa.delete(IoJob).where(col(IoJob.kind) == JobKind.MEASURE_IMAGE, ended)
    keys = session.connection().execute(old.returning(col(IoJob.id))).scalars()
    jobs.forget_texts(session, IoJob, [key or 0 for key in keys])
