"""REST: LoRA files made elsewhere, imported as adapters."""

from __future__ import annotations

from typing import Annotated, ClassVar

import anyio.to_thread
from fastapi import File, Form, Response, UploadFile
from pydantic import Field

from app.registry.adapters import imports, service
from app.registry.errors import InvalidInput, NotReady
from app.registry.job_kinds.kinds import LOSS_CODE, ImportAdapterResult
from app.registry.job_kinds.states import JobStatus
from app.registry.slugs import Reference
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.web.access.needs import Action, Router
from app.web.adapters.api import AdapterOut, adapter_out
from app.web.adapters.tools.api import progress_of
from app.web.answers import WorkAnswer
from app.web.forms import uploaded
from app.web.polling import poll_until_found
from app.web.problems import CANCEL, problems
from app.web.state import Id, Reading, State, Writing, find_id

router = Router(tags=["imports"])


class ImportedOut(AdapterOut):
    """The adapter made from a file."""

    duplicate: bool = Field(description="True if it was already in the registry.")


class ImportOut(WorkAnswer):
    """The import of a file."""

    address: ClassVar[str] = "/api/v1/adapters/imports/{id}"
    adapter_id: int | None = Field(description="The adapter, once it has succeeded.")
    version: int | None = Field(description="Number of the new or existing version.")
    duplicate: bool = Field(description="True if it was already in the registry.")
    notes: list[str]
    """What was read in another way than it was written, with the measured error."""
    loss: float | None = None
    """Share of the change that a LoRA cannot contain, 0 to 1 (relative norm)."""
    needs_consent: bool = False
    """True if it was refused over its loss: see `allow-loss`."""


@router.post(
    "/adapters/import",
    Action.CREATE,
    status_code=201,
    responses={200: {"model": ImportedOut}}
    | problems(
        {
            404: "There is no such adapter or base model.",
            413: "The file is larger than an adapter can be.",
            422: "The file cannot be used; the reason is in `detail`.",
            503: "The check takes longer than a minute: `import_id` and the header `Location` name "
            "the import to poll.",
        }
    ),
)
async def import_adapter(
    file: Annotated[UploadFile, File(description="A `.safetensors` file, or a `.zip` with one.")],
    state: State,
    response: Response,
    sidecar: Annotated[
        list[UploadFile],
        File(
            max_length=100, description="Files with metadata: `.json`, `.civitai.info` or an image."
        ),
    ] = [],  # noqa: B006  (FastAPI copies it)
    adapter_id: Annotated[
        Reference | None,
        Form(description="It becomes the next version of this adapter: its id or slug."),
    ] = None,
    base_model: Annotated[
        Reference | None, Form(description="The base model that it has to fit: its id or slug.")
    ] = None,
    allow_loss: Annotated[
        bool,
        Form(description="Import it even if more than a tenth of its change is lost."),
    ] = False,
) -> ImportedOut:
    """Import a LoRA file made elsewhere.

    The base is detected from the shapes. Files with the same tensors are one adapter: then the
    answer is the adapter that was here, with `duplicate` and status 200.
    """
    job = await anyio.to_thread.run_sync(
        lambda: imports.receive(
            state,
            uploaded(file),
            adapter_id=find_id(state, Adapter, adapter_id),
            base_model_id=find_id(state, BaseModel, base_model),
            sidecars=[uploaded(one) for one in sidecar],
            allow_loss=allow_loss,
        )
    )
    done = await poll_until_found(lambda: _ended_import(state, job.key))
    if done is None:
        place = f"/api/v1/adapters/imports/{job.key}"
        sentence = f"The file was received and is still being checked. GET {place} tells the end."
        raise NotReady(sentence, location=place, about={"import_id": job.key})
    if done.state is not JobStatus.SUCCEEDED:
        sentence = done.error or "This file cannot be used."
        if done.error_code == LOSS_CODE:
            sentence += " Send allow_loss=true to import it with this loss."
        raise InvalidInput(sentence, fields={"file": sentence})
    imported = done.outcome(ImportAdapterResult)
    response.status_code = 200 if imported.duplicate else 201
    with state.database.read() as session:
        adapter = service.get_adapter(session, imported.adapter_id or 0)
        shown = adapter_out(service.summary(session, adapter)).model_dump()
    return ImportedOut(**shown, duplicate=imported.duplicate)


@router.get("/adapters/imports/{job_id}", Action.LOOK)
def get_import(job_id: Id, session: Reading) -> ImportOut:
    """Get the progress or the result of an import."""
    return _import_out(service.get_import(session, job_id))


@router.post("/adapters/imports/{job_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_import(job_id: Id, session: Writing) -> ImportOut:
    """Cancel an import."""
    return _import_out(service.cancel_import(session, job_id))


@router.post(
    "/adapters/imports/{job_id}/allow-loss",
    Action.CREATE,
    status_code=202,
    responses=problems({409: "It was not refused over its loss."}),
)
def allow_loss(job_id: Id, session: Writing) -> ImportOut:
    """Import a file again that was refused because much of its change is lost."""
    return _import_out(service.allow_import_loss(session, job_id))


def _import_out(job: IoJob) -> ImportOut:
    imported = job.outcome(ImportAdapterResult)
    return ImportOut.of(
        imported,
        job,
        progress=1.0 if job.state is JobStatus.SUCCEEDED else progress_of(job),
        needs_consent=job.error_code == LOSS_CODE,
    )


def _ended_import(state: AppState, job_id: int) -> IoJob | None:
    with state.database.read() as session:
        job = service.get_import(session, job_id)
        return None if job.state.is_active else job
