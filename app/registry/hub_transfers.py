"""Jobs that import adapters from the Hugging Face Hub and publish them there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.downloads import version_metadata
from app.registry.config import Settings
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.hub_source import PART, SCHEME, HubSource, read_source, require_allowed
from app.registry.job_kinds.kinds import (
    FetchHubAdapterArgs,
    FetchHubAdapterResult,
    ImportAdapterResult,
    JobKind,
    PublishAdapterArgs,
    PublishAdapterResult,
    PublishedImage,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import enqueue_io
from app.registry.renders.adapter_images import AdapterImage, list_renders, list_samples
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from worker.core.hub.messages import ModelCard
from worker.core.lora_files.file_names import file_name

REPO = re.compile(rf"(?:{PART}/)?{PART}")
MAX_REPO = 96
MAX_IMAGES = 8
USUAL_IMAGES = 4


@dataclass(frozen=True)
class PublishOptions:
    """Options for a publication; `pictures` are blobs of images generated with the adapter.

    A `repo` without an owner belongs to the token's user. `pictures` None: the first few.
    """

    repo: str
    private: bool = True
    version: int | str | None = None
    base_model: str = ""
    pictures: Sequence[str] | None = None


@dataclass(frozen=True)
class Publication:
    """A publication, unfinished or finished; `url` is set once it is on the Hub."""

    job: IoJob
    version: int

    @property
    def repo(self) -> str:
        """The repository, with its owner once known."""
        return self._result.repo or self.args.repo

    @property
    def url(self) -> str | None:
        """The page of the repository on the Hub."""
        return self._result.url

    @property
    def private(self) -> bool:
        """True if the repository is private, or was requested to be private."""
        seen = self.seen_private
        return self.args.private if seen is None else seen

    @property
    def seen_private(self) -> bool | None:
        """The Hub's answer on whether it is private; None before that."""
        return self._result.private

    @property
    def args(self) -> PublishAdapterArgs:
        """The arguments of the job."""
        return self.job.arguments(PublishAdapterArgs)

    @property
    def _result(self) -> PublishAdapterResult:
        return self.job.outcome(PublishAdapterResult)


@dataclass(frozen=True)
class HubImport:
    """The import of an adapter from the Hub: download, then file import, then the adapter.

    `is_ending`: a cancel was requested that the worker has not handled yet.
    """

    job: IoJob
    source: str
    progress: FetchHubAdapterResult
    import_id: int | None = None
    adapter_id: int | None = None
    status: JobStatus = JobStatus.QUEUED
    error: str | None = None
    is_ending: bool = False


def order_fetch(session: Session, text: str, settings: Settings) -> IoJob:
    """Queue the import of an adapter from the Hub."""
    require_allowed(settings)
    source = read_source(text)
    if source is None:
        raise invalid_field(
            "source",
            "Enter the name of an adapter on the Hub as owner/name, optionally followed by "
            "@revision and /file.safetensors, or the URL of its page.",
        )
    if source.file is not None and not source.file.endswith(".safetensors"):
        raise invalid_field(
            "source", f"{source.file} is not a .safetensors file. Choose one that is."
        )
    args = FetchHubAdapterArgs(repo=source.repo, revision=source.revision, file=source.file)
    return enqueue_io(session, args)


def get_hub_import(session: Session, job_id: int) -> HubImport:
    """Look up the import of an adapter from the Hub. Raises NotFound."""
    job = jobs.get_io(session, job_id, "import", JobKind.FETCH_HUB_ADAPTER)
    args, result = job.arguments(FetchHubAdapterArgs), job.outcome(FetchHubAdapterResult)
    source = str(HubSource(args.repo, args.revision, args.file))
    if job.state is not JobStatus.SUCCEEDED:
        return HubImport(
            job,
            source,
            result,
            status=job.state,
            error=job.error,
            is_ending=job.cancel_requested,
        )
    checked = service.get_import(session, result.import_id or 0)
    return HubImport(
        job,
        source,
        result,
        import_id=checked.key,
        adapter_id=checked.outcome(ImportAdapterResult).adapter_id,
        status=JobStatus.RUNNING if checked.state.is_active else checked.state,
        error=checked.error,
        is_ending=checked.cancel_requested,
    )


def cancel_fetch(session: Session, job_id: int) -> HubImport:
    """Cancel an import from the Hub. Raises Conflict if it has ended."""
    found = get_hub_import(session, job_id)
    job = found.job if found.import_id is None else service.get_import(session, found.import_id)
    jobs.request_cancel(session, IoJob, job)
    return get_hub_import(session, job_id)


def order_publication(
    session: Session, adapter: Adapter, options: PublishOptions, settings: Settings
) -> IoJob:
    """Queue the publication of a version of an adapter."""
    require_allowed(settings)
    repo, base_model = options.repo.strip().removeprefix(SCHEME), options.base_model.strip()
    if not REPO.fullmatch(repo) or "--" in repo or ".." in repo or len(repo) > MAX_REPO:
        raise invalid_field(
            "repo",
            "Enter the name of the repository as name or owner/name: letters, digits, dots, dashes "
            f"and underscores, at most {MAX_REPO} characters.",
        )
    if base_model and (named := read_source(base_model)) is None:
        raise invalid_field("base_model", "Enter the base model's name on the Hub as owner/name.")
    version = service.get_version(session, adapter, options.version)
    earlier = publications(session, adapter)
    if any(row.job.state.is_active for row in earlier):
        raise Conflict(f"“{adapter.name}” is already being published. Wait until that has ended.")
    ours = [row.repo for row in earlier if row.url]
    known = next((row for row in ours if repo in (row, row.partition("/")[2])), None)
    args = PublishAdapterArgs(
        repo=known or repo,
        update=known is not None,
        private=options.private,
        base_model=named.repo if base_model and named else base_on_hub(session, version),
        pictures=_chosen_images(session, adapter, version, options.pictures),
    )
    return enqueue_io(session, args, subject_id=version.key)


def _chosen_images(
    session: Session, adapter: Adapter, version: AdapterVersion, hashes: Sequence[str] | None
) -> tuple[PublishedImage, ...]:
    """The images to publish, with their prompts."""
    by_hash = {image.sha256: image for image in publishable_images(session, adapter, version)}
    if hashes is None:
        hashes = list(by_hash)[:USUAL_IMAGES]
    if len(hashes) > MAX_IMAGES:
        raise invalid_field("pictures", f"Choose at most {MAX_IMAGES} images.")
    if any(sha256 not in by_hash for sha256 in hashes):
        raise invalid_field("pictures", "Choose only images that were generated with this adapter.")
    return tuple(PublishedImage(sha256=key, prompt=by_hash[key].title) for key in hashes)


def publishable_images(
    session: Session, adapter: Adapter, version: AdapterVersion
) -> list[AdapterImage]:
    """The images of an adapter that can be published, the cover first."""
    summary = service.summary(session, adapter)
    samples = list_samples(session, summary, version)
    found = [*samples, *list_renders(session, summary).shown]
    unique = {image.sha256: image for image in reversed(found)}
    images = [*reversed(unique.values())]
    return sorted(images, key=lambda image: not image.is_cover)


def base_on_hub(session: Session, version: AdapterVersion) -> str:
    """The Hub name of the base model of a version; empty if it is not from the Hub."""
    base = session.get(BaseModel, version.base_model_id) if version.base_model_id else None
    source = read_source(base.source) if base and base.source.startswith(SCHEME) else None
    return source.repo if source else ""


def model_card(
    session: Session, adapter: Adapter, version: AdapterVersion, args: PublishAdapterArgs
) -> ModelCard:
    """The content of a version's model card; of the dataset only its size."""
    metadata = version_metadata(session, version, with_tags=True)
    return ModelCard(
        metadata=replace(metadata, train_config={}, tag_counts={}),
        version=version.version,
        kohya_file=file_name(adapter.slug),
        base_model=args.base_model,
        rank=version.rank,
        alpha=version.alpha,
        steps=version.steps,
        trained=version.trainable_parameters,
    )


def publications(session: Session, adapter: Adapter) -> list[Publication]:
    """All publications of an adapter, newest first."""
    versions = {row.key: row.version for row in service.list_versions(session, adapter.key)}
    ours = select(IoJob).where(
        IoJob.kind == JobKind.PUBLISH_ADAPTER, col(IoJob.subject_id).in_(versions)
    )
    return [
        Publication(job, versions[job.subject_id or 0])
        for job in session.exec(ours.order_by(col(IoJob.id).desc()))
    ]


def get_publication(session: Session, adapter: Adapter, job_id: int) -> Publication:
    """Look up a publication of this adapter. Raises NotFound."""
    row = next((row for row in publications(session, adapter) if row.job.key == job_id), None)
    if row is None:
        raise NotFound("There is no such publication.")
    return row


def cancel_publication(session: Session, adapter: Adapter, job_id: int) -> Publication:
    """Cancel a publication of this adapter. Raises Conflict if it has ended."""
    row = get_publication(session, adapter, job_id)
    jobs.request_cancel(session, IoJob, row.job)
    return row
