"""REST: the versions of an adapter, their aliases, differences and renders."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.registry.adapters import service
from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.compare import Comparison, Difference, compare
from app.registry.db import MAX_ID, Session
from app.registry.renders import service as playground
from app.registry.runs.rerun import train_again
from app.web.runs.api import RunCreated
from app.web.state import Id, State

router = APIRouter(tags=["adapters"])

Reference = Annotated[str, Field(max_length=60, description="A number or an alias.")]
Before = Annotated[int | None, Query(ge=1, le=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=100)]


class VersionOut(BaseModel):
    """A version of an adapter, with its origin; immutable."""

    adapter_id: int
    version: int
    aliases: list[str]
    sha256: str
    tensor_sha256: str | None
    file_tensor_sha256: str | None
    size_bytes: int
    rank: int
    alpha: float
    steps: int | None
    trigger_words: list[str]
    run_id: int | None
    dataset_version_id: int | None
    base_model_id: int | None
    trainable_parameters: int | None
    base_parameters: int | None
    peak_memory_bytes: int | None
    training_seconds: float | None
    code_version: str | None
    created_at: datetime
    config: dict[str, Any]
    details: dict[str, Any]


class AliasIn(BaseModel):
    """The version that an alias points to."""

    model_config = ConfigDict(extra="forbid")
    version: int | Reference


class AliasOut(BaseModel):
    """An alias with the number of the version it names."""

    alias: str
    version: int


class CompareOut(BaseModel):
    """The differences of two versions; equal values are left out."""

    a: int
    b: int
    same_weights: bool | None = Field(description="Null when that is not known.")
    settings: list[Difference]
    data: list[Difference]
    file: list[Difference]
    notes: list[str]


class RenderBrief(BaseModel):
    """A render that used the adapter, with its first image."""

    id: int
    prompt: str
    seed: int
    url: str | None
    thumbnail_url: str | None
    sha256: str | None


def version_out(version: AdapterVersion, names: dict[str, int]) -> VersionOut:
    """A version as the API shows it."""
    return VersionOut(
        **version.model_dump(include=set(VersionOut.model_fields) - {"aliases"}),
        aliases=list(aliases.by_number(names, version.version)),
    )


def _find_version(
    session: Session, adapter_id: int, version: int | str | None
) -> tuple[Adapter, AdapterVersion]:
    adapter = service.get_adapter(session, adapter_id)
    return adapter, service.get_version(session, adapter, version)


@router.get("/adapters/{adapter_id}/versions")
def versions(
    adapter_id: Id, state: State, response: Response, before: Before = None, limit: Limit = 50
) -> list[VersionOut]:
    """The versions of an adapter, newest first; `before` a number come the older ones."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        found = service.list_versions(session, adapter.key, limit=limit, before=before)
        names = aliases.alias_numbers(session, adapter.key)
        response.headers["x-total-count"] = str(service.count_versions(session, adapter.key))
    return [version_out(row, names) for row in found]


@router.get("/adapters/{adapter_id}/versions/{version}")
def show_version(adapter_id: Id, version: str, state: State) -> VersionOut:
    """One version, by its number or an alias."""
    with state.database.read() as session:
        adapter, row = _find_version(session, adapter_id, version)
        return version_out(row, aliases.alias_numbers(session, adapter.key))


@router.post("/adapters/{adapter_id}/versions/{version}/again", status_code=202)
def again(adapter_id: Id, version: str, state: State) -> RunCreated:
    """Train a version again with its settings and images, as the next version.

    `warnings` name the differences to the first training.
    """
    with state.database.write() as session:
        adapter, row = _find_version(session, adapter_id, version)
        run_id = service.require_run(adapter, row)
        run, differences = train_again(session, run_id, adapter_id=adapter.key)
    return RunCreated(id=run.key, status=run.status, warnings=differences)


@router.get("/adapters/{adapter_id}/aliases")
def list_aliases(adapter_id: Id, state: State) -> list[AliasOut]:
    """The aliases of an adapter; `latest` names the version that is used by default."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        names = aliases.alias_numbers(session, adapter.key)
    return [AliasOut(alias=alias, version=number) for alias, number in names.items()]


@router.put("/adapters/{adapter_id}/aliases/{alias}")
def set_alias(adapter_id: Id, alias: str, body: AliasIn, state: State) -> AliasOut:
    """Give a version an alias, or move the alias to it."""
    with state.database.write() as session:
        _, row = _find_version(session, adapter_id, body.version)
        stored = aliases.set_alias(session, row, alias)
    return AliasOut(alias=stored, version=row.version)


@router.delete("/adapters/{adapter_id}/aliases/{alias}", status_code=204)
def delete_alias(adapter_id: Id, alias: str, state: State) -> None:
    """Delete an alias; its version stays."""
    with state.database.write() as session:
        adapter = service.get_adapter(session, adapter_id)
        aliases.delete_alias(session, adapter.key, alias)


@router.get("/adapters/{adapter_id}/compare")
def compare_versions(
    adapter_id: Id,
    state: State,
    a: Annotated[str | None, Query(max_length=60)] = None,
    b: Annotated[str | None, Query(max_length=60)] = None,
) -> CompareOut:
    """The differences of two versions; by default of the version in use and the one before."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        return compare_out(compare(session, adapter, a, b))


def compare_out(found: Comparison) -> CompareOut:
    """A comparison as the API shows it."""
    return CompareOut(
        a=found.a.version,
        b=found.b.version,
        same_weights=found.same_weights,
        settings=found.settings,
        data=found.data,
        file=found.file,
        notes=found.notes,
    )


@router.get("/adapters/{adapter_id}/renders")
def renders(
    adapter_id: Id, state: State, before: Before = None, limit: Limit = 24
) -> list[RenderBrief]:
    """The renders that used an adapter, newest first; `before` the id of one, the older ones."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        found = playground.adapter_renders(session, adapter.key, limit=limit, before=before)
        images = playground.first_images(session, found)
    return [
        RenderBrief(
            id=row.key,
            prompt=row.prompt,
            seed=row.seed,
            sha256=image.sha256 if image else None,
            url=f"/media/{image.sha256}" if image else None,
            thumbnail_url=f"/media/{image.sha256}/small" if image else None,
        )
        for row, image in ((row, images.get(row.key)) for row in found)
    ]
