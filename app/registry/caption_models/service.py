"""Operations on the models that caption images on this machine.

Files are read by io workers only: adding queues a download or a check, and the row says how far
that is. What was captioned keeps the name of its model, so any model can be removed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from app.registry.caption_models.results import write_stopped
from app.registry.config import Settings
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.hub_source import SCHEME, HubSource, read_source, require_allowed
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CheckCaptionModelArgs,
    DownloadCaptionModelArgs,
)
from app.registry.job_kinds.kinds import JobKind
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs import model_downloads
from app.registry.jobs import service as jobs
from app.registry.jobs.model_downloads import Download
from app.registry.model_sources import (
    MAX_NAME,
    SourceWords,
    allowed_folders,
    are_shared,
    bad_source,
    is_from_hub,
    require_path,
)
from app.registry.slugs import insert_with_slug
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.caption_models import CaptionModel
from app.registry.tables.jobs import IoJob

WORDS = SourceWords("Caption models", "the folder of a BLIP or Florence-2 model or of a WD tagger")
NO_FILE = (
    "Add the whole folder or repository of a caption model, not one of its files: its settings and "
    "words are in files of their own."
)
ALREADY = "This caption model has already been added as “{name}”."
NOT_CHOSEN = "Choose a model on this machine; add one under Caption models."
GONE = "This caption model was removed. Choose another one, or add it again under Caption models."
IN_USE = (
    "“{name}” is used by captions that are being written. Wait until they are done, or cancel them."
)


@dataclass(frozen=True)
class ListedModel:
    """A caption model with its active download, if any, and its current `status` and `error`."""

    model: CaptionModel
    download: Download | None
    status: ModelStatus
    error: str | None

    @property
    def is_from_hub(self) -> bool:
        """True if its files come from the Hub."""
        return is_from_hub(self.model.source)

    @property
    def place(self) -> str:
        """Its source as shown to users."""
        return self.model.source.removeprefix(SCHEME)

    @property
    def is_moving(self) -> bool:
        """Whether its status is about to change, so that a page should look again."""
        return self.status in (ModelStatus.DOWNLOADING, ModelStatus.CHECKING)


def add(session: Session, source: str, settings: Settings) -> CaptionModel:
    """Register a model from a folder of this machine or a name on the Hub.

    An io worker then downloads and checks it: its status goes from `downloading` and `checking` to
    `ready` or `failed`. Adding one that failed tries it again, and a download resumes where it
    stopped. Raises InvalidInput (field `source`), Conflict, and Forbidden where Hub access is off.
    """
    on_hub = read_source(source)
    return (
        _add_folder(session, source, settings)
        if on_hub is None
        else _add_from_hub(session, on_hub, settings)
    )


def check_again(session: Session, model_id: int, settings: Settings) -> CaptionModel:
    """Check a model again, as after its files were changed or onnxruntime was installed.

    One from the Hub whose download is not complete is downloaded, from where it stopped. Raises
    NotFound, Forbidden, and Conflict while it is being downloaded, checked or used.
    """
    model = get_caption_model(session, model_id)
    if list_models(session, [model])[0].is_moving:
        raise Conflict(f"“{model.name}” is being downloaded or checked. Wait until that is done.")
    if _is_in_use(session, model.key):
        raise Conflict(IN_USE.format(name=model.name))
    source = read_source(model.source) if is_from_hub(model.source) else None
    if source is None or (model.local_path and model.location.exists()):
        _order_check(session, model)
    else:
        _order_download(session, model, source, settings)
    return model


def list_caption_models(session: Session) -> list[CaptionModel]:
    """All caption models, the oldest first."""
    return list(session.exec(select(CaptionModel).order_by(col(CaptionModel.id))))


def list_models(
    session: Session, models: Sequence[CaptionModel] | None = None
) -> list[ListedModel]:
    """These models, or all, with their current status and downloads."""
    shown = list_caption_models(session) if models is None else models
    at_work = [model.key for model in shown if model.status == ModelStatus.DOWNLOADING]
    newest = model_downloads.newest_downloads(session, JobKind.DOWNLOAD_CAPTION_MODEL, at_work)
    return [_listed(model, newest.get(model.key)) for model in shown]


def _listed(model: CaptionModel, job: IoJob | None) -> ListedModel:
    status = ModelStatus(model.status)
    if status is not ModelStatus.DOWNLOADING:
        return ListedModel(model, None, status, model.error)
    if job is None or job.state.is_final:
        sentence = model_downloads.lost_sentence(job)
        return ListedModel(model, None, ModelStatus.FAILED, sentence)
    return ListedModel(model, model_downloads.progress_of(job), status, None)


def get_caption_model(session: Session, model_id: int) -> CaptionModel:
    """Look up a model. Raises NotFound."""
    model = session.get(CaptionModel, model_id)
    if model is None:
        raise NotFound("This caption model does not exist; it may have been removed.")
    return model


def find_caption_model(session: Session, reference: str | int) -> CaptionModel:
    """Look up a model by id, slug, source or name on the Hub. Raises InvalidInput."""
    text = str(reference).strip()
    known = list_caption_models(session)
    for model in known:
        if text in (model.slug, model.source, model.source.removeprefix(SCHEME), str(model.id)):
            return model
    slugs = ", ".join(model.slug for model in known) or "none yet; add one"
    raise _not_chosen(f"Unknown caption model “{text[:80]}”. Choose one of: {slugs}.")


def _not_chosen(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"provider": sentence})


def usable_model(session: Session, model_id: int | None, reference: str) -> CaptionModel:
    """The model of a request, by id, by slug or source, or by both, which then have to agree.

    Raises InvalidInput (field `provider`) also for a model that cannot be used now.
    """
    if model_id is None and not reference:
        raise _not_chosen(NOT_CHOSEN)
    if model_id is None:
        model = find_caption_model(session, reference)
    else:
        found = session.get(CaptionModel, model_id)
        names = (found.source, found.source.removeprefix(SCHEME), found.slug) if found else ()
        if found is None or (reference and reference not in names):
            raise _not_chosen(GONE)
        model = found
    if problem := problem_of(model):
        raise _not_chosen(problem)
    return model


def cancel(session: Session, model_id: int) -> CaptionModel:
    """Stop a download soon; the downloaded part is kept. Raises NotFound and Conflict."""
    model = get_caption_model(session, model_id)
    job = model_downloads.active_download(session, JobKind.DOWNLOAD_CAPTION_MODEL, model.key)
    if job is None:
        raise Conflict(f"“{model.name}” is not being downloaded, so there is nothing to stop.")
    if not jobs.request_cancel(session, IoJob, job).is_active:
        write_stopped(session, model.key, job)
    return model


def deletes_files(session: Session, model: CaptionModel, settings: Settings) -> bool:
    """Whether removing a model deletes its files: those of a download that no other model has."""
    return _own_folder(session, model, settings) is not None


def remove(session: Session, model_id: int, settings: Settings) -> Path | None:
    """Remove a model; returns the folder to pass to `delete_tree` after the commit, if any.

    Only files downloaded from the Hub are deleted, those of a path are not. Captions and proposals
    that it made stay, with its name. Raises NotFound, and Conflict while it is being downloaded or
    captions that need it are being written.
    """
    model = get_caption_model(session, model_id)
    if model_downloads.active_download(session, JobKind.DOWNLOAD_CAPTION_MODEL, model.key):
        raise Conflict(f"“{model.name}” is being downloaded. Stop the download first.")
    if _is_in_use(session, model.key):
        raise Conflict(IN_USE.format(name=model.name))
    place = _own_folder(session, model, settings)
    session.delete(model)
    return place


def problem_of(model: CaptionModel) -> str:
    """Why a model cannot be used now, as a sentence; empty if it can."""
    if model.status == ModelStatus.DOWNLOADING:
        return f"“{model.name}” is being downloaded. Caption models shows its progress."
    if model.status == ModelStatus.CHECKING:
        return f"“{model.name}” is being checked. Try again in a moment."
    if model.status == ModelStatus.FAILED:
        return f"“{model.name}” cannot be used: {model.error}"
    if model.location.is_dir():
        return ""
    if is_from_hub(model.source):
        return f"The files of “{model.name}” are missing. Check it again under Caption models."
    return f"The files of “{model.name}” are missing from {model.source}. Put them back."


def _add_folder(session: Session, source: str, settings: Settings) -> CaptionModel:
    path = require_path(source, allowed_folders(settings), WORDS)
    if path.is_file():
        raise bad_source(NO_FILE)
    model = _row_to_add(session, str(path), path.name)
    _order_check(session, model)
    return model


def _add_from_hub(session: Session, source: HubSource, settings: Settings) -> CaptionModel:
    require_allowed(settings)
    if source.file is not None:
        raise bad_source(NO_FILE)
    model = _row_to_add(session, source.uri, source.name)
    _order_download(session, model, source, settings)
    return model


def _row_to_add(session: Session, source: str, name: str) -> CaptionModel:
    """The row of a source that is not there yet, or cannot be used as it is. Raises Conflict."""
    here = select(CaptionModel).where(CaptionModel.source == source).with_for_update()
    model = session.exec(here).first()
    if model is None:
        name = name[:MAX_NAME]
        model = insert_with_slug(
            session, CaptionModel, name, fallback="caption-model", source=source
        )
        if model is None:
            raise Conflict(ALREADY.format(name=name))
    elif list_models(session, [model])[0].is_moving or not problem_of(model):
        raise Conflict(ALREADY.format(name=model.name))
    return model


def _order_check(session: Session, model: CaptionModel) -> None:
    model.status, model.error = ModelStatus.CHECKING, None
    session.add(model)
    jobs.enqueue_io(session, CheckCaptionModelArgs(), subject_id=model.key)


def _order_download(
    session: Session, model: CaptionModel, source: HubSource, settings: Settings
) -> None:
    """Queue a download. Raises Forbidden."""
    require_allowed(settings)
    model.status, model.error = ModelStatus.DOWNLOADING, None
    session.add(model)
    args = DownloadCaptionModelArgs(repo=source.repo, revision=source.revision)
    attempts = model_downloads.MAX_ATTEMPTS
    jobs.enqueue_io(session, args, subject_id=model.key, max_attempts=attempts)


def _own_folder(session: Session, model: CaptionModel, settings: Settings) -> Path | None:
    """The folder of a download that no other model has; None for a folder of this machine."""
    source = read_source(model.source) if is_from_hub(model.source) else None
    if source is None:
        return None
    others = select(CaptionModel.source).where(CaptionModel.id != model.key)
    shared = are_shared(source, session.exec(others))
    return None if shared else settings.caption_models / source.folder


def _is_in_use(session: Session, model_id: int) -> bool:
    """Whether captions are ordered or being written that need this model."""
    kinds = (JobKind.CAPTION_IMAGES, JobKind.PREVIEW_CAPTION)
    waiting = select(IoJob).where(col(IoJob.kind).in_(kinds), col(IoJob.status).in_(NOT_FINAL))
    found = (job.readable_arguments() for job in session.exec(waiting))
    return any(isinstance(args, CaptionArgs) and args.model_id == model_id for args in found)
