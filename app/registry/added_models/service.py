"""Adding, downloading, checking, finding and removing models, the same for every kind.

Files are read by io workers only: adding queues a download or a check, and the row says how far
that is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sqlmodel import Session, col, select

from app.registry.added_models import downloads
from app.registry.added_models.downloads import Download
from app.registry.config import Settings
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.hub_source import SCHEME, HubSource, read_source, require_allowed
from app.registry.job_kinds.kinds import JobArgs, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.slugs import insert_with_slug
from app.registry.tables.added_models import CHANGING, AddedModel, ModelStatus
from app.registry.tables.jobs import IoJob
from app.registry.wording import shortened, size_text

Row = TypeVar("Row", bound=AddedModel)
MAX_NAME = 120  # of the columns; a folder may have a longer one
ALREADY = "This {kind} has already been added as “{name}”."
NOT_YET = "Not downloaded yet:"
ADDABLE = (ModelStatus.FAILED, ModelStatus.REMOVED)  # these can be added again


@dataclass(frozen=True, kw_only=True)
class ModelKind(Generic[Row]):
    """A kind of model, with its words, its jobs and its folder.

    `name` is the noun in sentences; `places` says where a path may lead; `file_ending` is that of
    files that can be added alone, if any, and `other_file` the sentence for all others; `field` is
    the field of requests that choose a model. `make_download` gives the arguments of the download
    of a row, with the precision that was asked for, if any. `corrected`: columns that a person can
    correct; a check of the same files leaves them.
    """

    table: type[Row]
    name: str
    places: str
    file_ending: str | None
    other_file: str
    field: str
    check: JobArgs
    download: JobKind
    make_download: Callable[[Session, Row, HubSource, str | None], JobArgs]
    download_folder: Callable[[Settings], Path]
    corrected: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The name of its page."""
        return f"{self.name.capitalize()}s"

    @property
    def address(self) -> str:
        """The address of its page."""
        return f"/{self.fallback_slug}s"

    @property
    def fallback_slug(self) -> str:
        """The slug of a model whose name has no letters for one."""
        return self.name.replace(" ", "-")


def allowed_folders(settings: Settings) -> list[Path] | None:
    """Folders that models may be added from; None: any, if nobody else can use the server."""
    if settings.model_folder_list or not settings.is_private:
        return settings.model_folder_list
    return None


def require_path(source: str, allowed_folders: Sequence[Path] | None, kind: ModelKind[Row]) -> Path:
    """The resolved path of what is there and may be used. Raises InvalidInput.

    `allowed_folders`: None allows any path on this machine.
    """
    if "\0" in source or not source.strip():
        raise bad_source(f"Enter the path of {kind.places}, or owner/name on the Hub.")
    try:
        return _checked_path(source.strip(), allowed_folders, kind)
    except (OSError, RuntimeError) as error:  # no such user, too long, a loop, not permitted
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise bad_source(f"This path cannot be read: {reason}. Choose another one.") from error


def _checked_path(
    source: str, allowed_folders: Sequence[Path] | None, kind: ModelKind[Row]
) -> Path:
    path = Path(source).expanduser()
    if not path.is_absolute():
        raise bad_source(
            f"Enter the absolute path of {kind.places}, or the name of a model on the Hub as "
            "owner/name."
        )
    path = path.resolve()
    if allowed_folders is not None and not any(
        path.is_relative_to(folder.resolve()) for folder in allowed_folders
    ):
        raise bad_source(
            f"{kind.title} can only be added from the folders in BRUSHWORK_MODEL_FOLDERS. Move "
            "the model there, or ask an administrator to add its folder."
        )
    if not path.exists():
        raise bad_source(f"{path} does not exist on the machine that runs Brushwork.")
    return path


def bad_source(sentence: str) -> InvalidInput:
    """The error for a source that cannot be used."""
    return InvalidInput(sentence, fields={"source": sentence})


def delete_model_files(place: Path | None) -> None:
    """Delete the files of a removed or unfinished model, if there is a path to delete."""
    if place is not None and place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    elif place is not None:
        place.unlink(missing_ok=True)


@dataclass(frozen=True)
class ListedModel(Generic[Row]):
    """A model with its active download, if any, and its current `status` and `error`.

    `missing`: a sentence if it is ready and its files are gone.
    """

    model: Row
    download: Download | None
    status: ModelStatus
    error: str | None
    missing: str = ""

    @property
    def is_size_asked(self) -> bool:
        """True while only the size of its download was asked for."""
        return bool(self.error and self.error.startswith(NOT_YET))

    @property
    def is_changing(self) -> bool:
        """True while its status is about to change, so that a page should look again."""
        return self.status in CHANGING


def add(
    session: Session,
    kind: ModelKind[Row],
    source: str,
    settings: Settings,
    *,
    precision: str | None = None,
    size_only: bool = False,
) -> Row:
    """Register a model from a path of this machine or a name on the Hub.

    An io worker then downloads and checks it: its status goes from `downloading` and `checking` to
    `ready` or `failed`. Adding one that failed or was removed tries it again, and a download
    resumes where it stopped; `precision` is the last one by default. With `size_only`, only the
    size of its download is looked up: it is `failed` with that in its `size_bytes` and its error
    until it is added again. Raises InvalidInput (field `source`), Conflict, and Forbidden where Hub
    access is off.
    """
    on_hub = read_source(source)
    if on_hub is None:
        return add_path(session, kind, source, allowed_folders(settings))
    require_allowed(settings)
    if on_hub.file is not None:
        _require_known_file(kind, on_hub.file)
    model = _row_to_add(session, kind, on_hub.uri, on_hub.name)
    _order_download(session, kind, model, on_hub, precision, size_only=size_only)
    return model


def add_path(
    session: Session, kind: ModelKind[Row], source: str, folders: Sequence[Path] | None = None
) -> Row:
    """Register a folder or file of this machine, which an io worker then checks.

    `folders`: those that it may be in; None: any. Raises InvalidInput (field `source`) and
    Conflict.
    """
    path = require_path(source, folders, kind)
    if path.is_file():
        _require_known_file(kind, path.name)
    name = path.stem if path.is_file() else path.name
    model = _row_to_add(session, kind, str(path), name)
    order_check(session, kind, model)
    return model


def _require_known_file(kind: ModelKind[Row], file: str) -> None:
    if kind.file_ending is None or Path(file).suffix != kind.file_ending:
        raise bad_source(kind.other_file)


def _row_to_add(session: Session, kind: ModelKind[Row], source: str, name: str) -> Row:
    """The row of a source that is not there yet, or cannot be used as it is. Raises Conflict."""
    here = select(kind.table).where(kind.table.source == source).with_for_update()
    model = session.exec(here).first()
    if model is None:
        name = shortened(name, MAX_NAME)
        model = insert_with_slug(
            session, kind.table, name, fallback=kind.fallback_slug, source=source
        )
        if model is None:  # another request just added it
            raise Conflict(ALREADY.format(kind=kind.name, name=name))
        return model
    row = list_with_progress(session, kind, [model])[0]
    if row.status not in ADDABLE and not row.missing:
        raise Conflict(ALREADY.format(kind=kind.name, name=model.name))
    return model


def check_again(session: Session, kind: ModelKind[Row], model: Row, settings: Settings) -> None:
    """Queue the check of a model, as after its files were changed.

    One from the Hub whose files are not here is downloaded, from where it stopped. Raises
    Forbidden, and Conflict while it is being downloaded or checked.
    """
    if list_with_progress(session, kind, [model])[0].is_changing:
        raise Conflict(f"“{model.name}” is being downloaded or checked. Wait until that is done.")
    source = model.hub_source
    if source is None or (model.local_path and model.location.exists()):
        order_check(session, kind, model)
    else:
        require_allowed(settings)
        _order_download(session, kind, model, source, None)


def order_check(session: Session, kind: ModelKind[Row], model: Row) -> None:
    """Queue the check of a model."""
    model.status, model.error = ModelStatus.CHECKING, None
    session.add(model)
    jobs.enqueue_io(session, kind.check, subject_id=model.key)


def _order_download(
    session: Session,
    kind: ModelKind[Row],
    model: Row,
    source: HubSource,
    precision: str | None,
    *,
    size_only: bool = False,
) -> None:
    model.status, model.error = ModelStatus.DOWNLOADING, None
    session.add(model)
    args = kind.make_download(session, model, source, precision)
    if size_only:
        args = args.model_copy(update={"size_only": True})
    attempts = downloads.MAX_ATTEMPTS
    jobs.enqueue_io(session, args, subject_id=model.key, max_attempts=attempts)


def list_models(session: Session, kind: ModelKind[Row]) -> list[Row]:
    """All models of a kind that are not removed, the oldest first."""
    here = select(kind.table).where(kind.table.status != ModelStatus.REMOVED)
    return list(session.exec(here.order_by(col(kind.table.id))))


def list_with_progress(
    session: Session, kind: ModelKind[Row], models: Sequence[Row] | None = None
) -> list[ListedModel[Row]]:
    """These models, or all that are not removed, with their current status and downloads."""
    listed = list_models(session, kind) if models is None else models
    at_work = [model.key for model in listed if model.status == ModelStatus.DOWNLOADING]
    newest = downloads.newest_downloads(session, kind.download, at_work)
    return [_listed(kind, model, newest.get(model.key)) for model in listed]


def _listed(kind: ModelKind[Row], model: Row, job: IoJob | None) -> ListedModel[Row]:
    status = ModelStatus(model.status)
    if status is not ModelStatus.DOWNLOADING:
        missing = missing_files(kind, model) if status is ModelStatus.READY else ""
        return ListedModel(model, None, status, model.reason, missing)
    if job is None or job.state.is_final:  # failed after too many lost workers
        return ListedModel(model, None, ModelStatus.FAILED, downloads.lost_sentence(job))
    return ListedModel(model, downloads.progress_of(job), status, None)


def get_model(session: Session, kind: ModelKind[Row], model_id: int) -> Row:
    """Look up a model. Raises NotFound."""
    model = session.get(kind.table, model_id)
    if model is None:
        raise NotFound(f"This {kind.name} does not exist; it may have been removed.")
    return model


def find_model(session: Session, kind: ModelKind[Row], reference: str | int) -> Row:
    """Look up a model by slug, source, name on the Hub or id. Raises InvalidInput."""
    text, table = str(reference).strip().replace("\0", ""), kind.table  # PostgreSQL takes no NUL
    is_meant = (col(table.slug) == text) | col(table.source).in_((text, f"{SCHEME}{text}"))
    is_meant &= isinstance(reference, str)  # a number is no slug that an older version made of it
    model = session.exec(select(table).where(is_meant)).first()
    if model is None and text.isascii() and text.isdigit() and len(text) < 10:
        model = session.get(table, int(text))
    if model is None:
        slugs = ", ".join(row.slug for row in list_models(session, kind)) or "none yet; add one"
        sentence = f"Unknown {kind.name} “{text[:80]}”. Choose one of: {slugs}."
        raise InvalidInput(sentence, fields={kind.field: sentence})
    return model


def problem_of(kind: ModelKind[Row], model: Row) -> str:
    """The reason why a model cannot be used now, as a sentence; empty if it can."""
    named = f"The {kind.name} “{model.name}”"
    match ModelStatus(model.status):
        case ModelStatus.FAILED:
            return f"{named} cannot be used: {model.error}"
        case ModelStatus.CHECKING:
            return f"{named} is being checked. Try again in a moment."
        case ModelStatus.DOWNLOADING:
            return f"{named} is being downloaded. {kind.title} shows its progress."
        case ModelStatus.REMOVED:
            return f"{named} was removed. Add it again to use it."
        case ModelStatus.READY:
            return missing_files(kind, model)


def missing_files(kind: ModelKind[Row], model: Row) -> str:
    """A sentence if the files of a model are gone; "" if they are there."""
    if model.location.exists():
        return ""
    if model.local_path:
        return f"The files of “{model.name}” are missing. Download it again under {kind.title}."
    return f"The files of “{model.name}” are missing from {model.source}. Put them back."


def cancel(session: Session, kind: ModelKind[Row], model_id: int) -> Row:
    """Stop a download soon; the downloaded part is kept; idempotent.

    Raises NotFound and Conflict.
    """
    model = get_model(session, kind, model_id)
    job = downloads.newest_downloads(session, kind.download, [model.key]).get(model.key)
    if job is not None and job.state is JobStatus.CANCELED:
        return model
    if job is None or job.state.is_final:
        raise Conflict(f"“{model.name}” is not being downloaded, so there is nothing to stop.")
    if not jobs.request_cancel(session, IoJob, job).is_active:
        write_stopped(session, kind, model.key, job)
    return model


def present_model(session: Session, kind: ModelKind[Row], model_id: int) -> Row | None:
    """The model that results are written to; None if it was removed meanwhile."""
    model = session.get(kind.table, model_id)
    return None if model is None or model.status == ModelStatus.REMOVED else model


def write_ready(session: Session, kind: ModelKind[Row], model_id: int, info: object) -> None:
    """Store the facts that a check found and mark a model ready, unless it was removed meanwhile.

    `info`: its attributes that are columns of the table are stored.
    """
    if (model := present_model(session, kind, model_id)) is not None:
        found = vars(info)
        is_same = "fingerprint" in found and vars(model)["fingerprint"] == found["fingerprint"]
        kept = kind.corrected if is_same else frozenset()
        for name in kind.table.model_fields.keys() & found.keys() - kept:
            setattr(model, name, found[name])
        model.status, model.error = ModelStatus.READY, None
        session.add(model)


def write_unusable(session: Session, kind: ModelKind[Row], model_id: int, sentence: str) -> None:
    """Mark a model failed with the reason, unless it was removed meanwhile."""
    if (model := present_model(session, kind, model_id)) is not None:
        model.status, model.error = ModelStatus.FAILED, sentence
        session.add(model)


def write_size(session: Session, kind: ModelKind[Row], model_id: int, size: int) -> None:
    """Store the size of a download that was only asked for, unless it was removed meanwhile."""
    sentence = f"{NOT_YET} its files take {size_text(size)}. Download it to use it."
    write_unusable(session, kind, model_id, sentence)
    if (model := present_model(session, kind, model_id)) is not None:
        model.size_bytes = size


def write_stopped(session: Session, kind: ModelKind[Row], model_id: int, job: IoJob) -> None:
    """Record that a download was stopped on request."""
    write_unusable(session, kind, model_id, downloads.stopped_sentence(job))


def write_downloaded(
    session: Session, kind: ModelKind[Row], model_id: int, path: str, commit: str
) -> None:
    """Record that the files are complete, and queue their check."""
    if (model := present_model(session, kind, model_id)) is not None:
        model.local_path, model.revision = path, commit
        order_check(session, kind, model)
