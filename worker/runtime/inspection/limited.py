"""Inspection of models within a time limit, in a process that is ended if need be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.registry.job_kinds.job_types import INSPECTION_LIMIT
from app.registry.job_kinds.kinds import JobKind
from worker.core.bases.family import BaseInfo
from worker.core.captioning.local.inspect import CaptionModelInfo
from worker.runtime.device import child_environment
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
