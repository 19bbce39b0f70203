"""Inspection of models within a time limit, in a process that is ended if need be."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.registry.job_kinds.job_types import INSPECTION_LIMIT
from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.captioning.local.inspect import CaptionModelInfo, UnusableModel
from worker.runtime.device import child_environment
from worker.runtime.outages.job_clock import JobClock

LIMIT_SECONDS = INSPECTION_LIMIT.seconds
LOOK_SECONDS = 0.1
END_SECONDS = 1.0
COMMAND = (sys.executable, "-m", "worker.runtime.inspection.child")
NO_ANSWER = (
    "The folder did not answer within {seconds:.0f} s. Check that its disk or network drive works, "
    "then check the model again."
)
ENDED = "The check of the model ended with exit code {code}. See the log of the io worker."

log = logging.getLogger(__name__)
_BASE = TypeAdapter(BaseInfo)
_CAPTION_MODEL = TypeAdapter(CaptionModelInfo)


class NoAnswerError(BaseModelError):
    """The folder of a base model did not answer in time, as a network drive that is away."""


def inspect_in_time(path: Path, *, check: Callable[[], None]) -> BaseInfo:
    """The facts about a base model. Raises BaseModelError, NoAnswerError and what `check` raises.

    `check` is called several times a second and ends the inspection by raising.
    """
    answer = _ask("base", path, check)
    if answer is None:
        raise NoAnswerError(NO_ANSWER.format(seconds=LIMIT_SECONDS))
    if "error" in answer:
        raise BaseModelError(answer["error"])
    return _BASE.validate_python(answer["info"])


def inspect_caption_model_in_time(path: Path, *, check: Callable[[], None]) -> CaptionModelInfo:
    """The facts about a caption model. Raises UnusableModel and what `check` raises."""
    answer = _ask("caption", path, check)
    if answer is None:
        raise UnusableModel(NO_ANSWER.format(seconds=LIMIT_SECONDS))
    if "error" in answer:
        raise UnusableModel(answer["error"])
    return _CAPTION_MODEL.validate_python(answer["info"])


def _ask(kind: str, path: Path, check: Callable[[], None]) -> dict[str, Any] | None:
    """The answer of a process; None if there is none in time."""
    process = subprocess.Popen(
        [*COMMAND, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(1),
    )
    try:
        return _wait_for_answer(process, check)
    finally:
        _end(process)


def _wait_for_answer(
    process: subprocess.Popen[bytes], check: Callable[[], None]
) -> dict[str, Any] | None:
    clock = JobClock(LIMIT_SECONDS)
    while not clock.is_over():
        check()
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)  # the answer is smaller than the buffer of a pipe
            assert process.stdout is not None
            try:
                answer: dict[str, Any] = json.loads(process.stdout.read())
            except ValueError:
                raise RuntimeError(ENDED.format(code=process.returncode)) from None
            return answer
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process; one that waits for a dead network drive may end much later."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("Process %s waits for a device and cannot be ended now.", process.pid)
