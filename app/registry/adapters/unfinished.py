"""The unfinished jobs that need an adapter or a version, in words."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from app.registry.adapters import tools
from app.registry.adapters.versions.traces import VERSION_KINDS
from app.registry.job_kinds.kinds import FuseAdapterArgs, MergeAdaptersArgs
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything
from app.registry.tables.renders import Render, RenderAdapter
from app.registry.tables.runs import Run
from app.registry.wording import plural


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
