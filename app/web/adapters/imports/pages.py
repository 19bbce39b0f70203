"""Pages of imports: the progress and the result of checking an uploaded LoRA file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Form, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import imports, service
from app.registry.db import MAX_ID, Session
from app.registry.job_kinds.kinds import LOSS_CODE, ImportAdapterArgs, ImportAdapterResult
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.registry.wording import plural
from app.web.access.needs import Action, Router
from app.web.adapters.tools.api import progress_of
from app.web.state import Id, Reading, Writing
from app.web.templates import render_fragment, wants_fragment

router = Router(include_in_schema=False)

MAX_AT_ONCE = 100  # imports of one request, as many as the list of adapters shows
Key = Annotated[int, Field(ge=1, le=MAX_ID)]
DELETED = "It was imported, but the adapter was deleted for good since. Import the file again."


@dataclass(frozen=True)
class ImportRow:
    """An uploaded file that is being imported; `chosen` is the adapter it is a version of."""

    filename: str
    job: IoJob | None
    adapter: Adapter | None
    error: str | None
    chosen: int | None = None
    result: ImportAdapterResult = field(default_factory=ImportAdapterResult)

    @property
    def is_active(self) -> bool:
        """True until an io worker has checked it."""
        return self.error is None and self.job is not None and self.job.state.is_active

    @property
    def percent(self) -> int:
        """Percentage of checked layers; 0 while it waits."""
        return round(100 * progress_of(self.job)) if self.job else 0

    @property
    def state(self) -> str:
        """Its state in one word, as `data-import-state` has it."""
        if self.is_active:
            return "waiting" if self.job and self.job.state is JobStatus.QUEUED else "running"
        if self.job and self.job.state is JobStatus.CANCELED:
            return "canceled"
        if self.error is not None:
            return "bad"
        return "known" if self.result.duplicate else "good"

    @property
    def needs_consent(self) -> bool:
        """True if it was refused because much of its change would be lost."""
        return self.job is not None and self.job.error_code == LOSS_CODE

    @property
    def is_elsewhere(self) -> bool:
        """True if another adapter than the chosen one already has this version."""
        return self.adapter is not None and self.chosen not in (None, self.adapter.key)

    @property
    def version(self) -> int | None:
        """The version number of the result; None for version 1."""
        number = self.result.version
        return number if number is not None and number > 1 else None


def summarize_imports(rows: Sequence[ImportRow]) -> str:
    """How some imports ended, in one line, such as “3 files: 1 imported, 2 to go”."""
    found = Counter(row.state for row in rows)
    counts = (
        (found["good"], "imported"),
        (found["known"], "was here already" if found["known"] == 1 else "were here already"),
        (found["bad"], "not imported"),
        (found["canceled"], "canceled"),
        (found["waiting"] + found["running"], "to go"),
    )
    parts = [f"{number:,} {word}" for number, word in counts if number]
    return f"{plural(len(rows), 'file')}: {', '.join(parts)}" if parts else ""


def shown_import(session: Session, job_id: int) -> ImportRow:
    """Look up an import for a page. Raises NotFound."""
    job = service.get_import(session, job_id)
    adapter = service.imported_adapter(session, job)
    error = None
    if not job.state.is_active and adapter is None:
        is_gone = job.state is JobStatus.SUCCEEDED
        error = job.error or (DELETED if is_gone else "This file could not be imported. Try again.")
    args, result = job.readable_arguments(), job.outcome(ImportAdapterResult)
    if not isinstance(args, ImportAdapterArgs):
        return ImportRow("a file", job, adapter, error, result=result)
    return ImportRow(args.filename, job, adapter, error, args.adapter_id, result)


@router.get("/imports/{job_id}", Action.LOOK)
def import_progress(job_id: Id, session: Reading) -> Response:
    """Show the progress of an import; polls until it has ended."""
    return render_fragment("adapters/_imports.html", imports=[shown_import(session, job_id)])


@router.post("/imports/{job_id}/cancel", Action.CONTROL)
def cancel_import(request: Request, job_id: Id, session: Writing) -> Response:
    """Cancel an import."""
    service.cancel_import(session, job_id)
    return _import_response(request, job_id, session)


def _import_response(request: Request, job_id: int, session: Session) -> Response:
    if not wants_fragment(request):
        return RedirectResponse(f"/adapters?imported={job_id}", status_code=303)
    return import_progress(job_id, session)


@router.post("/imports/cancel", Action.BULK)
def cancel_imports(
    request: Request,
    session: Writing,
    keys: Annotated[list[Key], Form(alias="import", max_length=MAX_AT_ONCE)],
) -> Response:
    """Cancel several imports; those that have ended meanwhile show how."""
    imports.cancel_imports(session, keys)
    if not wants_fragment(request):
        query = urlencode([("imported", key) for key in keys])
        return RedirectResponse(f"/adapters?{query}", status_code=303)
    rows = [shown_import(session, key) for key in keys]
    return render_fragment("adapters/_imports.html", imports=rows)


@router.post("/imports/{job_id}/allow-loss", Action.CREATE)
def allow_loss(
    request: Request, job_id: Id, session: Writing, agree: Annotated[str, Form(max_length=10)] = ""
) -> Response:
    """Import a file again that was refused over its loss, if the box is ticked."""
    if agree:
        job_id = service.allow_import_loss(session, job_id).key
    return _import_response(request, job_id, session)
