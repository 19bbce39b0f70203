"""REST: the files of adapters, checked before they are sent, their proofs, and the originals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Query, Request, Response
from pydantic import Field

from app.registry.adapters import service
from app.registry.adapters.downloads import is_refused
from app.registry.blobs.report import report
from app.registry.errors import InvalidInput, NotFound, NotReady
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.media import blob_response
from app.web.openapi import FILE_ANSWERS
from app.web.polling import poll_until_found
from app.web.problems import problems
from app.web.state import AdapterId, State
from worker.core.lora_files.file_names import file_name, original_name
from worker.core.lora_files.proof.result import LoaderResult
from worker.core.words import FileFormat, WeightDtype

router = Router(tags=["files"])

MEDIA_TYPES = {FileFormat.BUNDLE: "application/zip"}
Version = Annotated[
    str | None,
    Query(max_length=60, description="A number or an alias such as `best`; absent: `latest`."),
]
Format = Annotated[
    FileFormat,
    Query(
        alias="format",
        description="`kohya`: for A1111, Forge, ComfyUI, InvokeAI, kohya and diffusers; `peft`: "
        "the diffusers naming; `bundle`: a `.zip` with sidecar and preview.",
    ),
]
Dtype = Annotated[WeightDtype, Query(description="Number type of the weights.")]
FILE_ERRORS = problems(
    {
        422: "The file failed its checks and is not offered; the reason is in `detail`.",
        503: "It is still being written: try again in a moment.",
    }
)


@router.get(
    "/adapters/{adapter_id}/download",
    Action.DOWNLOAD,
    response_class=Response,
    responses=FILE_ANSWERS | FILE_ERRORS,
)
async def download_adapter(
    adapter_id: AdapterId,
    request: Request,
    state: State,
    file_format: Format = FileFormat.KOHYA,
    dtype: Dtype = WeightDtype.FP16,
    version: Version = None,
    with_tags: Annotated[
        bool,
        Query(
            description="Also write the adapter's notes and tags, and the frequency of each tag in "
            "the captions; everyone who has the file can read them."
        ),
    ] = False,
) -> Response:
    """Download the file of an adapter.

    It is written from the canonical tensors and checked before it is sent. A new combination of
    format and dtype is written first, which takes a moment.
    """
    adapter, row = await anyio.to_thread.run_sync(find_version, state, adapter_id, version)
    kind = ExportAdapterArgs(format=file_format, dtype=dtype, with_tags=with_tags)
    found = await proved_file(state, row.key, kind)
    return await anyio.to_thread.run_sync(
        lambda: blob_response(
            state,
            request,
            found.sha256,
            media_type=MEDIA_TYPES.get(file_format, "application/octet-stream"),
            filename=file_name(
                adapter.slug,
                row.version,
                file_format,
                dtype,
                with_tags=with_tags,
                is_step=not adapter.is_listed,
            ),
        )
    )


def find_version(
    state: AppState, adapter_id: int, version: str | None
) -> tuple[Adapter, AdapterVersion]:
    """An adapter and one of its versions, by number or alias."""
    with state.database.read() as session:
        adapter = service.get_adapter(session, adapter_id)
        return adapter, service.get_version(session, adapter, version)


async def proved_file(state: AppState, version_id: int, kind: ExportAdapterArgs) -> AdapterFile:
    """Wait for the checked download; raises NotReady, or InvalidInput with the reason."""
    found = await poll_until_found(_FileRequest(state, version_id, kind).find_or_order)
    if found is None:
        raise NotReady("This file is still being written. Try again in a moment.")
    return found


@dataclass
class _FileRequest:
    """A download that a request waits for; a failed export is ordered again once."""

    state: AppState
    version_id: int
    kind: ExportAdapterArgs
    waits: bool = False  # true once this request has seen or made an active order

    def find_or_order(self) -> AdapterFile | None:
        """The file if it exists; else None after ordering it, or the error of a failed order."""
        with self.state.database.read() as session:
            found = service.find_file(session, self.version_id, self.kind)
        if found is not None and self._is_sound(found):
            return found
        with self.state.database.read() as session:
            order = service.newest_order(session, self.version_id, self.kind)
            if order is not None and order.state is JobStatus.FAILED:
                sentence = f"This file could not be written: {order.error}"
                if is_refused(session, order):
                    raise InvalidInput(sentence)
                if self.waits and order.error_code in (BlobDamaged.code, BlobNotFound.code):
                    raise BlobDamaged(sentence)
                if self.waits:
                    raise NotReady(f"{sentence} Request it again to retry.")
        self.waits = True
        if order is None or not order.state.is_active:
            with self.state.database.write() as session:
                service.order_file(session, self.version_id, self.kind)
        return None

    def _is_sound(self, file: AdapterFile) -> bool:
        """False if the file is damaged or missing: it is then written again from the weights."""
        try:
            self.state.store.checked_stat(file.sha256)
        except (BlobNotFound, BlobDamaged) as error:
            report(self.state.database, error)
            return False
        return True


@router.get(
    "/adapters/{adapter_id}/original",
    Action.DOWNLOAD,
    response_class=Response,
    responses=FILE_ANSWERS,
)
def download_original(
    adapter_id: AdapterId, request: Request, state: State, version: Version = None
) -> Response:
    """Download the file that a version was imported from, byte for byte.

    A version that was not imported has none: 404.
    """
    adapter, row = find_version(state, adapter_id, version)
    return blob_response(
        state,
        request,
        _source_sha256(state, adapter, row),
        media_type="application/octet-stream",
        filename=original_name(adapter.slug, row.version),
    )


def _source_sha256(state: AppState, adapter: Adapter, version: AdapterVersion) -> str:
    sha256 = version.details.get("source_sha256")
    if not isinstance(sha256, str):
        raise NotFound(
            f"Version {version.version} of “{adapter.name}” has no original file: it was made "
            "here, or imported before originals were kept. Use its download."
        )
    if not state.store.exists(sha256):
        raise NotFound(
            f"The original file of version {version.version} of “{adapter.name}” is no longer in "
            "the store. Use its download."
        )
    return sha256


class ProofOut(Answer):
    """The checks of one download."""

    adapter_id: int = Field(description="Its adapter.")
    version: int = Field(description="Number of the version.")
    format: FileFormat = Field(description="Format of the file.")
    dtype: WeightDtype = Field(description="Number type of the weights.")
    sha256: str = Field(description="SHA-256 of the file.")
    size_bytes: int = Field(description="Size of the file.")
    passed: bool = Field(description="True if the file is offered.")
    loaders: list[LoaderResult] = Field(description="How each program reads it.")
    read_back: dict[str, Any] = Field(description="Differences to the registry, read back.")
    loaded: dict[str, Any] | None = Field(description="As the installed diffusers loads it.")
    drawn: dict[str, Any] | None
    """Images of the same seed, generated by diffusers and by Brushwork."""
    not_loaded: str = Field(description="Why diffusers did not load it; empty if it did.")
    not_drawn: str = Field(description="Why no image was generated; empty if one was.")


@router.get("/adapters/{adapter_id}/proof", Action.DOWNLOAD, responses=FILE_ERRORS)
async def get_proof(
    adapter_id: AdapterId,
    state: State,
    file_format: Format = FileFormat.KOHYA,
    dtype: Dtype = WeightDtype.FP16,
    version: Version = None,
) -> ProofOut:
    """Get the checks of a download: how seven programs read it.

    A new combination of format and dtype is written first, which takes a moment.
    """
    adapter, row = await anyio.to_thread.run_sync(find_version, state, adapter_id, version)
    kind = ExportAdapterArgs(format=file_format, dtype=dtype)
    file = await proved_file(state, row.key, kind)
    found = file.proof
    return ProofOut.of(
        file,
        adapter_id=adapter.key,
        version=row.version,
        passed=found.get("passed", False),
        loaders=[LoaderResult(**result) for result in found.get("loaders", [])],
        read_back=found.get("read_back", {}),
        loaded=found.get("loaded"),
        drawn=found.get("drawn"),
        not_loaded=found.get("not_loaded", ""),
        not_drawn=found.get("not_drawn", ""),
    )
