"""An upload that tells how far it is: a line of JSON for each image, the result in the last one.

The progress is in the answer of the upload itself, so it needs no second request, and works with
any number of servers. Who goes away ends the upload; what was added until then stays.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import StreamingResponse

from app.registry.datasets.uploads import UploadCanceled, UploadOutcome, UploadProgress
from app.registry.errors import AppError
from app.web.error_answers import known_error
from app.web.problems import status_error

log = structlog.get_logger()

MEDIA_TYPE = "application/x-ndjson"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx passes lines on at once

OnImage = Callable[[UploadProgress], None]
Receive = Callable[[OnImage], UploadOutcome]
Answer = Callable[[UploadOutcome], dict[str, Any]]


def wants_progress(request: Request) -> bool:
    """True if the client reads lines of progress."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def progress_response(path: str, receive: Receive, answer: Answer) -> StreamingResponse:
    """Carry out an upload; `answer` makes the last line of its result, or it tells the problem."""
    return StreamingResponse(lines(path, receive, answer), media_type=MEDIA_TYPE, headers=HEADERS)


def lines(path: str, receive: Receive, answer: Answer) -> Generator[str]:
    """The lines of the answer; closing it cancels the upload."""
    events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    left = threading.Event()

    def on_image(progress: UploadProgress) -> None:
        if left.is_set():
            raise UploadCanceled
        events.put({"done": progress.done, "total": progress.total, "name": progress.name})

    def work() -> None:
        try:
            events.put(answer(receive(on_image)))
        except Exception as error:
            events.put(_problem(path, error))
        finally:
            events.put(None)

    context = contextvars.copy_context()  # who uploads
    threading.Thread(target=context.run, args=(work,), name="upload", daemon=True).start()
    try:
        while (event := events.get()) is not None:
            yield json.dumps(event, ensure_ascii=False) + "\n"
    finally:
        left.set()


def _problem(path: str, error: Exception) -> dict[str, Any]:
    known: AppError | None = known_error(path, error)
    if known is None:
        log.error("unexpected", path=path, exc_info=error)
        known = status_error(500)
    return {"status": known.status, "detail": known.detail}
