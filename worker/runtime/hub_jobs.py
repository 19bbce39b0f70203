"""The io jobs that access the Hugging Face Hub, each in a process of its own.

That is stopped on shutdown, cancel or a lost lease. Workers themselves are offline
(HF_HUB_OFFLINE=1), so that no library downloads anything implicitly.
"""

from __future__ import annotations

import json
import sys
import time
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
    ByteProgress,
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
from worker.core.hub.messages import (
    CANCEL,
    DONE,
    FAILED,
    LEFT,
    PEFT_FILE,
    HubReply,
    HubRequest,
    ModelCard,
)
from worker.core.lora_files.file_names import CONFIG_NAME
from worker.core.words import FileFormat, WeightDtype
from worker.runtime import export_jobs
from worker.runtime.device import child_environment
from worker.runtime.job_progress import (
    IoWork,
    JobCanceled,
    RefusedError,
    WorkerStopping,
    finish,
    succeed,
)
from worker.runtime.line_process import Ended, LineProcess

COMMAND = (sys.executable, "-P", "-m", "worker.core.hub")
WRITE_SECONDS = 0.5  # between two writes of the progress
LOOK_SECONDS = 0.25  # between two looks at whether to stop
UNDO_SECONDS = 20.0  # for the Hub to finish a commit, or to delete a new repository
ENDED = "The Hub process ended with exit code {code}. See the worker's log."
UNSURE = "The Hub did not answer in time. Check on huggingface.co whether files are left there."
OFF = "Hugging Face access is off on this worker. An administrator can enable it: BRUSHWORK_HUB=on."
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


def run_order(work: IoWork, what: str, **values: Any) -> HubReply:
    """Run an order; return the final answer of the Hub process. Its progress is written to the job.

    Raises RefusedError, WorkerStopping and LostLease; JobCanceled with what could not be undone.
    """
    settings = work.settings
    if settings.hub == "off":
        raise RefusedError("hub_off", OFF)
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    order = HubRequest(what, settings.hub_endpoint.rstrip("/"), token, values)
    watch, progress, written_at = work.watch(), None, 0.0
    environment = _process_environment(order.endpoint)
    with LineProcess(COMMAND, environment, HubReply.read) as process:
        process.write(order.line().encode())
        while True:
            answer = process.receive(LOOK_SECONDS)
            if isinstance(answer, Ended):
                raise RuntimeError(ENDED.format(code=answer.code))
            if answer is not None and answer.kind == DONE:
                return answer
            if answer is not None and answer.kind == FAILED:
                raise RefusedError(answer.values["code"], answer.values["error"])
            progress = answer.values if answer is not None else progress
            try:
                watch()
            except JobCanceled:
                return _cancel(process)
            if progress is not None and time.monotonic() - written_at > WRITE_SECONDS:
                work.note(ByteProgress(**progress))
                progress, written_at = None, time.monotonic()


def _cancel(process: LineProcess[HubReply]) -> HubReply:
    """Cancel the order and raise JobCanceled; return the answer if it is too late."""
    process.write(f"{CANCEL}\n".encode())
    end = time.monotonic() + UNDO_SECONDS
    left = ""
    while not isinstance(answer := process.receive(end - time.monotonic()), Ended):
        if answer is None:
            left = UNSURE
            break
        if answer.kind == DONE:
            return answer
        if answer.kind == FAILED and answer.values["code"] == LEFT:
            left = answer.values["error"]
    raise JobCanceled(**({"error": left, "error_code": LEFT} if left else {}))


def _process_environment(endpoint: str) -> dict[str, str]:
    return child_environment(1) | {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP can be resumed within a file, and stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_ENDPOINT": endpoint,  # the token may be sent to this host
    }
