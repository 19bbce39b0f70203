"""The io jobs that look at a model that was added: what it is, and whether it can be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.registry.added_models.service import ModelKind, write_ready, write_unusable
from app.registry.base_models.service import BASE_MODELS
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.job_kinds.states import JobStatus
from worker.runtime.inspection.limited import UnusableModelError, inspect_in_time
from worker.runtime.job_progress import (
    IoWork,
    JobCanceled,
    RefusedError,
    WorkerStopping,
    finish,
)

CHECK_CANCELED = "The check of this {model} was canceled. Check it again."
KINDS: Mapping[str, ModelKind[Any]] = {
    kind.check.kind: kind for kind in (BASE_MODELS, CAPTION_MODELS)
}
REMOVED = "This {model} was removed, so it was not checked."


def run(work: IoWork) -> None:
    """Read configs and headers of a model; write what it is, or why it is unusable.

    Raises RefusedError if it was removed.
    """
    kind = KINDS[work.job.kind]
    with work.database.read() as session:
        model = session.get(kind.table, work.subject_id)
    if model is None:
        raise RefusedError("gone", REMOVED.format(model=kind.name))
    try:
        info = inspect_in_time(work.job.kind, model.location, check=work.watch())
    except WorkerStopping:
        work.give_back()
    except JobCanceled:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.CANCELED)
            write_unusable(session, kind, model.key, CHECK_CANCELED.format(model=kind.name))
    except UnusableModelError as error:
        code = kind.name.replace(" ", "_")
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.FAILED, error=str(error), error_code=code)
            write_unusable(session, kind, model.key, str(error))
    else:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.SUCCEEDED)
            write_ready(session, kind, model.key, info)
