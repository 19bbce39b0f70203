"""Operations on the models that caption images on this machine.

What was captioned keeps the name of its model, so any model can be removed later.
"""

from __future__ import annotations

from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.added_models import removal
from app.registry.added_models import service as added_models
from app.registry.added_models.service import ModelKind
from app.registry.config import Settings
from app.registry.errors import Conflict, invalid_field
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CheckCaptionModelArgs,
    DownloadCaptionModelArgs,
)
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.tables.added_models import CaptionModel
from app.registry.tables.jobs import IoJob

NOT_CHOSEN = "Choose a model on this machine; add one under Caption models."
REMOVED = (
    "This caption model was removed. Choose another one, or add it again under Caption models."
)
IN_USE = (
    "“{name}” is used by captions that are being written. Wait until they are done, or cancel them."
)


CAPTION_MODELS = ModelKind(
    table=CaptionModel,
    name="caption model",
    places="the folder of a BLIP or Florence-2 model or of a WD tagger",
    file_ending=None,
    other_file="Add the whole folder or repository of a caption model, not one of its files: its "
    "settings and words are in files of their own.",
    field="provider",
    check=CheckCaptionModelArgs(),
    download=JobKind.DOWNLOAD_CAPTION_MODEL,
    make_download=lambda session, model, source, precision: DownloadCaptionModelArgs(
        repo=source.repo, revision=source.revision
    ),
    download_folder=lambda settings: settings.caption_models,
)


def check_again(session: Session, model_id: int, settings: Settings) -> CaptionModel:
    """Check a model again, as after its files were changed or onnxruntime was installed.

    One from the Hub whose download is not complete is downloaded, from where it stopped. Raises
    NotFound, Forbidden, and Conflict while it is being downloaded, checked or used.
    """
    model = added_models.get_model(session, CAPTION_MODELS, model_id)
    _require_unused(session, model)
    added_models.check_again(session, CAPTION_MODELS, model, settings)
    return model


def usable_model(session: Session, model_id: int | None, reference: str) -> CaptionModel:
    """The model of a request, by id, by slug or source, or by both, which then have to agree.

    Raises InvalidInput (field `provider`) also for a model that cannot be used now.
    """
    if model_id is None and not reference:
        raise invalid_field(CAPTION_MODELS.field, NOT_CHOSEN)
    if model_id is None:
        model = added_models.find_model(session, CAPTION_MODELS, reference)
    else:
        known = session.get(CaptionModel, model_id)
        names = (known.source, known.place, known.slug) if known else ()
        if known is None or (reference and reference not in names):
            raise invalid_field(CAPTION_MODELS.field, REMOVED)
        model = known
    if problem := added_models.problem_of(CAPTION_MODELS, model):
        raise invalid_field(CAPTION_MODELS.field, problem)
    return model


def remove(session: Session, model_id: int, settings: Settings) -> Path | None:
    """Remove a model; returns the folder to pass to `delete_model_files` after the commit, if any.

    Only files downloaded from the Hub are deleted, those of a path are not. Captions and proposals
    that it made stay, with its name. Raises NotFound, and Conflict while it is being downloaded or
    captions that need it are being written.
    """
    model = added_models.get_model(session, CAPTION_MODELS, model_id)
    removal.require_no_download(session, CAPTION_MODELS, model)
    _require_unused(session, model)
    _, place = removal.file_removal(session, CAPTION_MODELS, model, settings)
    session.delete(model)
    return place


def _require_unused(session: Session, model: CaptionModel) -> None:
    """Raise Conflict while captions are ordered or being written that need this model."""
    kinds = (JobKind.CAPTION_IMAGES, JobKind.PREVIEW_CAPTION)
    waiting = select(IoJob).where(col(IoJob.kind).in_(kinds), col(IoJob.status).in_(NOT_FINAL))
    orders = (job.readable_arguments() for job in session.exec(waiting))
    if any(isinstance(args, CaptionArgs) and args.model_id == model.key for args in orders):
        raise Conflict(IN_USE.format(name=model.name))
