"""REST: adapters and their files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.registry.adapters import imports, service
from app.registry.adapters.downloads.failed_exports import is_refused
from app.registry.adapters.images import require_adapter_image
from app.registry.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.registry.adapters.service import AdapterSummary
from app.registry.db import MAX_ID
from app.registry.errors import InvalidInput, NotReady
from app.registry.jobs.kinds import ImportAdapterResult
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from app.registry.state import AppState
from app.web.adapters.deleted import api as deleted_api
from app.web.adapters.tools.api import progress_of
from app.web.adapters.versions import api as versions_api
from app.web.media import blob_response
from app.web.state import Id, State
from app.web.uploads import uploaded
from worker.core.lora_files.file_names import file_name
from worker.core.old_names import accept_old_names
from worker.core.words import FileFormat, WeightDtype

router = APIRouter(tags=["adapters"])
router.include_router(versions_api.router)
router.include_router(deleted_api.router)

FILE_PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1
MEDIA_TYPES = {FileFormat.BUNDLE: "application/zip"}
FileT = TypeVar("FileT")

Tag = Annotated[str, StringConstraints(max_length=40)]
Version = Annotated[str | None, Query(max_length=60, description="A number or an alias.")]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120)]


class AdapterOut(BaseModel):
    """An adapter with its newest version."""

    id: int
    slug: str
    name: str
    base_family: str
    trigger_words: list[str]
    tags: list[str]
    notes: str
    license: str
    starred: bool
    version: int
    versions: int
    sha256: str
    rank: int
    alpha: float
    size_bytes: int
    steps: int | None
    run_id: int | None
    base_model_id: int | None
    trainable_parameters: int | None
    base_parameters: int | None
    peak_memory_bytes: int | None
    training_seconds: float | None
    cover_url: str | None
    cover_thumbnail_url: str | None
    import_notes: list[str]
    created_at: datetime


class ImportedOut(AdapterOut):
    """The adapter made from a file; `duplicate`: it was already in the registry."""

    duplicate: bool


class ImportOut(BaseModel):
    """The import of a file, `progress` from 0 to 1.

    `version` is the number of the new or existing version; `error` says why a file was refused.
    """

    id: int
    status: JobStatus
    progress: float
    adapter_id: int | None
    version: int | None
    duplicate: bool
    notes: list[str]
    error: str | None


class AdapterPatch(BaseModel):
    """The changes to an adapter; absent fields stay."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[Line, Field(min_length=1)] | None = None
    notes: Annotated[str, Field(max_length=20_000)] | None = None
    license: Annotated[str, Field(max_length=80)] | None = None
    cover_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    starred: bool | None = None
    trigger_words: Annotated[list[Line], Field(max_length=20)] | None = None
    tags: Annotated[list[Line], Field(max_length=50)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)


def adapter_out(row: AdapterSummary) -> AdapterOut:
    """An adapter as the API shows it."""
    adapter, version = row.adapter, row.version
    return AdapterOut(
        **adapter.model_dump(
            include={
                *("id", "slug", "name", "base_family", "trigger_words", "notes", "license"),
                "starred",
            }
        ),
        **version.model_dump(
            include=set(AdapterOut.model_fields)
            & set(AdapterVersion.model_fields) - {"id", "trigger_words", "created_at"}
        ),
        tags=row.tags,
        versions=row.version_count,
        cover_url=f"/media/{row.covers[0]}" if row.covers else None,
        cover_thumbnail_url=f"/media/{row.covers[0]}/small" if row.covers else None,
        import_notes=list(version.details.get("import_notes", [])),
        created_at=adapter.created_at,
    )


@router.get("/adapters")
def index(
    request: Request,
    state: State,
    response: Response,
    q: Annotated[str, Query(max_length=200)] = "",
    base: Annotated[str, Query(max_length=16)] = "",
    tag: Annotated[list[Tag], Query(max_length=10)] = [],  # noqa: B006  (FastAPI copies it)
    starred: bool = False,
    sort: service.Sort = service.Sort.NEWEST,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    after: Annotated[str, Query(max_length=2_000)] = "",
    before: Annotated[str, Query(max_length=2_000)] = "",
) -> list[AdapterOut]:
    """Adapters, a page of 24. The header `Link` has the addresses of the next and previous page.

    They go by cursors, which cost the same on every page and show nothing twice; `page` counts from
    the start. `X-Total-Count` says how many there are in all; where counting them would take long
    it is the least there are, and `X-Total-Count-More` is `true`. `tag` may be given several times.
    """
    filters = service.Filter(q, base, tuple(tag), starred, sort, page, after, before)
    with state.database.read() as session:
        found = service.list_adapters(session, filters)
    response.headers["x-total-count"] = str(found.total)
    if found.more:
        response.headers["x-total-count-more"] = "true"
    links = {"next": ("after", found.next), "prev": ("before", found.previous)}
    parts = [
        f'<{_page_address(request, name, cursor)}>; rel="{relation}"'
        for relation, (name, cursor) in links.items()
        if cursor
    ]
    if parts:
        response.headers["link"] = ", ".join(parts)
    return [adapter_out(row) for row in found.items]


def _page_address(request: Request, name: str, cursor: str) -> str:
    kept = request.url.remove_query_params(["page", "after", "before"])
    whole = kept.include_query_params(**{name: cursor})
    return f"{whole.path}?{whole.query}"


@router.post("/adapters/import", status_code=201)
async def import_file(
    file: Annotated[UploadFile, File()],
    state: State,
    sidecar: Annotated[list[UploadFile], File()] = [],  # noqa: B006  (FastAPI copies it)
    adapter_id: Annotated[int | None, Form(ge=1, le=MAX_ID)] = None,
    base_model_id: Annotated[int | None, Form(ge=1, le=MAX_ID)] = None,
) -> ImportedOut:
    """Add a LoRA file made elsewhere; 422 says why it cannot be used.

    `import_notes` tells what was read in another way than it was written, with the measured error.
    `sidecar` files (`.json`, `.civitai.info`, an image) add metadata. With `adapter_id` it
    becomes the next version of that adapter; with `base_model_id` it has to fit that base. The
    same tensors are one adapter: then `duplicate` is true and the answer is the one that was here.
    When the check takes long, a 503 has `import_id` and the `Location` that tells how it ends.
    """
    job = await anyio.to_thread.run_sync(
        lambda: imports.receive(
            state,
            uploaded(file),
            adapter_id=adapter_id,
            base_model_id=base_model_id,
            sidecars=[uploaded(one) for one in sidecar],
        )
    )
    done = await _poll_until_found(lambda: _ended_import(state, job.key))
    if done is None:
        place = f"/api/v1/adapters/imports/{job.key}"
        sentence = f"The file was received and is still being checked. GET {place} tells the end."
        raise NotReady(sentence, location=place, about={"import_id": job.key})
    if done.state is not JobStatus.SUCCEEDED:
        sentence = done.error or "This file cannot be used."
        raise InvalidInput(sentence, fields={"file": sentence})
    imported = done.outcome(ImportAdapterResult)
    with state.database.read() as session:
        adapter = service.get_adapter(session, imported.adapter_id or 0)
        shown = adapter_out(service.summary(session, adapter)).model_dump()
    return ImportedOut(**shown, duplicate=imported.duplicate)


@router.get("/adapters/imports/{job_id}")
def show_import(job_id: Id, state: State) -> ImportOut:
    """The check of a file that was sent: still at work, or what came of it."""
    with state.database.read() as session:
        return _import_out(service.get_import(session, job_id))


@router.post("/adapters/imports/{job_id}/cancel")
def cancel_import(job_id: Id, state: State) -> ImportOut:
    """End the check of a file that was sent; 409 when it has ended."""
    with state.database.write() as session:
        return _import_out(service.cancel_import(session, job_id))


def _import_out(job: IoJob) -> ImportOut:
    imported = job.outcome(ImportAdapterResult)
    return ImportOut(
        id=job.key,
        status=job.state,
        progress=1.0 if job.state is JobStatus.SUCCEEDED else progress_of(job),
        adapter_id=imported.adapter_id,
        version=imported.version,
        duplicate=imported.duplicate,
        notes=list(imported.notes),
        error=job.error,
    )


def _ended_import(state: AppState, job_id: int) -> IoJob | None:
    with state.database.read() as session:
        job = service.get_import(session, job_id)
        return None if job.state.is_active else job


@router.get("/adapters/{adapter_id}")
def show(adapter_id: Id, state: State) -> AdapterOut:
    """One adapter."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        return adapter_out(service.summary(session, adapter))


@router.patch("/adapters/{adapter_id}")
def change(adapter_id: Id, body: AdapterPatch, state: State) -> AdapterOut:
    """Change name, notes, license, star, cover, trigger words or tags; versions never change."""
    with state.database.write() as session:
        if body.cover_sha256 is not None:
            require_adapter_image(session, adapter_id, body.cover_sha256)
        adapter = service.change_adapter(
            session, adapter_id, service.AdapterChange(**body.model_dump())
        )
        return adapter_out(service.summary(session, adapter))


@router.delete("/adapters/{adapter_id}", status_code=204)
def delete(adapter_id: Id, state: State) -> None:
    """Put an adapter away; it can be restored, or deleted for good."""
    with state.database.write() as session:
        service.delete_adapter(session, adapter_id)


@router.post("/adapters/{adapter_id}/restore")
def restore(adapter_id: Id, state: State) -> AdapterOut:
    """Bring a deleted adapter back."""
    with state.database.write() as session:
        adapter = service.restore_adapter(session, adapter_id)
        return adapter_out(service.summary(session, adapter))


@router.get("/adapters/{adapter_id}/download", response_class=Response)
async def download(
    adapter_id: Id,
    request: Request,
    state: State,
    file_format: Annotated[FileFormat, Query(alias="format")] = FileFormat.KOHYA,
    dtype: WeightDtype = WeightDtype.FP16,
    version: Version = None,
    with_tags: bool = False,
) -> Response:
    """The adapter's file, written from the canonical tensors and checked before it is sent.

    `version` is a number or an alias such as `best`; absent: the one that `latest` names.

    `with_tags` also writes the adapter's notes and tags, and the frequency of each tag in the
    captions; everyone who has the file can read them. A new combination of format and dtype is
    written first, which takes a moment.
    """
    adapter, row = await anyio.to_thread.run_sync(find_version, state, adapter_id, version)
    found = await proved_file(state, row.key, file_format, dtype, with_tags=with_tags)
    return await anyio.to_thread.run_sync(
        lambda: blob_response(
            state,
            request,
            found.sha256,
            media_type=MEDIA_TYPES.get(file_format, "application/octet-stream"),
            filename=file_name(adapter.slug, row.version, file_format, dtype, with_tags=with_tags),
        )
    )


def find_version(
    state: AppState, adapter_id: int, version: str | None
) -> tuple[Adapter, AdapterVersion]:
    """An adapter and one of its versions, by number or alias."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        return adapter, service.get_version(session, adapter, version)


async def proved_file(
    state: AppState,
    version_id: int,
    file_format: FileFormat,
    dtype: WeightDtype,
    *,
    with_tags: bool = False,
) -> AdapterFile:
    """Wait for the checked download; raises NotReady, or InvalidInput with the reason."""
    file_request = _FileRequest(state, version_id, file_format, dtype, with_tags=with_tags)
    found = await _poll_until_found(file_request.find_or_order)
    if found is None:
        raise NotReady("This file is still being written. Try again in a moment.")
    return found


@dataclass
class _FileRequest:
    """A download that a request waits for; a failed export is ordered again once."""

    state: AppState
    version_id: int
    file_format: FileFormat
    dtype: WeightDtype
    with_tags: bool = field(kw_only=True)
    waits: bool = False  # true once this request has seen or made an active order

    def find_or_order(self) -> AdapterFile | None:
        """The file if it exists; else None after ordering it, or the error of a failed order."""
        kind = (self.version_id, self.file_format, self.dtype)
        with self.state.database.read() as session:
            found = service.find_file(session, *kind, with_tags=self.with_tags)
            if found is not None:
                return found
            order = service.newest_order(session, *kind, with_tags=self.with_tags)
            if order is not None and order.state is JobStatus.FAILED:
                sentence = f"This file could not be written: {order.error}"
                if is_refused(session, order):
                    raise InvalidInput(sentence)
                if self.waits:
                    raise NotReady(f"{sentence} Request it again to retry.")
        self.waits = True
        if order is None or not order.state.is_active:
            with self.state.database.write() as session:
                service.order_file(session, *kind, with_tags=self.with_tags)
        return None


async def _poll_until_found(find: Callable[[], FileT | None]) -> FileT | None:
    """The result of `find`, polled until it has one; None after FILE_PATIENCE_SECONDS."""
    until = time.monotonic() + FILE_PATIENCE_SECONDS
    while True:
        found = await anyio.to_thread.run_sync(find)
        if found is not None or time.monotonic() > until:
            return found
        await anyio.sleep(POLL_SECONDS)
