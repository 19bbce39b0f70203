"""REST: adapters compared, merged, resized, scaled, fused into a base, extracted from two."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import anyio.to_thread
from fastapi import Request, Response
from pydantic import BaseModel, Field, StrictBool

from app.registry.adapters import overlap, service, tools
from app.registry.adapters.resolve import resolve
from app.registry.base_models.service import BaseReference
from app.registry.db import MAX_ID
from app.registry.errors import invalid_field
from app.registry.job_kinds.kinds import (
    FuseAdapterResult,
    FuseOutput,
    ResizeAdapterArgs,
    ScaleAdapterArgs,
    StepProgress,
)
from app.registry.job_kinds.weighted import VersionReference, WeightedAdapter
from app.registry.renders import tool_images
from app.registry.runs.checkpoints import order_average
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import WorkAnswer
from app.web.media import blob_response
from app.web.openapi import FILE_ANSWERS
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.state import AdapterId, Id, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.inference.config import AdapterWeight, BlockWeights
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS, MAX_RENDER_ADAPTERS
from worker.core.words import FusedDtype, FuseLayout, MergeMethod

router = Router(tags=["tools"])

Rank = Annotated[int, Field(ge=1, le=tools.MAX_RANK)]
Portion = Annotated[float, Field(gt=0, le=1)]
NOT_SHOWN = {"done", "total", "sha256", "filename"}
NEEDED = {404: "There is no such adapter, version or base model."}
BASE_NEEDED = NEEDED | {503: "The base model is still being downloaded or inspected."}


class MergeIn(DocumentedModel):
    """Adapters to make into a new one; `linear` is exact, the others need a rank."""

    model_config = example(
        name="Both",
        adapters=[{"id": 1, "weight": 0.8}, {"id": 2, "weight": -0.5}],
        method="svd",
        rank=16,
    )
    name: Name = Field(description="Name of the new adapter.")
    adapters: list[WeightedAdapter] = Field(min_length=2, max_length=MAX_MERGE_ADAPTERS)
    """Adapters with weights."""
    method: MergeMethod = MergeMethod.LINEAR
    """`linear` is exact; `svd`, `ties` and `dare` merge at a rank."""
    rank: Rank | None = Field(None, description="Rank of the result; not for `linear`.")
    density: Portion = Field(0.5, description="Share of each change that TIES and DARE keep.")
    seed: int = Field(0, ge=0, le=2**53, description="Which ones DARE keeps.")


class ResizeIn(BaseModel):
    """A rank, or the share of the energy that every module keeps at least: one of the two."""

    model_config = example(rank=4)
    version: VersionReference = None
    rank: Rank | None = Field(None, description="New rank of every module.")
    energy: Portion | None = Field(None, description="Share of its energy that every module keeps.")
    dynamic: StrictBool = Field(False, description="With energy: a rank per module.")
    use: StrictBool = Field(False, description="True: the result becomes `latest`.")


class ScaleIn(BaseModel):
    """The factors in the blocks of the UNet, as those of `block_weights` of a render."""

    model_config = example(block_weights={"output": 0.5})
    version: VersionReference = None
    block_weights: BlockWeights = Field(description="Factors of the changes; absent ones are 1.")
    use: StrictBool = Field(False, description="True: the result becomes `latest`.")


class AverageIn(BaseModel):
    """The checkpoints of a run whose weight changes are averaged."""

    model_config = example(steps=[20, 40])
    steps: list[Annotated[int, Field(ge=1, le=MAX_ID)]] = Field(
        min_length=2, max_length=MAX_MERGE_ADAPTERS, description="Steps of checkpoints."
    )
    use: StrictBool = Field(False, description="True: the result becomes `latest`.")


class FuseIn(DocumentedModel):
    """The target of a fused adapter; other adapters may be fused with it."""

    model_config = example(name="Ink base", weight=0.8, layout="single", keep="download")
    name: Name = Field(description="Name of the new base model or file.")
    base_model: BaseReference | None = None
    """Id or slug; absent: the adapter's own base."""
    version: VersionReference = None
    weight: AdapterWeight | None = None
    """Weight of the adapter; absent: the usual weight of the version."""
    text_encoder_weight: AdapterWeight | None = None
    """Absent: the same as `weight`."""
    others: list[WeightedAdapter] = Field([], max_length=MAX_MERGE_ADAPTERS - 1)
    """More adapters to fuse with it."""
    layout: FuseLayout = FuseLayout.DIFFUSERS
    """`diffusers`: a folder; `single`: one file for other programs."""
    dtype: FusedDtype | None = None
    """Number type of the weights; absent: fp16, or bf16 for families that need it."""
    keep: FuseOutput = FuseOutput.BASE_MODEL
    """`base_model`: add it to the registry; `download`: a file, kept for 7 days."""


class ExtractIn(BaseModel):
    """Two base models, by id or slug, whose difference becomes an adapter."""

    model_config = example(name="Learned", base="starter", tuned=2, rank=16)
    name: Name = Field(description="Name of the new adapter.")
    base: BaseReference = Field(description="Id or slug of the original base model.")
    tuned: BaseReference = Field(description="Id or slug of the tuned base model.")
    rank: Rank = Field(16, description="Rank of the adapter.")


class ToolImagesOut(BaseModel):
    """The renders of the same prompt and seed before and after a tool."""

    address: ClassVar[str] = "/api/v1/renders/{after}"
    before: int = Field(description="Id of the render before: poll `/renders/{id}`.")
    second: int | None = Field(description="Of a merge: id of the render of its second adapter.")
    after: int = Field(description="Id of the render after.")


class ToolJobOut(WorkAnswer):
    """A tool job."""

    address: ClassVar[str] = "/api/v1/tool-jobs/{id}"
    tool: Literal["merge", "resize", "scale", "fuse", "extract"] = Field(description="The tool.")
    result: dict[str, Any] | None
    """Once it has succeeded: the new adapter (`adapter_id`, `version`, with `energy_min`,
    `energy_mean`, `relative_error`), the new base model (`base_model`), or the `download_url` of
    the file."""


def tool_job_out(job: IoJob) -> ToolJobOut:
    """A tool's job as the API shows it."""
    done = job.status == "succeeded"
    outcome = job.outcome(StepProgress)
    result = {
        "base_model" if key == "base_model_id" else key: value
        for key, value in outcome.stored().items()
        if key not in NOT_SHOWN
    }
    if isinstance(outcome, FuseAdapterResult) and outcome.sha256 is not None:
        result["download_url"] = f"/api/v1/tool-jobs/{job.key}/file"
    return ToolJobOut.of(
        job,
        tool=job.kind.partition("_")[0],
        progress=1.0 if done else progress_of(job),
        result=result if done else None,
    )


def progress_of(job: IoJob) -> float:
    """The finished share of the job, from 0 to 1."""
    return job.outcome(StepProgress).share


@router.post("/adapters/merge", Action.TRAIN, status_code=202, responses=problems(NEEDED))
def merge_adapters(body: MergeIn, session: Writing) -> ToolJobOut:
    """Merge several adapters into a new one."""
    job = tools.order_merge(session, parts=body.adapters, **body.model_dump(exclude={"adapters"}))
    return tool_job_out(job)


@router.post(
    "/runs/{run_id}/checkpoints/average",
    Action.TRAIN,
    status_code=202,
    responses=problems({409: "Only the training state of a checkpoint is stored."}),
)
def average_checkpoints(run_id: Id, body: AverageIn, session: Writing) -> ToolJobOut:
    """Average checkpoints of a run, as the next version of its adapter.

    The mean of their weight changes is cut to the rank of the run; `relative_error` says what that
    costs. `latest` stays where it is, unless you `use` the result.
    """
    return tool_job_out(order_average(session, run_id, body.steps, use=body.use))


@router.post("/adapters/{adapter_id}/resize", Action.TRAIN, status_code=202)
def resize_adapter(adapter_id: AdapterId, body: ResizeIn, session: Writing) -> ToolJobOut:
    """Reduce the rank of an adapter, as its next version.

    `latest` stays where it is, unless you `use` the result.
    """
    order = ResizeAdapterArgs(**body.model_dump(exclude={"version"}))
    return tool_job_out(tools.order_resize(session, adapter_id, order, body.version))


@router.post("/adapters/{adapter_id}/scale", Action.TRAIN, status_code=202)
def scale_adapter(adapter_id: AdapterId, body: ScaleIn, session: Writing) -> ToolJobOut:
    """Save block weights in an adapter, as its next version.

    The version at any weight is what this one is with the block weights. `latest` stays where it
    is, unless you `use` the result.
    """
    order = ScaleAdapterArgs(blocks=body.block_weights, use=body.use)
    return tool_job_out(tools.order_scale(session, adapter_id, order, body.version))


@router.post(
    "/adapters/{adapter_id}/fuse", Action.TRAIN, status_code=202, responses=problems(BASE_NEEDED)
)
def fuse_adapter(adapter_id: AdapterId, body: FuseIn, session: Writing) -> ToolJobOut:
    """Write an adapter, and others with it, into the weights of a base model."""
    first = WeightedAdapter(
        adapter_id=service.get_adapter(session, adapter_id).key,
        version=body.version,
        weight=body.weight,
        text_encoder_weight=body.text_encoder_weight,
    )
    job = tools.order_fuse(
        session,
        body.name,
        [first, *body.others],
        base=body.base_model,
        layout=body.layout,
        dtype=body.dtype,
        keep=body.keep,
    )
    return tool_job_out(job)


@router.post("/base-models/extract", Action.TRAIN, status_code=202, responses=problems(BASE_NEEDED))
def extract_adapter(body: ExtractIn, session: Writing) -> ToolJobOut:
    """Extract the difference of two base models as an adapter."""
    return tool_job_out(tools.order_extract(session, **body.model_dump()))


@router.get("/tool-jobs/{job_id}", Action.LOOK)
def get_tool_job(job_id: Id, session: Reading) -> ToolJobOut:
    """Get the state and the result of a tool job."""
    return tool_job_out(tools.get_job(session, job_id))


@router.post("/tool-jobs/{job_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_tool_job(job_id: Id, session: Writing) -> ToolJobOut:
    """Cancel a tool job.

    No partial result is left.
    """
    return tool_job_out(tools.cancel(session, job_id))


@router.post(
    "/tool-jobs/{job_id}/images",
    Action.DRAW,
    status_code=202,
    responses=problems(
        {
            404: "There is no such job, or what it used was deleted.",
            409: "It made no adapter or base model that can be shown.",
        }
    ),
)
def order_tool_images(job_id: Id, state: State, session: Writing) -> ToolImagesOut:
    """Generate an image before and after a tool.

    All have the same prompt and seed. Ordered again, the same renders are named; poll each.
    """
    keys = [
        side.render.key for side in tool_images.order_images(session, job_id, state.store).sides
    ]
    second = keys[1] if len(keys) > 2 else None
    return ToolImagesOut(before=keys[0], second=second, after=keys[-1])


@router.get(
    "/tool-jobs/{job_id}/file",
    Action.DOWNLOAD,
    response_class=Response,
    responses=FILE_ANSWERS | problems({410: "It was deleted: fused files are kept for 7 days."}),
)
async def download_fused_base(job_id: Id, request: Request, state: State) -> Response:
    """Download a fused base model that was kept as a file."""
    sha256, filename = await anyio.to_thread.run_sync(_find_file, state, job_id)
    return await anyio.to_thread.run_sync(
        lambda: blob_response(
            state, request, sha256, media_type="application/octet-stream", filename=filename
        )
    )


def _find_file(state: AppState, job_id: int) -> tuple[str, str]:
    with state.database.read() as session:
        return tools.fused_file(session, state.store, job_id)


class OverlapIn(DocumentedModel):
    """The adapters to compare, each with each."""

    model_config = example(adapters=[{"id": 1}, {"id": 2}])
    adapters: list[WeightedAdapter] = Field(min_length=2, max_length=MAX_RENDER_ADAPTERS)
    """At least two; weights do not matter."""


@router.post(
    "/adapters/overlap",
    Action.LOOK,
    responses=problems({404: "There is no such adapter or version."}),
)
def compare_adapters(body: OverlapIn, state: State) -> overlap.StackCheck:
    """Compare adapters before they are combined.

    The answer comes at once, and has the status `computing` until a worker has read all of them:
    send the same request again. What was computed once is kept. A pair that failed is computed
    again when it is asked for a minute later.
    """
    with state.database.read() as session:
        made = [resolve(session, one)[1] for one in body.adapters]
    if len({version.key for _, version in made}) < len(made):
        raise invalid_field("adapters", "The same version is named twice. Name different ones.")
    return overlap.check_stack(state.database, made)
