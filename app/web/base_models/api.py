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
    """The progress of a download from the Hub; `bytes_total` is null before the Hub answers."""

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


def _base_model_out(session: Session, base: models.BaseModel) -> BaseModelOut:
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

    Adding one that failed retries it; a download resumes where it stopped.
    """
    with state.database.write() as session:
        base = downloads.add(session, body.source, state.settings, precision=body.precision)
        return _base_model_out(session, base)


@router.get("/base-models/{base_id}")
def show(base_id: Id, state: State) -> BaseModelOut:
    """One base model."""
    with state.database.read() as session:
        return _base_model_out(session, service.get_base_model(session, base_id))


@router.post("/base-models/{base_id}/cancel")
def cancel(base_id: Id, state: State) -> BaseModelOut:
    """Cancel a download; adding the base model again resumes it."""
    with state.database.write() as session:
        return _base_model_out(session, downloads.cancel(session, base_id))


@router.delete("/base-models/{base_id}", status_code=204)
def remove(base_id: Id, state: State) -> None:
    """Remove a base model; 409 while a job uses it.

    Downloaded or fused files are deleted, those of a path are not. If runs, adapters or images were
    made with it, they and its id stay, with the status `removed`; adding it again restores it.
    """
    with state.database.write() as session:
        place = removal.remove(session, base_id, state.settings)
    if place is not None:
        removal.delete_base_files(place)
