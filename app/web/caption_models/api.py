"""REST: models that caption images on this machine."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from app.registry.added_models import service as added_models
from app.registry.caption_models import service
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.db import Session
from app.registry.tables.added_models import CaptionModel
from app.web.access.needs import Action, Router
from app.web.added_models import NOT_ADDED, ModelOut, add_removal, model_out
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import CaptionModelId, Reading, State, Writing
from worker.core.documented import DocumentedModel

router = Router(tags=["caption-models"])


class CaptionModelIn(DocumentedModel):
    """A caption model to add."""

    model_config = example(source="Salesforce/blip-image-captioning-base")
    source: str = Field(min_length=1, max_length=1_000)
    """Path of the model's folder on the machine of Brushwork, or a model on the Hugging Face Hub:
    owner/name, with @revision if need be."""


class CaptionModelOut(ModelOut):
    """A caption model."""

    address: ClassVar[str] = "/api/v1/caption-models/{id}"
    id: int = Field(description="Id of the caption model: `model_id` of captions.")
    slug: str = Field(description="Short name: `model` of captions accepts it.")
    family: str | None
    """blip, florence2 or wd_tagger; null before it was checked."""


def _model_out(session: Session, model: CaptionModel) -> CaptionModelOut:
    (row,) = added_models.list_with_progress(session, CAPTION_MODELS, [model])
    return model_out(CaptionModelOut, row)


@router.get("/caption-models", Action.LOOK)
def list_caption_models(session: Reading, part: Part) -> list[CaptionModelOut]:
    """List the models that caption images on this machine."""
    rows = added_models.list_with_progress(session, CAPTION_MODELS)
    shown = part.of(rows, lambda row: row.model.key)
    return [model_out(CaptionModelOut, row) for row in shown]


@router.post("/caption-models", Action.ADMIN, status_code=202, responses=NOT_ADDED)
def add_caption_model(body: CaptionModelIn, state: State, session: Writing) -> CaptionModelOut:
    """Add a caption model from a folder or from the Hugging Face Hub.

    BLIP, Florence-2 and WD taggers can be used. The status goes from `downloading` and `checking`
    to `ready` or `failed`. Adding one that failed tries it again; a download resumes where it
    stopped.
    """
    model = added_models.add(session, CAPTION_MODELS, body.source, state.settings)
    return _model_out(session, model)


@router.get("/caption-models/{model_id}", Action.LOOK)
def get_caption_model(model_id: CaptionModelId, session: Reading) -> CaptionModelOut:
    """Get a caption model with the progress of its download."""
    return _model_out(session, added_models.get_model(session, CAPTION_MODELS, model_id))


@router.post(
    "/caption-models/{model_id}/check",
    Action.ADMIN,
    status_code=202,
    responses=problems(
        {
            403: "Hugging Face access is off on this server.",
            409: "It is being downloaded or checked.",
        }
    ),
)
def check_caption_model(
    model_id: CaptionModelId, state: State, session: Writing
) -> CaptionModelOut:
    """Check a caption model again, as after its files were changed.

    A download that is not complete is resumed.
    """
    return _model_out(session, service.check_again(session, model_id, state.settings))


@router.post("/caption-models/{model_id}/cancel", Action.ADMIN, **CANCEL)
def cancel_caption_model(model_id: CaptionModelId, session: Writing) -> CaptionModelOut:
    """Cancel the download of a caption model.

    Checking it again resumes the download.
    """
    return _model_out(session, added_models.cancel(session, CAPTION_MODELS, model_id))


add_removal(
    router,
    CAPTION_MODELS,
    service.remove,
    about="Downloaded files are deleted, those of a folder are not. What it captioned stays.",
    conflict="It is being downloaded, or captions that need it are written.",
)
