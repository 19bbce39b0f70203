"""Zip archives of LoRA files: each holds weights, with the sidecar files in the same folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from app.registry.archive import Archive
from app.registry.errors import InvalidInput
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile
from worker.core.lora_files.file_names import WEIGHTS_NAME
from worker.core.safetensors_header import MAX_ADAPTER_BYTES

WEIGHTS = ".safetensors"
MAX_WEIGHTS = 100  # files of weights in an archive


def is_archive(filename: str) -> bool:
    """True for the name of a zip archive."""
    return filename.lower().endswith(".zip")


@contextmanager
def unpacked(
    upload: UploadedFile, scratch: Path, endings: Sequence[str]
) -> Iterator[list[list[UploadedFile]]]:
    """The weights and sidecar files (of these endings) of each folder of an archive.

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
            if not member.filename.lower().endswith((WEIGHTS, *endings)):
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
