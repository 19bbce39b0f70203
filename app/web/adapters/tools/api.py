"""REST: adapters merged, resized, fused into a base, and extracted from a tuned one."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.registry.adapters import tools
from app.registry.adapters.tools import FuseOutput
from app.registry.adapters.weighted import RowId, VersionReference, WeightedAdapter
from app.registry.jobs.kinds import FuseAdapterResult, StepProgress
from app.registry.jobs.models import IoJob
from app.registry.state import AppState
from app.web.media import blob_response
from app.web.state import Id, State
from worker.core.inference.config import AdapterWeight
from worker.core.words import FusedDtype, FuseLayout, MergeMethod

router = APIRouter(tags=["tools"])

Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
Reference = RowId | Annotated[str, StringConstraints(max_length=1_000)]
NOT_SHOWN = {"done", "total", "sha256", "filename"}


class MergeIn(BaseModel):
    """Adapters to make into a new one; `linear` is exact, the others need a rank."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    adapters: Annotated[list[WeightedAdapter], Field(max_length=100)]
    method: MergeMethod = MergeMethod.LINEAR
    rank: int | None = None
    density: Annotated[float, Field(description="Share of each change TIES and DARE keep.")] = 0.5
    seed: Annotated[int, Field(ge=0, le=2**53, description="Which ones DARE keeps.")] = 0


class ResizeIn(BaseModel):
    """A rank, or the share of the energy that every module keeps at least: one of the two."""

    model_config = ConfigDict(extra="forbid")
    version: VersionReference = None
    rank: int | None = None
    energy: float | None = None
    dynamic: Annotated[bool, Field(description="With energy: a rank for each module.")] = False


class FuseIn(BaseModel):
    """The target of a fused adapter; other adapters may be fused with it."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    base_model: Annotated[
        Reference | None, Field(description="Id or slug; the adapter's own base unless given.")
    ] = None
    version: VersionReference = None
    weight: AdapterWeight = 1.0
    text_encoder_weight: AdapterWeight | None = None
    others: Annotated[list[WeightedAdapter], Field(max_length=100)] = []
    layout: FuseLayout = FuseLayout.DIFFUSERS
    dtype: FusedDtype = FusedDtype.FP16
    keep: FuseOutput = FuseOutput.BASE_MODEL


class ExtractIn(BaseModel):
    """Two base models, by id or slug, whose difference becomes an adapter."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    base: Reference
    tuned: Reference
    rank: int = 16


class ToolJobOut(BaseModel):
    """The state of a tool job; `progress` from 0 to 1, `result` once it has succeeded.

    A result names the new adapter (`adapter_id`, `version`, with `energy_min`, `energy_mean`,
    `relative_error`), the new base (`base_model_id`), or the file's `download_url`.
    """

    id: int
    tool: str
    status: str
    progress: float
    error: str | None
    result: dict[str, Any] | None


def tool_job_out(job: IoJob) -> ToolJobOut:
    """A tool's job as the API shows it."""
    done = job.status == "succeeded"
    outcome = job.outcome(StepProgress)
    result = {key: value for key, value in outcome.stored().items() if key not in NOT_SHOWN}
    if isinstance(outcome, FuseAdapterResult) and outcome.sha256 is not None:
        result["download_url"] = f"/api/v1/tool-jobs/{job.key}/file"
    return ToolJobOut(
        id=job.key,
        tool=job.kind.partition("_")[0],
        status=job.status,
        progress=1.0 if done else progress_of(job),
        error=job.error,
        result=result if done else None,
    )


def progress_of(job: IoJob) -> float:
    """The finished share of the job, from 0 to 1."""
    return job.outcome(StepProgress).share


@router.post("/adapters/merge", status_code=202)
def merge(body: MergeIn, state: State) -> ToolJobOut:
    """Merge several adapters into a new one; poll `/tool-jobs/{id}`."""
    order = tools.MergeOrder(
        name=body.name,
        parts=body.adapters,
        method=body.method,
        rank=body.rank,
        density=body.density,
        seed=body.seed,
    )
    with state.database.write() as session:
        return tool_job_out(tools.order_merge(session, order))


@router.post("/adapters/{adapter_id}/resize", status_code=202)
def resize(adapter_id: Id, body: ResizeIn, state: State) -> ToolJobOut:
    """Resize an adapter to a smaller version; poll `/tool-jobs/{id}`."""
    order = tools.ResizeOrder(**body.model_dump())
    with state.database.write() as session:
        return tool_job_out(tools.order_resize(session, adapter_id, order))


@router.post("/adapters/{adapter_id}/fuse", status_code=202)
def fuse(adapter_id: Id, body: FuseIn, state: State) -> ToolJobOut:
    """Fuse an adapter, and maybe others, into a base model; poll `/tool-jobs/{id}`."""
    first = WeightedAdapter(
        adapter_id=adapter_id,
        version=body.version,
        weight=body.weight,
        text_encoder_weight=body.text_encoder_weight,
    )
    order = tools.FuseOrder(
        name=body.name,
        parts=[first, *body.others],
        base=body.base_model,
        layout=body.layout,
        dtype=body.dtype,
        keep=body.keep,
    )
    with state.database.write() as session:
        return tool_job_out(tools.order_fuse(session, order))


@router.post("/base-models/extract", status_code=202)
def extract(body: ExtractIn, state: State) -> ToolJobOut:
    """Extract the difference of two base models as an adapter; poll `/tool-jobs/{id}`."""
    with state.database.write() as session:
        return tool_job_out(tools.order_extract(session, tools.ExtractOrder(**body.model_dump())))


@router.get("/tool-jobs/{job_id}")
def show(job_id: Id, state: State) -> ToolJobOut:
    """The state of a tool job."""
    with state.database.read() as session:
        return tool_job_out(tools.get_job(session, job_id))


@router.post("/tool-jobs/{job_id}/cancel")
def cancel(job_id: Id, state: State) -> ToolJobOut:
    """Cancel a tool job; no partial result is left."""
    with state.database.write() as session:
        return tool_job_out(tools.cancel(session, job_id))


@router.get("/tool-jobs/{job_id}/file", response_class=Response)
async def file(job_id: Id, request: Request, state: State) -> Response:
    """A fused base model that was kept for download; 410 after 7 days."""
    sha256, filename = await anyio.to_thread.run_sync(_find_file, state, job_id)
    return await anyio.to_thread.run_sync(
        lambda: blob_response(
            state, request, sha256, media_type="application/octet-stream", filename=filename
        )
    )


def _find_file(state: AppState, job_id: int) -> tuple[str, str]:
    with state.database.read() as session:
        return tools.fused_file(session, state.store, job_id)
