"""REST: base models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from fastapi import Query
from pydantic import Field, StrictBool

from app.registry.added_models import service as added_models
from app.registry.base_models import service, subjects
from app.registry.base_models.service import BASE_MODELS
from app.registry.db import Session
from app.registry.deletion import base_models as removal
from app.registry.renders.plan import usual_of
from app.registry.tables import added_models as models
from app.web.access.needs import Action, Router
from app.web.added_models import NOT_ADDED, ModelOut, add_removal, model_out
from app.web.problems import CANCEL
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import BaseModelId, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.families.family import BaseFamily
from worker.core.families.variants import Variant
from worker.core.starter.subjects import KnownSubject
from worker.core.words import SamplerName

router = Router(tags=["base-models"])


class BaseModelIn(DocumentedModel):
    """A base model to add."""

    model_config = example(source="stable-diffusion-v1-5/stable-diffusion-v1-5")
    source: str = Field(min_length=1, max_length=1_000)
    """Path of a diffusers folder or .safetensors file on the machine of Brushwork, or a model on
    the Hugging Face Hub: owner/name, with @revision and /file if need be."""
    precision: Literal["fp16", "fp32"] | None = None
    """Precision to download if the repository has several; absent: the last choice, at first
    fp16."""
    size_only: StrictBool = False
    """Only look up the size of its download: it is `failed` with its `size_bytes` until it is added
    again without this."""


class DrawingOut(DocumentedModel):
    """How images are drawn with a base model where a request names nothing else."""

    steps: int = Field(description="Steps of the sampler.")
    guidance: float = Field(description="Guidance scale; 1 is none.")
    samplers: list[SamplerName] = Field(description="Those it draws with; the first is the usual.")
    weight: float
    """What the usual weight of an adapter is multiplied by, as on a Turbo."""
    has_prompt_weights: bool
    """False where `(word:1.2)` in a prompt is read as it is."""
    side_step: int = Field(description="Sides of images are multiples of it, in pixels.")


class BaseModelOut(ModelOut):
    """A base model."""

    address: ClassVar[str] = "/api/v1/base-models/{id}"
    id: int = Field(description="Id of the base model.")
    slug: str = Field(description="Short name: `base_model` accepts it in place of the id.")
    family: str | None = Field(
        description=f"{', '.join(BaseFamily)}; null before it was inspected."
    )
    variant: Variant | None
    """Of a family with variants: read from its name and scheduler, or corrected."""
    is_retired: bool
    """True for an embedded base model of an older version, no longer shipped."""
    resolution: int | None = Field(description="Native side length in pixels.")
    prediction_type: str | None = Field(description="epsilon, v_prediction or flow.")
    parameters: int | None = Field(description="Parameters of all its networks, with the VAE.")
    memory: models.BaseMemory | None
    """What it takes on a GPU, for families that need much; else null."""
    drawing: DrawingOut = Field(description="What is usual for its images.")


class BaseModelPatch(DocumentedModel):
    """What is corrected of a base model."""

    model_config = example(variant="base")
    variant: Variant
    """`base`, `turbo` (few steps without guidance, not for training), or `dedistilled` (a Turbo
    made trainable again)."""


def _answers(session: Session, bases: Sequence[models.BaseModel]) -> list[BaseModelOut]:
    return [
        model_out(
            BaseModelOut,
            row,
            parameters=sum(row.model.parameters.values()) or None,
            drawing=_drawing(row.model),
        )
        for row in added_models.list_with_progress(session, BASE_MODELS, bases)
    ]


def _drawing(base: models.BaseModel) -> DrawingOut:
    usual, options = usual_of(base), base.options
    return DrawingOut(
        steps=usual.steps,
        guidance=usual.guidance,
        samplers=list(options.samplers),
        weight=usual.weight,
        has_prompt_weights=options.has_prompt_weights,
        side_step=options.side_step,
    )


@router.get("/base-models", Action.LOOK)
def list_base_models(session: Reading, part: Part) -> list[BaseModelOut]:
    """List all base models.

    Last come embedded ones of older versions that something was made with; their status is
    `removed`.
    """
    bases = [*service.list_base_models(session), *removal.list_retired(session)]
    return _answers(session, part.of(bases, lambda base: base.key))


@router.post("/base-models", Action.ADMIN, status_code=202, responses=NOT_ADDED)
def add_base_model(body: BaseModelIn, state: State, session: Writing) -> BaseModelOut:
    """Add a base model from a path or from the Hugging Face Hub.

    Its status goes from `downloading` and `checking` to `ready` or `failed`. Adding one that
    failed retries it; a download resumes where it stopped.
    """
    base = added_models.add(
        session,
        BASE_MODELS,
        body.source,
        state.settings,
        precision=body.precision,
        size_only=body.size_only,
    )
    return _answers(session, [base])[0]


@router.get("/base-models/{base_id}", Action.LOOK)
def get_base_model(base_id: BaseModelId, session: Reading) -> BaseModelOut:
    """Get a base model with the progress of its download."""
    return _answers(session, [service.get_base_model(session, base_id)])[0]


@router.patch("/base-models/{base_id}", Action.ADMIN)
def correct_base_model(
    base_id: BaseModelId, body: BaseModelPatch, session: Writing
) -> BaseModelOut:
    """Correct the variant of a base model, where its name and scheduler do not tell it."""
    return _answers(session, [service.correct_variant(session, base_id, body.variant)])[0]


@router.get("/base-models/{base_id}/subjects", Action.LOOK)
def list_subjects(
    base_id: BaseModelId,
    session: Reading,
    part: Part,
    q: Annotated[
        str, Query(max_length=200, description="Only subjects with these words, best first.")
    ] = "",
) -> Sequence[KnownSubject]:
    """List the subjects that a base model knows by name.

    Only `starter` brings such a list; that of any other base model is empty.
    """
    base = service.get_base_model(session, base_id)
    found = subjects.subjects_of(base, q)
    return part.of(found, lambda known: known.name)


@router.post("/base-models/{base_id}/cancel", Action.ADMIN, **CANCEL)
def cancel_base_model(base_id: BaseModelId, session: Writing) -> BaseModelOut:
    """Cancel the download of a base model.

    Adding the base model again resumes it.
    """
    return _answers(session, [added_models.cancel(session, BASE_MODELS, base_id)])[0]


add_removal(
    router,
    BASE_MODELS,
    removal.remove,
    about="Downloaded or fused files are deleted, those of a path are not. If runs, adapters or "
    "images were made with it, they and its id stay, with the status `removed`; adding it again "
    "restores it.",
    conflict="It is built in, is being downloaded, or a job uses it.",
)
