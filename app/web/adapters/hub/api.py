"""REST: adapters from the Hugging Face Hub and to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field, StrictBool

from app.registry import hub_transfers as hub
from app.registry.adapters import service
from app.registry.job_kinds.weighted import VersionReference
from app.web.access.needs import Action, Router
from app.web.answers import JobAnswer
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import AdapterId, Id, Reading, State, Writing
from worker.core.documented import DocumentedModel

router = Router(tags=["hub"])
HUB_OFF = {403: "Hugging Face access is off on this server."}


class FetchIn(DocumentedModel):
    """An adapter on the Hub."""

    model_config = example(source="owner/name")
    source: str = Field(min_length=1, max_length=1_000)
    """owner/name, with @revision and /file.safetensors if there are several."""


class FetchOut(JobAnswer):
    """An import from the Hub."""

    address: ClassVar[str] = "/api/v1/hub-imports/{id}"
    source: str = Field(description="The adapter on the Hub.")
    bytes_done: int | None = Field(description="Bytes that are here.")
    bytes_total: int | None = Field(description="Bytes in all.")
    adapter_id: int | None = Field(description="The adapter, once it has succeeded.")


class PublicationIn(DocumentedModel):
    """The target of a publication."""

    model_config = example(repo="ink-style", private=True)
    repo: str = Field(min_length=1, max_length=hub.MAX_REPO)
    """Name of the repository; without an owner it belongs to the token's user."""
    private: StrictBool = Field(True, description="False makes a new repository public.")
    version: VersionReference = None
    base_model: str = Field("", max_length=200)
    """Name of the base model on the Hub, if it was not downloaded from there."""
    pictures: list[Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")]] | None = Field(
        None, max_length=hub.MAX_IMAGES
    )
    """SHA-256 of the images to show; absent: the first few."""


class PublicationOut(JobAnswer):
    """A publication on the Hub."""

    address: ClassVar[str] = "/api/v1/adapters/{adapter_id}/publications/{id}"
    version: int = Field(description="Number of the version.")
    repo: str = Field(description="The repository.")
    private: bool = Field(description="As requested; once it is published, as the Hub reports.")
    url: str | None = Field(description="Its address, once it is on the Hub.")
    created_at: datetime = Field(description="When it was requested.")


def _fetch_out(row: hub.HubImport) -> FetchOut:
    return FetchOut.of(row, row.progress, row.job)


def _publication_out(row: hub.Publication) -> PublicationOut:
    return PublicationOut.of(row, row.job)


@router.post("/hub-imports", Action.ADMIN, status_code=202, responses=problems(HUB_OFF))
def import_from_hub(body: FetchIn, state: State, session: Writing) -> FetchOut:
    """Import an adapter from the Hugging Face Hub."""
    job = hub.order_fetch(session, body.source, state.settings)
    return _fetch_out(hub.get_hub_import(session, job.key))


@router.get("/hub-imports/{job_id}", Action.LOOK)
def get_hub_import(job_id: Id, session: Reading) -> FetchOut:
    """Get the state of an import from the Hub."""
    return _fetch_out(hub.get_hub_import(session, job_id))


@router.post("/hub-imports/{job_id}/cancel", Action.ADMIN, **CANCEL)
def cancel_hub_import(job_id: Id, session: Writing) -> FetchOut:
    """Cancel an import from the Hub.

    Nothing of it is kept.
    """
    return _fetch_out(hub.cancel_fetch(session, job_id))


@router.post(
    "/adapters/{adapter_id}/publications",
    Action.ADMIN,
    status_code=202,
    responses=problems(HUB_OFF | {409: "It is already being published."}),
)
def publish_adapter(
    adapter_id: AdapterId, body: PublicationIn, state: State, session: Writing
) -> PublicationOut:
    """Publish a version of an adapter on the Hub, with a model card."""
    adapter = service.get_adapter(session, adapter_id)
    options = hub.PublishOptions(**body.model_dump())
    job = hub.order_publication(session, adapter, options, state.settings)
    return _publication_out(hub.get_publication(session, adapter, job.key))


@router.get("/adapters/{adapter_id}/publications", Action.LOOK)
def list_publications(adapter_id: AdapterId, session: Reading, part: Part) -> list[PublicationOut]:
    """List the publications of an adapter, newest first."""
    adapter = service.get_adapter(session, adapter_id)
    rows = part.of(hub.publications(session, adapter), lambda row: row.job.key)
    return [_publication_out(row) for row in rows]


@router.get("/adapters/{adapter_id}/publications/{job_id}", Action.LOOK)
def get_publication(adapter_id: AdapterId, job_id: Id, session: Reading) -> PublicationOut:
    """Get the state of a publication."""
    adapter = service.get_adapter(session, adapter_id)
    return _publication_out(hub.get_publication(session, adapter, job_id))


@router.post("/adapters/{adapter_id}/publications/{job_id}/cancel", Action.ADMIN, **CANCEL)
def cancel_publication(adapter_id: AdapterId, job_id: Id, session: Writing) -> PublicationOut:
    """Cancel a publication.

    Either everything is on the Hub, if it came too late, or nothing, not even a new repository.
    """
    adapter = service.get_adapter(session, adapter_id)
    return _publication_out(hub.cancel_publication(session, adapter, job_id))
