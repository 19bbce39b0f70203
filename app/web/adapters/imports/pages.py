"""Pages of imports: the progress and the result of checking an uploaded LoRA file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import imports, service
from app.registry.db import MAX_ID, Session
from app.registry.job_kinds.kinds import LOSS_CODE, ImportAdapterArgs, ImportAdapterResult
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.registry.wording import plural
from app.web.adapters.tools.api import progress_of
from app.web.state import Id, State
from app.web.templates import render_fragment, wants_fragment

router = APIRouter(include_in_schema=False)

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
    def needs_consent(self) -> bool:
        """True if it was refused because much of its change would be lost."""
        return self.job is not None and self.job.error_code == LOSS_CODE

    @property
    def is_known(self) -> bool:
        """True if the registry already had this adapter."""
        return self.result.duplicate

    @property
    def is_elsewhere(self) -> bool:
        """True if another adapter than the chosen one already has this version."""
        return self.adapter is not None and self.chosen not in (None, self.adapter.key)

    @property
    def version(self) -> int | None:
        """The version number of the result; None for version 1."""
        number = self.result.version
        return number if number is not None and number > 1 else None

    @property
    def notes(self) -> list[str]:
        """Sentences on what was converted during the import."""
        return list(self.result.notes)


@dataclass(frozen=True)
class ImportSummary:
    """The numbers of files that were imported, here before, refused or canceled, and of all.

    `active`: the imports that can still be canceled, by id.
    """

    total: int
    imported: int
    known: int
    refused: int
    canceled: int
    active: list[int] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Number of files that nothing more happens to."""
        return self.imported + self.known + self.refused + self.canceled

    @property
    def words(self) -> str:
        """The counts in one line, such as “3 files: 1 imported, 2 to go”."""
        counts = (
            (self.imported, "imported"),
            (self.known, "was here already" if self.known == 1 else "were here already"),
            (self.refused, "not imported"),
            (self.canceled, "canceled"),
            (self.total - self.ended, "to go"),
        )
        parts = [f"{number:,} {word}" for number, word in counts if number]
        return f"{plural(self.total, 'file')}: {', '.join(parts)}" if parts else ""


def summarize_imports(rows: Sequence[ImportRow]) -> ImportSummary:
    """Count some imports by how they ended."""
    ended = [row for row in rows if not row.is_active]
    canceled = [row for row in ended if row.job and row.job.state is JobStatus.CANCELED]
    refused = [row for row in ended if row.error and row not in canceled]
    known = sum(row.is_known and row.adapter is not None for row in ended)
    imported = len(ended) - known - len(canceled) - len(refused)
    active = [row.job.key for row in rows if row.job and row.is_active]
    return ImportSummary(len(rows), imported, known, len(refused), len(canceled), active)


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


@router.get("/imports/{job_id}")
def import_progress(job_id: Id, state: State) -> Response:
    """Show the progress of an import; polls until it has ended."""
    with state.database.read() as session:
        imported = shown_import(session, job_id)
    return render_fragment("adapters/_imports.html", imports=[imported])


@router.post("/imports/{job_id}/cancel")
def cancel_import(request: Request, job_id: Id, state: State) -> Response:
    """Cancel an import."""
    with state.database.write() as session:
        service.cancel_import(session, job_id)
    if not wants_fragment(request):
        return RedirectResponse(f"/adapters?imported={job_id}", status_code=303)
    return import_progress(job_id, state)


@router.post("/imports/cancel")
def cancel_imports(
    request: Request,
    state: State,
    keys: Annotated[list[Key], Form(alias="import", max_length=MAX_AT_ONCE)],
) -> Response:
    """Cancel several imports; those that have ended meanwhile show how."""
    with state.database.write() as session:
        imports.cancel_imports(session, keys)
    if not wants_fragment(request):
        query = urlencode([("imported", key) for key in keys])
        return RedirectResponse(f"/adapters?{query}", status_code=303)
    with state.database.read() as session:
        rows = [shown_import(session, key) for key in keys]
    return render_fragment("adapters/_imports.html", imports=rows)


@router.post("/imports/{job_id}/allow-loss")
def allow_loss(
    request: Request, job_id: Id, state: State, agree: Annotated[str, Form(max_length=10)] = ""
) -> Response:
    """Import a file again that was refused over its loss, if the box is ticked."""
    if agree:
        with state.database.write() as session:
            job_id = service.allow_import_loss(session, job_id).key
    if not wants_fragment(request):
        return RedirectResponse(f"/adapters?imported={job_id}", status_code=303)
    return import_progress(job_id, state)
