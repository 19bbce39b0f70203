"""The files of a fused base model while its job works on them."""

from __future__ import annotations

import re
from pathlib import Path

from app.registry.added_models.service import delete_model_files
from app.registry.db import Database
from app.registry.job_kinds.kinds import FuseAdapterArgs
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.slugs import slugify
from app.registry.tables.jobs import IoJob
from worker.core.words import FuseLayout

FUSED_FOLDER = "fused"  # in the data folder: base models created by fusing
TOKEN_CHARS = 8  # of a claim's token, in the name of what is made under it


def is_fused(source: str, data_dir: Path) -> bool:
    """True if the base model with this source was created here by fusing."""
    return Path(source).parent == (data_dir / FUSED_FOLDER).resolve()


def fused_stem(args: FuseAdapterArgs) -> str:
    """The beginning of the names of a job's files, without its id."""
    return slugify(args.name, fallback="fused")


def fused_ending(args: FuseAdapterArgs) -> str:
    """The ending of the file; empty for a folder."""
    return ".safetensors" if args.layout is FuseLayout.SINGLE else ""


def fused_path(data_dir: Path, job: IoJob, claim: Claim) -> Path:
    """The path that the fused base of this claim is written to.

    It is named by the claim: a worker that lost the job never touches files of the next one.
    """
    args = job.arguments(FuseAdapterArgs)
    token = claim.token[:TOKEN_CHARS]
    return data_dir / FUSED_FOLDER / f"{fused_stem(args)}-{job.key}-{token}{fused_ending(args)}"


def delete_unfinished(database: Database, claim: Claim, data_dir: Path, job: IoJob) -> None:
    """Delete the files of this job, which still runs. Raises LostLease before deleting any.

    Files listed before ownership is confirmed are unregistered: the transaction that registers them
    ends the job.
    """
    start = f"{fused_stem(job.arguments(FuseAdapterArgs))}-{job.key}-"
    ours = re.compile(rf"\.?{re.escape(start)}\w{{{TOKEN_CHARS}}}(\.safetensors)?(\.\w+\.part)?")
    folder = data_dir / FUSED_FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    left = [path for path in found if ours.fullmatch(path.name)]
    with database.write() as session:
        jobs.require_owner(session, IoJob, claim)
    for path in left:
        delete_model_files(path)
