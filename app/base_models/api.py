"""REST: base models."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.base_models import models, service
from app.state import Id, State

router = APIRouter(tags=["base models"])


class BaseModelIn(BaseModel):
    """A base model to add."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(
        min_length=1,
        max_length=1_000,
        description="Path of a diffusers folder or .safetensors file on the machine of Brushwork.",
    )


class BaseModelOut(BaseModel):
    """A base model; `error` says why one with the status `failed` cannot be used."""

    id: int
    slug: str
    name: str
    family: str | None
    status: str
    error: str | None
    resolution: int | None
    prediction_type: str | None
    parameters: int | None
    size_bytes: int | None


def base_model_out(base: models.BaseModel) -> BaseModelOut:
    """A base model as the API shows it."""
    return BaseModelOut(
        **base.model_dump(include=set(BaseModelOut.model_fields) - {"parameters"}),
        parameters=sum(base.parameters.values()) or None,
    )


@router.get("/base-models")
def index(state: State) -> list[BaseModelOut]:
    """All base models."""
    with state.database.read() as session:
        return [base_model_out(base) for base in service.list_base_models(session)]


@router.post("/base-models", status_code=202)
def add(body: BaseModelIn, state: State) -> BaseModelOut:
    """Add a base model; its status goes from `checking` to `ready` or `failed`."""
    with state.database.write() as session:
        base = service.add_base_model(
            session, body.source, allowed_folders=service.allowed_folders(state.settings)
        )
    return base_model_out(base)


@router.get("/base-models/{base_id}")
def show(base_id: Id, state: State) -> BaseModelOut:
    """One base model."""
    with state.database.read() as session:
        return base_model_out(service.get_base_model(session, base_id))
