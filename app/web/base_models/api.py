"""REST: base models."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.registry.base_models import downloads, models, removal, service
from app.registry.db import Session
from app.web.state import Id, State

router = APIRouter(tags=["base models"])


class BaseModelIn(BaseModel):
    """A base model to add."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(
        min_length=1,
        max_length=1_000,
        description="Path of a diffusers folder or .safetensors file on the machine of Brushwork, "
        "or a model on the Hugging Face Hub: owner/name, with @revision and /file if need be.",
    )
    precision: Literal["fp16", "fp32"] | None = Field(
        None,
        description="Which weights to fetch from the Hub when there are both; null: as before, at "
        "first fp16.",
    )


class DownloadOut(BaseModel):
    """How far a download from the Hub is; `bytes_total` is null before the Hub has answered."""

    bytes_done: int
    bytes_total: int | None
    file: str


class BaseModelOut(BaseModel):
    """A base model; `error` says why one with the status `failed` cannot be used.

    `status` is downloading, checking, ready, failed or removed; `revision` is the commit of a
    download; `parameters` counts all of it, the VAE too, which no training changes.
    """

    id: int
    slug: str
    name: str
    family: str | None
    status: str
    error: str | None
    source: str
    revision: str | None
    download: DownloadOut | None
    resolution: int | None
    prediction_type: str | None
    parameters: int | None
    size_bytes: int | None


def base_model_out(row: downloads.BaseWithDownload) -> BaseModelOut:
    """A base model as the API shows it."""
    base, download = row.base, row.download
    made = {"parameters", "source", "status", "error", "download"}
    return BaseModelOut(
        **base.model_dump(include=set(BaseModelOut.model_fields) - made),
        parameters=sum(base.parameters.values()) or None,
        source=row.place,
        status=row.status,
        error=row.error,
        download=download
        and DownloadOut(bytes_done=download.done, bytes_total=download.total, file=download.file),
    )


def _out(session: Session, base: models.BaseModel) -> BaseModelOut:
    return base_model_out(downloads.with_downloads(session, [base])[0])


@router.get("/base-models")
def index(state: State) -> list[BaseModelOut]:
    """All base models."""
    with state.database.read() as session:
        bases = service.list_base_models(session)
        return [base_model_out(row) for row in downloads.with_downloads(session, bases)]


@router.post("/base-models", status_code=202)
def add(body: BaseModelIn, state: State) -> BaseModelOut:
    """Add a base model; its status goes from `downloading` and `checking` to `ready` or `failed`.

    Adding one that failed tries it again; a download goes on where it stopped.
    """
    with state.database.write() as session:
        base = downloads.add(session, body.source, state.settings, precision=body.precision)
        return _out(session, base)


@router.get("/base-models/{base_id}")
def show(base_id: Id, state: State) -> BaseModelOut:
    """One base model."""
    with state.database.read() as session:
        return _out(session, service.get_base_model(session, base_id))


@router.post("/base-models/{base_id}/cancel")
def cancel(base_id: Id, state: State) -> BaseModelOut:
    """Stop a download; what has arrived is kept for the next time it is added."""
    with state.database.write() as session:
        return _out(session, downloads.cancel(session, base_id))


@router.delete("/base-models/{base_id}", status_code=204)
def remove(base_id: Id, state: State) -> None:
    """Take a base model that nothing is running on out of the list.

    Its files go when they were downloaded or fused here, not those of a path. What was made with
    it stays, and then so does its id, with the status `removed`; adding it again brings it back.
    """
    with state.database.write() as session:
        place = removal.remove(session, base_id, state.settings)
    if place is not None:
        removal.delete_base_files(place)
