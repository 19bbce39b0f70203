"""The io jobs that look at a model that was added: what it is, and whether it can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlmodel import Session

from app.registry.added_models.kinds import ModelKind
from app.registry.added_models.service import write_unusable
from app.registry.base_models.service import BASE_MODELS, write_inspection
from app.registry.caption_models.service import CAPTION_MODELS, write_checked
from app.registry.job_kinds.states import JobStatus
from worker.core.bases.family import BaseModelError
from worker.core.captioning.local.inspect import UnusableModel
from worker.runtime.inspection.limited import inspect_caption_model_in_time, inspect_in_time
from worker.runtime.job_progress import (
    IoWork,
    JobCanceled,
    RefusedError,
    WorkerStopping,
    finish,
)

CHECK_CANCELED = "The check of this {model} was canceled. Check it again."
REMOVED = "This {model} was removed, so it was not checked."
Info = TypeVar("Info")


def inspect_base(work: IoWork) -> None:
    """Read configs and headers of a base model. Raises RefusedError if it was removed."""
    _inspect(work, BASE_MODELS, inspect_in_time, write_inspection)


def check_caption_model(work: IoWork) -> None:
    """Read config and headers of a caption model. Raises RefusedError if it was removed."""
    _inspect(work, CAPTION_MODELS, inspect_caption_model_in_time, write_checked)


def _inspect(
    work: IoWork,
    kind: ModelKind[Any],
    inspect: Callable[..., Info],
    write: Callable[[Session, int, Info], None],
) -> None:
    """Write the facts that `inspect` finds in the files of a model, or why it is unusable."""
    with work.database.read() as session:
        model = session.get(kind.table, work.subject_id)
    if model is None:
        raise RefusedError("gone", REMOVED.format(model=kind.name))
    try:
        info = inspect(model.location, check=work.watch())
    except WorkerStopping:
        work.give_back()
    except JobCanceled:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.CANCELED)
            write_unusable(session, kind, model.key, CHECK_CANCELED.format(model=kind.name))
    except (BaseModelError, UnusableModel) as error:
        code = kind.name.replace(" ", "_")
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.FAILED, error=str(error), error_code=code)
            write_unusable(session, kind, model.key, str(error))
    else:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.SUCCEEDED)
            write(session, model.key, info)
