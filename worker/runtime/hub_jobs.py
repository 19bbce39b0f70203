"""io jobs that access the Hugging Face Hub, each in its own process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.registry import hub_transfers as hub
from app.registry.adapters import service as adapters
from app.registry.added_models import service as added_models
from app.registry.added_models.service import ModelKind
from app.registry.base_models.service import BASE_MODELS
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.errors import Conflict
from app.registry.hub_source import HubSource
from app.registry.images.image_types import image_suffix
from app.registry.job_kinds.kinds import (
    DownloadModelArgs,
    ExportAdapterArgs,
    FetchHubAdapterArgs,
    FetchHubAdapterResult,
    PublishAdapterArgs,
    PublishAdapterResult,
    PublishedImage,
    StoredSidecar,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from worker.core.hub.messages import HubReply
from worker.core.hub.model_card import PEFT_FILE, ModelCard
from worker.core.lora_files.file_names import CONFIG_NAME
from worker.core.words import FileFormat, WeightDtype
from worker.runtime import export_jobs
from worker.runtime.hub_process import run_order
from worker.runtime.job_progress import (
    IoWork,
    JobCanceled,
    RefusedError,
    WorkerStopping,
    finish,
    succeed,
)

DELETED = "“{name}” was deleted meanwhile, so it was not published. Restore it, then try again."
DOWNLOADS: Mapping[str, ModelKind[Any]] = {
    kind.download: kind for kind in (BASE_MODELS, CAPTION_MODELS)
}
DTYPE = WeightDtype.FP16
FROM_HUB = "From {repo} on the Hugging Face Hub, commit {commit}.{license}"


def download_model(work: IoWork) -> None:
    """Download a base model or a caption model; a separate job then looks at it."""
    kind, args = DOWNLOADS[work.job.kind], work.job.arguments(DownloadModelArgs)
    model_id = work.subject_id
    home = kind.download_folder(work.settings) / HubSource(args.repo).folder
    try:
        answer = run_order(work, work.job.kind, **args.stored(), folder=str(home))
    except WorkerStopping:
        work.give_back()
    except RefusedError as error:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.FAILED, **error.columns)
            added_models.write_unusable(session, kind, model_id, str(error))
    except JobCanceled as canceled:
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.CANCELED, **canceled.columns)
            ended = session.get_one(IoJob, work.job.key)
            added_models.write_stopped(session, kind, model_id, ended)
    else:
        if "size" in answer.values:
            with work.database.write() as session:
                finish(session, work.lease, JobStatus.SUCCEEDED)
                added_models.write_size(session, kind, model_id, answer.values["size"])
            return
        path, commit = str(answer.path), answer.values["commit"]
        with work.database.write() as session:
            finish(session, work.lease, JobStatus.SUCCEEDED)
            added_models.write_downloaded(session, kind, model_id, path, commit)


def fetch_adapter(work: IoWork) -> None:
    """Download a LoRA file, then queue a regular import job for it."""
    args = work.job.arguments(FetchHubAdapterArgs)
    with work.cancelable():
        answer = run_order(work, "fetch_adapter", **args.stored(), folder=str(work.scratch))
        blob = work.store.put_file(answer.path)
        sidecars = _make_sidecars(work, args.repo, answer)
        with work.database.write() as session:
            jobs.require_owner(session, IoJob, work.lease.claim)
            ordered = adapters.order_import(
                session, sha256=blob.sha256, filename=answer.values["name"], sidecars=sidecars
            )
            succeed(session, work.lease, FetchHubAdapterResult(import_id=ordered.key))


def _make_sidecars(work: IoWork, repo: str, answer: HubReply) -> list[StoredSidecar]:
    """Metadata of the repository in the form of sidecar files."""
    stem = str(answer.values["name"]).removesuffix(".safetensors")
    said = answer.values["card"]
    license = _license_of_card(said)
    path = work.scratch / "card.json"
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
    files = {f"{stem}.json": path}
    if answer.values["picture"]:
        image = Path(answer.values["picture"])
        files[f"{stem}{image.suffix.lower()}"] = image
    if config := answer.values.get("config"):
        files[CONFIG_NAME] = Path(config)
    return [
        StoredSidecar(name=name, sha256=work.store.put_file(file).sha256)
        for name, file in files.items()
    ]


def publish_adapter(work: IoWork) -> None:
    """Publish a version of an adapter with a model card."""
    args = work.job.arguments(PublishAdapterArgs)
    with work.database.read() as session:
        version = session.get_one(AdapterVersion, work.subject_id)
        adapter = session.get_one(Adapter, version.adapter_id)
        if adapter.deleted_at is not None:
            raise Conflict(DELETED.format(name=adapter.name))
        card = hub.model_card(session, adapter, version, args)
    files = _files_to_publish(work, card.kohya_file)
    images = _local_images(work, args.pictures)
    prompts = [image.prompt for image in args.pictures]
    card = replace(card, pictures=list(zip(images, prompts, strict=True)))
    paths = {name: str(path) for name, path in (files | images).items()}
    card_json = TypeAdapter(ModelCard).dump_python(card, mode="json")
    with work.cancelable():
        answer = run_order(work, "publish_adapter", **args.stored(), files=paths, card=card_json)
        work.succeed(PublishAdapterResult(**answer.values))


def _files_to_publish(work: IoWork, kohya_file: str) -> dict[str, Path]:
    """The files to publish next to the model card, by name."""
    files = {}
    for form, name in ((FileFormat.KOHYA, kohya_file), (FileFormat.PEFT, PEFT_FILE)):
        folder = work.scratch / form
        folder.mkdir()
        within = replace(work, scratch=folder)
        kind = ExportAdapterArgs(format=form, dtype=DTYPE)
        file = export_jobs.download(within, work.subject_id, kind)
        files[name] = work.store.local_path(file.sha256, folder)
    return files


def _local_images(work: IoWork, images: Sequence[PublishedImage]) -> dict[str, Path]:
    """The images of the model card by their names in the repository, in order."""
    sources = [work.store.local_path(image.sha256, work.scratch) for image in images]
    return {
        f"images/{number}{image_suffix(source)}": source for number, source in enumerate(sources)
    }


def _license_of_card(card: dict[str, str]) -> str:
    """The license of a model card; for `other`, the name given in the card."""
    license = card.get("license", "")
    return card.get("license_name", license) if license == "other" else license
