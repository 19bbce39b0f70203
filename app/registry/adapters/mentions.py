"""Other rows that name an adapter or a version: jobs that need it, and what is deleted with it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from app.registry.adapters import tools
from app.registry.blobs.deletion import Deletion
from app.registry.blobs.references import HASH
from app.registry.errors import Conflict
from app.registry.job_kinds.kinds import (
    FuseAdapterArgs,
    JobKind,
    MergeAdaptersArgs,
    PublishAdapterArgs,
)
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs import service as jobs
from app.registry.tables.adapters import AdapterFile, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything
from app.registry.tables.renders import Render, RenderAdapter
from app.registry.tables.runs import Run, Sample
from app.registry.wording import plural

VERSION_KINDS = (  # job kinds whose subject is a version
    JobKind.EXPORT_ADAPTER,
    JobKind.RESIZE_ADAPTER,
    JobKind.SCALE_ADAPTER,
    JobKind.PUBLISH_ADAPTER,
    JobKind.MEASURE_OVERLAP,
    JobKind.EVALUATE_WEIGHTS,
)
PERSONAL_ARGS: dict[str, Any] = {"filename": "deleted file", "sha256": "", "sidecars": []}
PERSONAL_ARGS |= {"name": "deleted"}
PERSONAL_RESULTS = ("name", "slug", "notes", "sha256", "filename")


def adapter_users(session: Session, adapter_id: int, versions: Sequence[int]) -> str:
    """The unfinished jobs that need this adapter, in words; empty if there are none."""
    runs = select(func.count()).select_from(Run)
    with everything(session):
        return _in_words(
            training=session.exec(
                runs.where(col(Run.status).in_(NOT_FINAL), Run.adapter_id == adapter_id)
            ).one(),
            render=len(_renders(session, adapter_id)),
            job=sum(
                _is_of_version(job, versions) or adapter_id in tools.needed_adapters(job)
                for job in _io_jobs(session)
            ),
        )


def version_users(session: Session, version: AdapterVersion) -> str:
    """The unfinished jobs that need this version, in words; empty if there are none."""
    with everything(session):
        return _in_words(
            render=sum(
                any(used.version_id == version.key for used in render.stack)
                for render in _renders(session, version.adapter_id)
            ),
            job=sum(
                _is_of_version(job, [version.key]) or version.key in _version_ids(job)
                for job in _io_jobs(session)
            ),
        )


def _in_words(**numbers: int) -> str:
    return ", ".join(plural(number, word) for word, number in numbers.items() if number)


def _renders(session: Session, adapter_id: int) -> Sequence[Render]:
    using = select(Render).join(RenderAdapter).where(RenderAdapter.adapter_id == adapter_id)
    return session.exec(using.where(col(Render.status).in_(NOT_FINAL))).all()


def _io_jobs(session: Session) -> Sequence[IoJob]:
    return session.exec(select(IoJob).where(col(IoJob.status).in_(NOT_FINAL))).all()


def _is_of_version(job: IoJob, versions: Sequence[int]) -> bool:
    return job.kind in VERSION_KINDS and job.subject_id in versions


def _version_ids(job: IoJob) -> set[int]:
    args = job.readable_arguments()
    if isinstance(args, MergeAdaptersArgs | FuseAdapterArgs):
        return {part.version_id for part in args.parts}
    return set()


def delete_version_rows(
    session: Session, versions: list[AdapterVersion], deletion: Deletion
) -> int:
    """Delete all that refers to these versions, not yet the versions; the number of downloads."""
    keys = [version.key for version in versions]
    forget_jobs(session, versions, deletion)
    connection = session.connection()
    made = sa.update(Run).where(col(Run.adapter_version_id).in_(keys))
    connection.execute(made.values(adapter_version_id=None))
    of_versions = sa.delete(AdapterFile).where(col(AdapterFile.version_id).in_(keys))
    downloads = connection.execute(of_versions.returning(col(AdapterFile.sha256))).scalars().all()
    deletion.files.update(downloads)
    kept = sa.delete(Sample).where(col(Sample.version_id).in_(keys))
    samples = connection.execute(kept.returning(col(Sample.sha256))).scalars().all()
    deletion.files.update(samples)
    deletion.count(len(samples), "sample")
    for version in versions:
        deletion.files.add(version.sha256)
        deletion.files.update(HASH.findall(str(version.details)))
    return len(downloads)


def forget_jobs(session: Session, versions: Collection[AdapterVersion], deletion: Deletion) -> None:
    """Delete what was done with versions, such as exports, and the texts of what made them.

    Their files are added to the deletion: uploads, what was sent along, and what was written.
    """
    made = {(row.adapter_id, row.version) for row in versions}
    keys = [row.key for row in versions]
    ended = select(IoJob).where(col(IoJob.status).not_in(NOT_FINAL))
    subject = col(IoJob.kind).in_(VERSION_KINDS) & col(IoJob.subject_id).in_(keys)
    with everything(session):
        jobs_of_versions = session.exec(ended.where(subject)).all()
        deletion.files.update(*map(_named_files, jobs_of_versions))
        owned = [job.key for job in jobs_of_versions]
        session.connection().execute(sa.delete(IoJob).where(col(IoJob.id).in_(owned)))
        jobs.forget_texts(session, IoJob, owned)
        session.expire_all()
        for job in session.exec(ended):
            if (job.result.get("adapter_id"), job.result.get("version")) in made:
                deletion.files.update(_named_files(job))
                job.args = job.args | {k: v for k, v in PERSONAL_ARGS.items() if k in job.args}
                job.result = {k: v for k, v in job.result.items() if k not in PERSONAL_RESULTS}
                session.add(job)
        session.flush()


def _named_files(job: IoJob) -> list[str]:
    return HASH.findall(json.dumps([job.args, job.result]))


def forget_images(session: Session, hashes: Collection[str]) -> None:
    """Delete these images and their prompts from the arguments of ended publications.

    Raises Conflict if one of them is being published.
    """
    publications = select(IoJob).where(IoJob.kind == JobKind.PUBLISH_ADAPTER)
    with everything(session):
        for job in session.exec(publications.order_by(col(IoJob.id))):
            args = job.readable_arguments()
            if not isinstance(args, PublishAdapterArgs):
                continue
            kept = tuple(image for image in args.pictures if image.sha256 not in hashes)
            if len(kept) == len(args.pictures):
                continue
            if not job.state.is_final:
                raise Conflict(
                    "An image of these is being published on the Hub. Wait until that has ended or "
                    "cancel it, then delete it."
                )
            job.args = args.model_copy(update={"pictures": kept}).stored()
            session.add(job)
        session.flush()
