"""Uploads of LoRA files: stored here, then imported by an io worker.

Only the start of a file is checked here, so that most mistakes are reported immediately. Sidecar
files may come with the weights: `<stem>.json`, `<stem>.civitai.info` and an image. A zip archive
holds both, in the same folder.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from app.registry.adapters import service
from app.registry.archive import Archive
from app.registry.blobs.deletion import discard
from app.registry.db import Session
from app.registry.errors import AppError, Conflict, InvalidInput, QuotaUsedUp, TooLarge
from app.registry.file_names import clean_filename
from app.registry.job_kinds.kinds import StoredSidecar
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile
from app.registry.wording import size_text
from worker.core.lora_files.file_names import CONFIG_NAME, WEIGHTS_NAME, config_beside
from worker.core.safetensors_header import MAX_ADAPTER_BYTES, MAX_ADAPTER_HEADER_BYTES

MAX_SIDECAR_BYTES = {".json": 2**20, ".civitai.info": 2**20}
MAX_IMAGE_BYTES = 16 * 2**20
MAX_SIDECARS = 8  # per LoRA file
MAX_FILES = 100  # per upload
MAX_WEIGHTS = 100  # files of weights in an archive
CHUNK = 2**20
PICKLES = (b"PK", b"\x80")
IMAGE_ENDINGS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".preview.webp", ".webp")
ENDINGS = (".civitai.info", ".json", *IMAGE_ENDINGS)
LONE_CONFIG = (
    "It belongs to one file of weights. Upload both together, and no other .safetensors file."
)
WEIGHTS = ".safetensors"
ACCEPTED = "Only .safetensors files of LoRAs are accepted."


@dataclass(frozen=True)
class ReceivedFile:
    """An uploaded file: the job that imports it, or why it was refused."""

    filename: str
    job: IoJob | None = None
    error: str | None = None


def receive(
    state: AppState,
    upload: UploadedFile,
    *,
    adapter_id: int | None = None,
    base_model_id: int | None = None,
    sidecars: Sequence[UploadedFile] = (),
    allow_loss: bool = False,
) -> IoJob:
    """Store an uploaded file and queue its import. Raises InvalidInput if it is not safetensors.

    With `adapter_id` it becomes the next version of that adapter; with `base_model_id` it must fit
    that base model. `allow_loss`: what a LoRA cannot contain may be lost.
    """
    filename = name_of(upload)
    if is_archive(filename):
        with unpacked(upload, state.settings.scratch) as folders:
            weights, own = _only_weights(folders, filename)
            return receive(
                state,
                weights,
                adapter_id=adapter_id,
                base_model_id=base_model_id,
                sidecars=[*own, *sidecars],
                allow_loss=allow_loss,
            )
    _refuse_other_contents(upload, filename)
    sha256 = _store_file(state, upload, MAX_ADAPTER_BYTES)
    companions = [_store_sidecar(state, sidecar) for sidecar in sidecars[:MAX_SIDECARS]]
    stored = [sidecar for sidecar in companions if sidecar]
    try:
        with state.database.write() as session:
            return service.order_import(
                session,
                sha256=sha256,
                filename=filename,
                adapter_id=adapter_id,
                base_model_id=base_model_id,
                sidecars=stored,
                allow_loss=allow_loss,
            )
    except QuotaUsedUp:
        discard(state, [sha256, *(sidecar.sha256 for sidecar in stored)])
        raise


def receive_path(state: AppState, weights: Path, *, allow_loss: bool = False) -> list[ReceivedFile]:
    """Store a LoRA file of this machine with the sidecars of the same name; queue its import."""
    name, beside = name_of_path(weights), _sidecars_of(weights)
    uploads = [UploadedFile(name, weights)] + [UploadedFile(p.name, p) for p in beside]
    return receive_all(state, uploads, allow_loss=allow_loss)


def name_of_path(weights: Path) -> str:
    """The name under which a LoRA file of this machine is imported.

    Peft gives every file the same name, so that of its folder tells more.
    """
    is_peft = weights.name == WEIGHTS_NAME and _sidecars_of(weights) == [config_beside(weights)]
    return clean_filename(
        f"{weights.resolve().parent.name}{weights.suffix}" if is_peft else weights.name
    )


def _sidecars_of(weights: Path) -> list[Path]:
    """The sidecars of a file; those that are links are left out, unless it is a link as well."""
    companions = [
        path
        for ending in ENDINGS
        for path in (weights.with_suffix(ending), Path(f"{weights}{ending}"))
        if path.is_file()
    ]
    if config := config_beside(weights):
        companions.append(config)
    return [path for path in companions if weights.is_symlink() or not path.is_symlink()]


def receive_all(
    state: AppState,
    uploads: Sequence[UploadedFile],
    *,
    adapter_id: int | None = None,
    allow_loss: bool = False,
) -> list[ReceivedFile]:
    """Store the files of an upload; sidecars are matched to weights by name.

    Archives are unpacked; PEFT's `adapter_config.json` belongs to its `adapter_model.safetensors`,
    or to the only weights that came with it.
    """
    if not uploads:
        raise InvalidInput("Choose a .safetensors file.")
    if len(uploads) > MAX_FILES:
        raise InvalidInput(f"Choose at most {MAX_FILES} files at once.")
    received = []
    archives = [upload for upload in uploads if is_archive(name_of(upload))]
    for archive in archives:
        received += _receive_archive(state, archive, adapter_id=adapter_id, allow_loss=allow_loss)
    uploads = [upload for upload in uploads if upload not in archives]
    companions = [upload for upload in uploads if _sidecar_ending(name_of(upload))]
    weights = [upload for upload in uploads if upload not in companions]
    used: set[int] = set()
    for upload in weights:
        own = [
            sidecar
            for sidecar in companions
            if _belongs_to(sidecar, upload)
            or (name_of(sidecar) == CONFIG_NAME and _has_config(upload, weights))
        ]
        used |= {id(sidecar) for sidecar in own}
        try:
            job = receive(state, upload, adapter_id=adapter_id, sidecars=own, allow_loss=allow_loss)
        except AppError as error:
            received.append(ReceivedFile(name_of(upload), error=error.detail))
        else:
            received.append(ReceivedFile(name_of(upload), job))
    for sidecar in (sidecar for sidecar in companions if id(sidecar) not in used):
        received.append(
            ReceivedFile(
                name_of(sidecar),
                error=LONE_CONFIG
                if name_of(sidecar) == CONFIG_NAME
                else "There is no .safetensors file of the same name. Upload both together.",
            )
        )
    return received


def _receive_archive(
    state: AppState, archive: UploadedFile, *, adapter_id: int | None, allow_loss: bool
) -> list[ReceivedFile]:
    """Receive the files of every folder of an archive."""
    received = []
    try:
        with unpacked(archive, state.settings.scratch) as folders:
            for files in folders:
                received += receive_all(state, files, adapter_id=adapter_id, allow_loss=allow_loss)
    except AppError as error:
        received.append(ReceivedFile(name_of(archive), error=error.detail))
    return received


def _only_weights(
    folders: Sequence[Sequence[UploadedFile]], filename: str
) -> tuple[UploadedFile, list[UploadedFile]]:
    """(weights, sidecars) of an archive with one LoRA file."""
    files = [file for folder in folders for file in folder]
    weights = [file for file in files if not _sidecar_ending(name_of(file))]
    if len(weights) != 1:
        raise _refusal(
            f"“{filename}” contains {len(weights)} LoRA files. Send them one after another."
        )
    return weights[0], [file for file in files if file is not weights[0]]


def _has_config(weights: UploadedFile, others: Sequence[UploadedFile]) -> bool:
    """True if an `adapter_config.json` among the files can only belong to these weights."""
    return name_of(weights) == WEIGHTS_NAME or len(others) == 1


def name_of(upload: UploadedFile) -> str:
    """The file's name without folders, for display."""
    return clean_filename(upload.filename)


def _sidecar_ending(filename: str) -> str | None:
    return next((end for end in ENDINGS if filename.lower().endswith(end)), None)


def _belongs_to(sidecar: UploadedFile, weights: UploadedFile) -> bool:
    name = name_of(sidecar)
    stem = name[: -len(_sidecar_ending(name) or "")]
    return stem in (name_of(weights), name_of(weights).rpartition(".")[0])


def _store_sidecar(state: AppState, upload: UploadedFile) -> StoredSidecar | None:
    """Store a sidecar; None if it is too large."""
    name = name_of(upload)
    limit = MAX_SIDECAR_BYTES.get(_sidecar_ending(name) or "", MAX_IMAGE_BYTES)
    if not _sidecar_ending(name) or _size_of(upload) > limit:
        return None
    return StoredSidecar(name=name, sha256=_store_file(state, upload, limit))


def _store_file(state: AppState, upload: UploadedFile, limit: int) -> str:
    with upload.open() as content, state.store.writer(limit=limit) as writer:
        while chunk := content.read(CHUNK):
            writer.write(chunk)
        return writer.commit().sha256


def cancel_imports(session: Session, job_ids: Iterable[int]) -> None:
    """Cancel these imports; one that has ended stays as it is. Raises NotFound."""
    for job_id in sorted(set(job_ids)):  # one order, so that two calls cannot wait for each other
        with suppress(Conflict):
            service.cancel_import(session, job_id)


def _size_of(upload: UploadedFile) -> int:
    with upload.open() as content:
        return content.seek(0, os.SEEK_END)


def _refuse_other_contents(upload: UploadedFile, filename: str) -> None:
    """Raise InvalidInput if the first bytes or the size show that it is not safetensors."""
    with upload.open() as content:
        head = content.read(10)
    size = _size_of(upload)
    if not head:
        raise _refusal(f"“{filename}” is empty. {ACCEPTED}")
    if head.startswith(b"GGUF"):
        raise _refusal(
            f"“{filename}” is a GGUF file, whose weights are rounded. Upload the .safetensors file "
            "that it was made of."
        )
    if head[8:9] != b"{":  # after the header length, whose bytes can be anything
        if head.startswith(PICKLES):
            raise _refusal(
                f"“{filename}” is a pickle (.pt, .ckpt, .bin) or a zip archive: opening one can "
                f"run code. Save it as .safetensors first. {ACCEPTED}"
            )
        raise _refusal(f"“{filename}” is not a .safetensors file, despite its name. {ACCEPTED}")
    (header,) = struct.unpack("<Q", head[:8])
    if header > size - 8:
        raise _refusal(
            f"“{filename}” is truncated or damaged: its header is longer than the file. Download "
            "it again, then upload it again."
        )
    if header > MAX_ADAPTER_HEADER_BYTES:
        raise _refusal(
            f"The header of “{filename}” takes {size_text(header)}; at most "
            f"{size_text(MAX_ADAPTER_HEADER_BYTES)} are accepted, more than any LoRA needs."
        )
    if size > MAX_ADAPTER_BYTES:
        raise TooLarge(
            f"“{filename}” is larger than {size_text(MAX_ADAPTER_BYTES)}, which no adapter is."
        )


def _refusal(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"file": sentence})


def is_archive(filename: str) -> bool:
    """True for the name of a zip archive."""
    return filename.lower().endswith(".zip")


@contextmanager
def unpacked(upload: UploadedFile, scratch: Path) -> Iterator[list[list[UploadedFile]]]:
    """The weights and sidecar files of each folder of an archive.

    peft calls every file `adapter_model.safetensors`; in an archive it gets the name of its folder,
    or of the archive. The files exist only inside the context. Raises InvalidInput.
    """
    with (
        upload.open() as packed,
        Archive(packed, max_entry_bytes=MAX_ADAPTER_BYTES) as archive,
        temporary_folder(scratch, "import-") as folder,
    ):
        found: dict[str, list[UploadedFile]] = {}
        for number, member in enumerate(archive.members()):
            if not member.filename.lower().endswith((WEIGHTS, *ENDINGS)):
                continue
            path = folder / str(number)
            with path.open("wb") as file:
                for chunk in archive.read(member):
                    file.write(chunk)
            found.setdefault(member.folder, []).append(UploadedFile(member.filename, path))
        weights = sum(_is_weights(file) for files in found.values() for file in files)
        if not 1 <= weights <= MAX_WEIGHTS:
            raise InvalidInput(
                f"The archive must contain 1 to {MAX_WEIGHTS} {WEIGHTS} files. Upload the files "
                "themselves."
            )
        stem = PurePath(upload.filename.replace("\\", "/")).stem
        named = [(PurePath(name).name or stem, files) for name, files in found.items()]
        yield [_with_name(name, files) for name, files in named if any(map(_is_weights, files))]


def _is_weights(file: UploadedFile) -> bool:
    return file.filename.lower().endswith(WEIGHTS)


def _with_name(name: str, files: list[UploadedFile]) -> list[UploadedFile]:
    """The files with peft's weights named after their folder, if they are its only weights."""
    if [file.filename for file in files if _is_weights(file)] != [WEIGHTS_NAME]:
        return files
    return [UploadedFile(f"{name}{WEIGHTS}", f.content) if _is_weights(f) else f for f in files]
