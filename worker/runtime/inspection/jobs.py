"""The io jobs that look at a model that was added: what it is, and whether it can be used.

They look within a time limit, in a process that is ended if need be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.registry.added_models.service import ModelKind, write_ready, write_unusable
from app.registry.base_models.service import BASE_MODELS
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.job_kinds.job_types import INSPECTION_LIMIT
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import JobStatus
from worker.core.bases.family import BaseInfo
from worker.core.captioning.local.inspect import CaptionModelInfo
from worker.runtime.device import child_environment
from worker.runtime.job_progress import IoWork, JobCanceled, RefusedError, WorkerStopping, finish
from worker.runtime.line_process import Ended, LineProcess
from worker.runtime.outages.job_clock import JobClock

LIMIT_SECONDS = INSPECTION_LIMIT.seconds
LOOK_SECONDS = 0.1
COMMAND = (sys.executable, "-m", "worker.runtime.inspection.child")
NO_ANSWER = (
    "The folder did not answer within {seconds:.0f} s. Check that its disk or network drive works, "
    "then check the model again."
)
ENDED = "The check of the model ended with exit code {code}. See the log of the io worker."

FACTS: Mapping[str, TypeAdapter[Any]] = {
    JobKind.INSPECT_BASE: TypeAdapter(BaseInfo),
    JobKind.CHECK_CAPTION_MODEL: TypeAdapter(CaptionModelInfo),
}
CHECK_CANCELED = "The check of this {model} was canceled. Check it again."
KINDS: Mapping[str, ModelKind[Any]] = {
    kind.check.kind: kind for kind in (BASE_MODELS, CAPTION_MODELS)
}
REMOVED = "This {model} was removed, so it was not checked."


class UnusableModelError(Exception):
    """The model cannot be used; the message says why."""


class NoAnswerError(UnusableModelError):
    """The folder of a model did not answer in time, as a network drive that is away."""


def inspect_in_time(kind: str, path: Path, *, check: Callable[[], None]) -> Any:
    """The facts about a model, found out by a process; `kind`: of a job that looks at such.

    Raises UnusableModelError, NoAnswerError and what `check` raises, which is called several times
    a second.
    """
    clock = JobClock(LIMIT_SECONDS)
    with LineProcess([*COMMAND, kind, str(path)], child_environment(1), _read) as process:
        while not clock.is_over():
            check()
            answer = process.receive(LOOK_SECONDS)
            if isinstance(answer, Ended):
                raise RuntimeError(ENDED.format(code=answer.code))
            if answer is not None and "error" in answer:
                raise UnusableModelError(answer["error"])
            if answer is not None:
                return FACTS[kind].validate_python(answer["info"])
    raise NoAnswerError(NO_ANSWER.format(seconds=LIMIT_SECONDS))


def _read(line: bytes) -> dict[str, Any] | None:
    """The answer in a line; None for what a library printed."""
    with suppress(ValueError):
        answer: dict[str, Any] = json.loads(line)
        return answer
    return None


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
