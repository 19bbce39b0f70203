"""REST: jobs of every kind."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import Field

from app.registry.adapters import tools
from app.registry.job_kinds.kinds import EVALUATIONS, JobKind
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import listing
from app.registry.jobs.listing import ListedJob
from app.web.access.needs import Action, Router
from app.web.adapters.hub.api import FetchOut, PublicationOut
from app.web.adapters.imports.api import ImportOut
from app.web.adapters.tools.api import ToolJobOut
from app.web.answers import Answer
from app.web.datasets.auto_caption.api import OrderOut, PreviewOut
from app.web.likeness.api import StyleSearchOut
from app.web.playground.api import RenderOut
from app.web.playground.grids.api import GridOut
from app.web.rest.lists import Part
from app.web.runs.api import RunOut
from app.web.runs.evaluations.api import EvaluationOut
from app.web.runs.start_api import DryRunOut
from app.web.state import Reading

router = Router(tags=["jobs"])

AnyKind = Literal["run", "render", "grid"] | JobKind
ADDRESSES: dict[str, str] = {
    listing.RUN: RunOut.address,
    listing.RENDER: RenderOut.address,
    listing.GRID: GridOut.address,
    JobKind.IMPORT_ADAPTER: ImportOut.address,
    JobKind.FETCH_HUB_ADAPTER: FetchOut.address,
    JobKind.PUBLISH_ADAPTER: PublicationOut.address,
    JobKind.DRY_RUN: DryRunOut.address,
    JobKind.EXPORT_ADAPTER: "/api/v1/adapters/{adapter_id}",
    JobKind.CAPTION_IMAGES: OrderOut.address,
    JobKind.PREVIEW_CAPTION: PreviewOut.address,
    JobKind.MEASURE_IMAGE: StyleSearchOut.address,
    **dict.fromkeys(EVALUATIONS, EvaluationOut.address),
    JobKind.ADVANCE_SWEEP: "/api/v1/sweeps/{subject}",
    **dict.fromkeys(tools.KINDS, ToolJobOut.address),
    **dict.fromkeys((JobKind.INSPECT_BASE, JobKind.DOWNLOAD_BASE), "/api/v1/base-models/{subject}"),
    **dict.fromkeys(
        (JobKind.CHECK_CAPTION_MODEL, JobKind.DOWNLOAD_CAPTION_MODEL),
        "/api/v1/caption-models/{subject}",
    ),
}
"""The address of what each kind of job makes or works on; the others have none."""


class JobOut(Answer):
    """A job of any kind."""

    id: str = Field(description="Its id among all kinds.", examples=["run-12"])
    kind: AnyKind = Field(description="Its kind.")
    status: JobStatus
    """Its status; of a grid, that of the image that is furthest from its end."""
    created_at: datetime = Field(description="When it was queued.")
    finished_at: datetime | None = Field(description="When it ended.")
    url: str | None
    """Address of the run, render, grid, import and so on: it has the progress, the error and the
    result. Null for what the server does by itself."""


def _job_out(job: ListedJob) -> JobOut:
    address = ADDRESSES.get(job.kind)
    if address is None or ("{adapter_id}" in address and job.adapter_id is None):
        return JobOut.of(job, url=None)
    subject, adapter = job.subject_id, job.adapter_id
    url = address.format(id=job.number, subject=subject, dataset_id=subject, adapter_id=adapter)
    return JobOut.of(job, url=url)


@router.get("/jobs", Action.LOOK)
def list_jobs(
    session: Reading,
    part: Part,
    kind: Annotated[
        list[AnyKind],
        Query(max_length=30, description="Only jobs of this kind; may be repeated."),
    ] = [],  # noqa: B006  (FastAPI copies it)
    status: Annotated[
        list[JobStatus],
        Query(max_length=10, description="Only jobs with this status; may be repeated."),
    ] = [],  # noqa: B006
) -> list[JobOut]:
    """List the jobs of all kinds, newest first.

    What is deleted, drafts, and the renders of a grid beside the grid are left out.
    """
    found = listing.list_jobs(
        session, limit=part.size, after=part.position, kinds=kind, statuses=status
    )
    shown = part.cut(found, lambda job: (job.created_at.isoformat(), job.kind, job.number))
    return [_job_out(job) for job in shown]


@router.get("/jobs/{job}", Action.LOOK)
def get_job(
    job: Annotated[str, Path(max_length=60, description="Id of the job, such as `run-12`.")],
    session: Reading,
) -> JobOut:
    """Get a job of any kind."""
    return _job_out(listing.get_job(session, job))
