"""io jobs that access the Hugging Face Hub, each in its own process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlmodel import Session

from app.registry import hub_transfers as hub
from app.registry.adapters.versions.create_version import NewFile
from app.registry.added_models import service as added_models
from app.registry.added_models.kinds import ModelKind
from app.registry.base_models.service import BASE_MODELS
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import Conflict
from app.registry.hub_source import HubSource
from app.registry.images.image_types import image_suffix
from app.registry.job_kinds.caption_kinds import DownloadCaptionModelArgs
from app.registry.job_kinds.kinds import (
    ByteProgress,
    DownloadBaseArgs,
    DownloadModelArgs,
    FetchHubAdapterArgs,
    FetchHubAdapterResult,
    JobArgs,
    PublishAdapterArgs,
    PublishAdapterResult,
    PublishedImage,
    StoredSidecar,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from worker.core.hub.messages import LEFT, HubReply
from worker.core.hub.model_card import PEFT_FILE, ModelCard
from worker.core.lora_files.file_names import CONFIG_NAME
from worker.core.words import FileFormat, WeightDtype
from worker.runtime.hub_process import (
    HubFailure,
    HubInterruption,
    InterruptReason,
    make_order,
    run_order,
)
from worker.runtime.job_progress import succeed
from worker.runtime.lease import Lease

WriteFile = Callable[[int, FileFormat, WeightDtype, Path], NewFile]
"""(version, format, number type, scratch folder) -> a verified and stored download."""

DELETED = "“{name}” was deleted meanwhile, so it was not published. Restore it, then try again."
DTYPE = WeightDtype.FP16
FROM_HUB = "From {repo} on the Hugging Face Hub, commit {commit}.{license}"
OFF = "Hugging Face access is off on this worker. An administrator can enable it: BRUSHWORK_HUB=on."


class HubJobs:
    """Processes the io jobs that access the Hub."""

    def __init__(
        self, settings: Settings, database: Database, store: BlobStore, write_file: WriteFile
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._write_file = write_file

    def download_base(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Download a base model; a separate job then inspects it."""
        self._download_model(BASE_MODELS, job, job.arguments(DownloadBaseArgs), lease, stopping)

    def download_caption_model(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Download a caption model; a separate job then checks it."""
        args = job.arguments(DownloadCaptionModelArgs)
        self._download_model(CAPTION_MODELS, job, args, lease, stopping)

    def _download_model(
        self,
        kind: ModelKind[Any],
        job: IoJob,
        args: DownloadModelArgs,
        lease: Lease,
        stopping: threading.Event,
    ) -> None:
        model_id = job.subject_id
        assert model_id is not None
        home = kind.download_folder(self._settings) / HubSource(args.repo).folder
        try:
            answer = self._run_request(job.kind, args, lease, stopping, folder=str(home))
        except HubFailure as error:
            with self._database.write() as session:
                self._finish_job(session, lease, JobStatus.FAILED, error)
                added_models.write_unusable(session, kind, model_id, str(error))
        except HubInterruption as broken:
            with self._database.write() as session:
                self._finish_interrupted(session, lease, broken)
                if broken.why is InterruptReason.CANCELED:
                    ended = session.get_one(IoJob, job.key)
                    added_models.write_stopped(session, kind, model_id, ended)
        else:
            path, commit = str(answer.path), answer.values["commit"]
            with self._database.write() as session:
                self._finish_job(session, lease, JobStatus.SUCCEEDED)
                added_models.write_downloaded(session, kind, model_id, path, commit)

    def fetch_adapter(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Download a LoRA file, then queue a regular import job for it."""
        args = job.arguments(FetchHubAdapterArgs)
        try:
            answer = self._run_request("fetch_adapter", args, lease, stopping, folder=str(scratch))
        except (HubFailure, HubInterruption) as error:
            self._finish_failed(lease, error)
            return
        blob = self._store.put_file(answer.path)
        sidecars = self._make_sidecars(args.repo, answer, scratch)
        with self._database.write() as session:
            jobs.require_owner(session, IoJob, lease.claim)
            import_id = hub.order_fetched_import(
                session, sha256=blob.sha256, filename=answer.values["name"], sidecars=sidecars
            )
            succeed(session, lease, FetchHubAdapterResult(import_id=import_id))

    def _make_sidecars(self, repo: str, answer: HubReply, scratch: Path) -> list[StoredSidecar]:
        """Metadata of the repository in the form of sidecar files."""
        stem = str(answer.values["name"]).removesuffix(".safetensors")
        said = answer.values["card"]
        license = _license_of_card(said)
        path = scratch / "card.json"
        content = {
            "activation text": said.get("instance_prompt", ""),
            "license": license,
            "description": FROM_HUB.format(
                repo=repo,
                commit=answer.values["commit"][:12],
                license=f" License: {license}." if license else "",
            ),
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        sha256 = self._store.put_file(path).sha256
        found = [StoredSidecar(name=f"{stem}.json", sha256=sha256)]
        if answer.values["picture"]:
            image = Path(answer.values["picture"])
            name = f"{stem}{image.suffix.lower()}"
            sha256 = self._store.put_file(image).sha256
            found.append(StoredSidecar(name=name, sha256=sha256))
        if config := answer.values.get("config"):
            sha256 = self._store.put_file(Path(config)).sha256
            found.append(StoredSidecar(name=CONFIG_NAME, sha256=sha256))
        return found

    def publish_adapter(
        self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event
    ) -> None:
        """Publish a version of an adapter with a model card."""
        version_id, args = job.subject_id, job.arguments(PublishAdapterArgs)
        assert version_id is not None
        with self._database.read() as session:
            version = session.get_one(AdapterVersion, version_id)
            adapter = session.get_one(Adapter, version.adapter_id)
            if adapter.deleted_at is not None:
                raise Conflict(DELETED.format(name=adapter.name))
            card = hub.model_card(session, adapter, version, args)
        files = self._files_to_publish(version_id, card.kohya_file, scratch)
        images = self._local_images(args.pictures, scratch)
        prompts = [image.prompt for image in args.pictures]
        card = replace(card, pictures=list(zip(images, prompts, strict=True)))
        paths = {name: str(path) for name, path in (files | images).items()}
        card_json = TypeAdapter(ModelCard).dump_python(card, mode="json")
        try:
            answer = self._run_request(
                "publish_adapter", args, lease, stopping, files=paths, card=card_json
            )
        except (HubFailure, HubInterruption) as error:
            self._finish_failed(lease, error)
            return
        with self._database.write() as session:
            succeed(session, lease, PublishAdapterResult(**answer.values))

    def _files_to_publish(self, version_id: int, kohya_file: str, scratch: Path) -> dict[str, Path]:
        """The files to publish next to the model card, by name."""
        files = {}
        for form, name in ((FileFormat.KOHYA, kohya_file), (FileFormat.PEFT, PEFT_FILE)):
            folder = scratch / form
            folder.mkdir()
            file = self._write_file(version_id, form, DTYPE, folder)
            files[name] = self._store.local_path(file.sha256, folder)
        return files

    def _local_images(self, images: Sequence[PublishedImage], scratch: Path) -> dict[str, Path]:
        """The images of the model card by their names in the repository, in order."""
        sources = [self._store.local_path(image.sha256, scratch) for image in images]
        return {
            f"images/{number}{image_suffix(source)}": source
            for number, source in enumerate(sources)
        }

    def _finish_failed(self, lease: Lease, error: HubFailure | HubInterruption) -> None:
        with self._database.write() as session:
            if isinstance(error, HubInterruption):
                self._finish_interrupted(session, lease, error)
            else:
                self._finish_job(session, lease, JobStatus.FAILED, error)

    def _run_request(
        self, what: str, args: JobArgs, lease: Lease, stopping: threading.Event, **values: Any
    ) -> HubReply:
        if self._settings.hub == "off":
            raise HubFailure("hub_off", OFF)

        def write_progress(progress: dict[str, Any]) -> None:
            with self._database.write() as session:
                result = ByteProgress(**progress).stored()
                jobs.update_owned(session, IoJob, lease.claim, result=result)

        return run_order(
            make_order(self._settings, what, **args.stored(), **values),
            self._database,
            lease,
            stopping,
            on_progress=write_progress,
        )

    def _finish_interrupted(self, session: Session, lease: Lease, broken: HubInterruption) -> None:
        if broken.why is InterruptReason.CANCELED:
            left = HubFailure(LEFT, broken.left) if broken.left else None
            self._finish_job(session, lease, JobStatus.CANCELED, left)
        else:
            jobs.give_back(session, IoJob, lease.claim)

    def _finish_job(
        self, session: Session, lease: Lease, status: JobStatus, error: HubFailure | None = None
    ) -> None:
        why = {"error": str(error), "error_code": error.code} if error else {}
        jobs.finish(session, IoJob, lease.claim, status, **why)


def _license_of_card(card: dict[str, str]) -> str:
    """The license of a model card; for `other`, the name given in the card."""
    license = card.get("license", "")
    return card.get("license_name", license) if license == "other" else license
