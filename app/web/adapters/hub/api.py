"""REST: adapters from the Hugging Face Hub and to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.registry.adapters import hub, service
from app.registry.db import MAX_ID
from app.registry.jobs.states import JobStatus
from app.web.state import Id, State

router = APIRouter(tags=["hub"])


class FetchIn(BaseModel):
    """An adapter on the Hub: owner/name, with @revision and /file.safetensors if need be."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(min_length=1, max_length=1_000)


class FetchOut(BaseModel):
    """The state of an import from the Hub; `adapter_id` is set once it has succeeded."""

    id: int
    source: str
    status: JobStatus
    bytes_done: int | None
    bytes_total: int | None
    adapter_id: int | None
    error: str | None


class PublicationIn(BaseModel):
    """The target of a publication; `pictures` are hashes of its images, null: the first few.

    A `repo` without an owner belongs to the token's user; `base_model` is the base model's name on
    the Hub, needed if it was not downloaded from there.
    """

    model_config = ConfigDict(extra="forbid")
    repo: str = Field(min_length=1, max_length=200)
    private: bool = True
    version: int | None = Field(None, ge=1, le=MAX_ID)
    base_model: str = Field("", max_length=200)
    pictures: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=100)


class PublicationOut(BaseModel):
    """A publication; `url` is set once it is on the Hub.

    `private` is the requested value first, then the one that the Hub reports.
    """

    id: int
    version: int
    repo: str
    private: bool
    status: JobStatus
    url: str | None
    error: str | None
    created_at: datetime


def _fetch_out(row: hub.HubImport) -> FetchOut:
    return FetchOut(
        id=row.job.key,
        source=row.source,
        status=row.status,
        bytes_done=row.progress.bytes_done,
        bytes_total=row.progress.bytes_total,
        adapter_id=row.adapter_id,
        error=row.error,
    )


def _publication_out(row: hub.Publication) -> PublicationOut:
    return PublicationOut(
        id=row.job.key,
        version=row.version,
        repo=row.repo,
        private=row.private,
        status=row.job.state,
        url=row.url,
        error=row.job.error,
        created_at=row.job.created_at,
    )


@router.post("/hub-imports", status_code=202)
def order_import(body: FetchIn, state: State) -> FetchOut:
    """Import an adapter from the Hugging Face Hub."""
    with state.database.write() as session:
        job = hub.order_fetch(session, body.source, state.settings)
        return _fetch_out(hub.get_hub_import(session, job.key))


@router.get("/hub-imports/{job_id}")
def show_import(job_id: Id, state: State) -> FetchOut:
    """The state of an import from the Hub."""
    with state.database.read() as session:
        return _fetch_out(hub.get_hub_import(session, job_id))


@router.post("/hub-imports/{job_id}/cancel")
def cancel_import(job_id: Id, state: State) -> FetchOut:
    """Cancel an import from the Hub, or its check; nothing of it is kept."""
    with state.database.write() as session:
        return _fetch_out(hub.cancel_fetch(session, job_id))


@router.post("/adapters/{adapter_id}/publications", status_code=202)
def publish(adapter_id: Id, body: PublicationIn, state: State) -> PublicationOut:
    """Publish a version of an adapter on the Hugging Face Hub, with a model card."""
    with state.database.write() as session:
        adapter = service.get_adapter(session, adapter_id)
        options = hub.PublishOptions(**body.model_dump())
        job = hub.order_publication(session, adapter, options, state.settings)
        rows = hub.publications(session, adapter)
        return _publication_out(next(row for row in rows if row.job.key == job.key))


@router.get("/adapters/{adapter_id}/publications")
def publications(adapter_id: Id, state: State) -> list[PublicationOut]:
    """The publications of an adapter, newest first."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        return [_publication_out(row) for row in hub.publications(session, adapter)]


@router.post("/adapters/{adapter_id}/publications/{job_id}/cancel")
def cancel_publication(adapter_id: Id, job_id: Id, state: State) -> PublicationOut:
    """Cancel a publication: everything is on the Hub or nothing, not even a new repository."""
    with state.database.write() as session:
        adapter = service.get_adapter(session, adapter_id)
        return _publication_out(hub.cancel_publication(session, adapter, job_id))
