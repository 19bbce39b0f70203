"""The io jobs that write adapters into the LoRA folders of other programs, and remove them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from zipfile import ZipFile

from app.registry.adapters import folders
from app.registry.adapters.folders import IN_THE_WAY, WEIGHTS
from app.registry.adapters.service import get_adapter, get_version
from app.registry.job_kinds.kinds import KeepInFolderArgs, KeepInFolderResult
from worker.core.safetensors_header import replacing
from worker.runtime import export_jobs
from worker.runtime.job_progress import IoWork, RefusedError

SUFFIXES = (WEIGHTS, ".json", ".png")  # the programs find all three by one stem
FOREIGN = (
    "{path} is not a file that Brushwork wrote, or was changed since, so it is left as it is. "
    "Move it away; this goes on by itself then."
)


def run(work: IoWork) -> None:
    """Write or remove the files of a job. Raises RefusedError with what is in the way."""
    args, result = work.job.arguments(KeepInFolderArgs), work.job.outcome(KeepInFolderResult)
    target = folders.require_folder(work.settings, args.folder) / args.file
    known = {*args.hashes, *result.hashes}
    if args.removes:
        with folders.explained(args.folder, target.parent):
            for file in (target.with_suffix(suffix) for suffix in SUFFIXES):
                if _is_ours(file, known):
                    file.unlink(missing_ok=True)
        result = KeepInFolderResult()
    else:
        result = _write(work, args, target, known)
    work.succeed(result)


def _write(
    work: IoWork, args: KeepInFolderArgs, target: Path, known: set[str]
) -> KeepInFolderResult:
    with work.database.read() as session:
        adapter = get_adapter(session, work.job.subject_id or 0)
        version = get_version(session, adapter, args.version)
    file = export_jobs.download(work, version.key, folders.WRITTEN)
    with ZipFile(work.store.local_path(file.sha256, work.scratch)) as bundle:
        members = {Path(name).suffix: name for name in bundle.namelist()}
        hashes = tuple(_sha256(bundle, name) for name in members.values())
        known |= {*hashes}
        # they are ours, however this ends
        work.note(KeepInFolderResult(hashes=tuple(sorted(known))))
        with folders.explained(args.folder, target.parent):
            if not _is_ours(target, known):
                raise RefusedError(IN_THE_WAY, FOREIGN.format(path=target))
            for suffix in (suffix for suffix in SUFFIXES if suffix in members):
                place = target.with_suffix(suffix)
                if _is_ours(place, known):
                    with bundle.open(members[suffix]) as source, replacing(place) as out:
                        shutil.copyfileobj(source, out)
    return KeepInFolderResult(version=version.version, sha256=file.sha256, hashes=hashes)


def _is_ours(target: Path, known: Collection[str]) -> bool:
    """True if there is no such file, or one that was written here and not changed since."""
    if not os.path.lexists(target):
        return True
    if target.is_symlink() or not target.is_file():
        return False
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in known


def _sha256(bundle: ZipFile, name: str) -> str:
    with bundle.open(name) as member:
        return hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]
