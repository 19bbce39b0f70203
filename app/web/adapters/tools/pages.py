"""The tools on the page of an adapter: their forms and the progress of their jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import fitting, service, tools
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.kinds import (
    FuseAdapterResult,
    JobKind,
    MergeAdaptersArgs,
    NewVersionResult,
    ResizeAdapterArgs,
    ScaleAdapterArgs,
    StepProgress,
)
from app.registry.renders import tool_images
from app.registry.renders.tool_images import ToolImages
from app.registry.runs.checkpoints import order_average
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import ModelStatus
from app.registry.tables.jobs import IoJob
from app.registry.validation import MAX_NAME
from app.web.access.needs import Action, Router
from app.web.adapters.tools import forms as tool_forms
from app.web.adapters.tools.api import progress_of
from app.web.adapters.tools.forms import DEFAULTS, DTYPES, LAYOUTS, METHODS, ROWS
from app.web.form_reader import INTEGER, FormReader
from app.web.forms import SentForm
from app.web.playground.adapter_picker import AdapterChoices, find_adapter_choices
from app.web.state import Id, OptionalId, Reading, Slug, State, Writing
from app.web.templates import render, render_fragment, wants_fragment
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.words import FusedDtype, MergeMethod

router = Router(include_in_schema=False)


class Tool(StrEnum):
    """The tools that have a form."""

    MERGE = "merge"
    RESIZE = "resize"
    SCALE = "scale"
    FUSE = "fuse"
    EXTRACT = "extract"


ORDERS = {
    Tool.MERGE: tool_forms.merge_order,
    Tool.RESIZE: tool_forms.resize_order,
    Tool.SCALE: tool_forms.scale_order,
    Tool.FUSE: tool_forms.fuse_order,
    Tool.EXTRACT: tool_forms.extract_order,
}


@dataclass(frozen=True)
class SubmittedForm:
    """A submitted form and its errors."""

    tool: Tool
    typed: Mapping[str, str]
    errors: Mapping[str, str]


@dataclass(frozen=True)
class ToolJob:
    """A job of a tool."""

    job: IoJob

    @property
    def percent(self) -> int:
        """The finished share of the job."""
        return round(100 * progress_of(self.job))

    @property
    def tool(self) -> str:
        """The tool, as in its address."""
        return self.job.kind.partition("_")[0]

    @property
    def has_images(self) -> bool:
        """True if what it made can be shown."""
        return tool_images.has_images(self.job)

    @property
    def is_exact(self) -> bool:
        """True for a scaling and for a merge without approximation."""
        args = self.job.readable_arguments()
        if isinstance(args, ScaleAdapterArgs):
            return True
        return isinstance(args, MergeAdaptersArgs) and args.method is MergeMethod.LINEAR

    @property
    def is_beside(self) -> bool:
        """True for a version of a tool that did not become the version in use.

        The first version of an adapter does, as that of a resized checkpoint.
        """
        args, made = self.job.readable_arguments(), self.version
        is_first = made is None or made.version == 1
        if isinstance(args, MergeAdaptersArgs) and args.run_id is None:
            return False  # a new adapter
        if not isinstance(args, ResizeAdapterArgs | ScaleAdapterArgs | MergeAdaptersArgs):
            return False
        return not (args.use or is_first)

    @property
    def version(self) -> NewVersionResult | None:
        """The created version; None for a fused base."""
        result = self.job.outcome(StepProgress)
        return result if isinstance(result, NewVersionResult) else None

    @property
    def fused(self) -> FuseAdapterResult | None:
        """The fused base; None for a created version."""
        result = self.job.outcome(StepProgress)
        return result if isinstance(result, FuseAdapterResult) else None

    @property
    def what(self) -> str:
        """The name of the activity."""
        args = self.job.readable_arguments()
        if isinstance(args, MergeAdaptersArgs) and args.run_id is not None:
            return "Averaging"
        return {
            JobKind.MERGE_ADAPTERS: "Merging",
            JobKind.RESIZE_ADAPTER: "Resizing",
            JobKind.SCALE_ADAPTER: "Scaling",
            JobKind.FUSE_ADAPTER: "Fusing",
            JobKind.EXTRACT_ADAPTER: "Extracting",
        }[JobKind(self.job.kind)]


@dataclass(frozen=True)
class ToolForms:
    """Choices and values of the forms: compatible adapters and base models, all base models.

    Base models are a slug and a name. `values` and `errors` are by tool. `jobs`: those that are
    shown below the forms, `ordered`: the id of the one that was asked for; `shown` names the form
    that is open.
    """

    adapter: Adapter
    version: AdapterVersion
    cover: str | None
    choices: AdapterChoices
    bases: list[tuple[str, str]]
    fitting: list[tuple[str, str]]
    jobs: list[ToolJob]
    ordered: int
    values: Mapping[Tool, Mapping[str, str]]
    errors: Mapping[Tool, Mapping[str, str]]
    shown: str
    layouts: Sequence[tuple[str, str]]
    dtypes: Sequence[tuple[str, str]]
    rows: tuple[int, ...] = ROWS
    methods: tuple[tuple[str, str], ...] = tuple(METHODS)


@dataclass(frozen=True)
class ToolImagesPage:
    """The images before and after a tool; `problem`: why they cannot be generated."""

    tool: ToolJob
    images: ToolImages | None
    problem: str


@router.get("/adapters/{slug}/tools", Action.LOOK)
def forms(
    request: Request, slug: Slug, session: Reading, v: OptionalId = None, job: OptionalId = None
) -> Response:
    """Show the tools of an adapter, as a fragment or as a page."""
    context = _tool_forms(session, slug, v, ordered=job)
    if wants_fragment(request):
        return render_fragment("adapters/_tool_forms.html", context)
    return render(request, "adapters/tools.html", context)


@router.post("/adapters/{slug}/tools/find", Action.LOOK)
def find(slug: Slug, session: Reading, sent: SentForm) -> Response:
    """Search for adapters that the tools can take beside this one."""
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter)
    choices = _find_choices(session, adapter, version, FormReader(sent).text("find"))
    stack_path = f"/adapters/{slug}/tools"
    return render_fragment("playground/_found.html", choices=choices, stack_path=stack_path)


@router.post("/adapters/{slug}/tools/{tool}", Action.TRAIN)
def order(request: Request, slug: Slug, tool: Tool, state: State, sent: SentForm) -> Response:
    """Start the job of a form; answer with its progress, or with the errors of the form."""
    form = FormReader(sent)
    key, errors = None, {}
    try:
        with state.database.write() as session:
            key = ORDERS[tool](session, service.adapter_by_slug(session, slug), form).key
    except (InvalidInput, NotFound) as error:
        errors = error.fields or {"": error.detail}
    if key and not wants_fragment(request):
        address = f"/adapters/{slug}/tools?job={key}#tool-{tool}"
        return RedirectResponse(address, status_code=303)
    typed = SubmittedForm(tool, form.texts, errors)
    version = FormReader(form.texts).whole("version", None)
    with state.database.read() as session:
        context = _tool_forms(session, slug, version, typed, ordered=key)
    status = 422 if errors else 200
    if wants_fragment(request):
        return render_fragment("adapters/_tool_forms.html", context, status=status)
    return render(request, "adapters/tools.html", context, status=status)


@router.post("/runs/{run_id}/checkpoints/average", Action.TRAIN)
def average(request: Request, run_id: Id, session: Writing, sent: SentForm) -> Response:
    """Average the chosen checkpoints of a run, and show the progress."""
    steps = [int(step) for step in map(str, sent.getlist("step")) if INTEGER.fullmatch(step)]
    job = order_average(session, run_id, steps)
    (adapter_id,) = tools.needed_adapters(job)
    slug = service.get_adapter(session, adapter_id).slug
    if wants_fragment(request):
        return render_fragment("adapters/_tool_job.html", tool=ToolJob(job), ordered=job.key)
    return RedirectResponse(f"/adapters/{slug}/tools?job={job.key}#tool-merge", status_code=303)


@router.get("/tool-jobs/{job_id}", Action.LOOK)
def progress(job_id: Id, session: Reading) -> Response:
    """Show the progress of a job."""
    tool = ToolJob(tools.get_job(session, job_id))
    return render_fragment("adapters/_tool_job.html", tool=tool)


@router.get("/tool-jobs/{job_id}/images", Action.LOOK)
def images(request: Request, job_id: Id, session: Reading) -> Response:
    """Show the images before and after a tool, once they are ordered."""
    job = tools.get_job(session, job_id)
    return _images_answer(request, job, tool_images.find_images(session, job))


@router.post("/tool-jobs/{job_id}/images", Action.DRAW)
def order_images(request: Request, job_id: Id, state: State) -> Response:
    """Order the images before and after a tool; those that were ordered are shown."""
    problem, found = "", None
    try:
        with state.database.write() as session:
            found = tool_images.order_images(session, job_id, state.store)
    except AppError as error:
        problem = error.detail
    if not wants_fragment(request) and not problem:
        return RedirectResponse(f"/tool-jobs/{job_id}/images", status_code=303)
    with state.database.read() as session:
        job = tools.get_job(session, job_id)
    return _images_answer(request, job, found, problem)


def _images_answer(
    request: Request, job: IoJob, images: ToolImages | None, problem: str = ""
) -> Response:
    context = ToolImagesPage(ToolJob(job), images, problem)
    if wants_fragment(request):
        return render_fragment("adapters/_tool_images.html", context)
    return render(request, "adapters/tool_images.html", context, status=422 if problem else 200)


@router.post("/tool-jobs/{job_id}/cancel", Action.CONTROL)
def cancel(request: Request, job_id: Id, session: Writing) -> Response:
    """Cancel a job; partial results are removed."""
    tool = ToolJob(tools.cancel(session, job_id))
    if wants_fragment(request):
        return render_fragment("adapters/_tool_job.html", tool=tool)
    return RedirectResponse(request.headers.get("referer", "/adapters"), status_code=303)


def _find_choices(
    session: Session, adapter: Adapter, version: AdapterVersion, words: str = ""
) -> AdapterChoices:
    (kind,) = fitting.kinds(session, [(adapter, version)])
    return find_adapter_choices(session, words, used=[adapter.slug], base_kind=kind)


def _tool_forms(
    session: Session,
    slug: str,
    number: int | None,
    sent: SubmittedForm | None = None,
    *,
    ordered: int | None = None,
) -> ToolForms:
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    every = base_models.list_base_models(session)
    ready = [base for base in every if base.status == ModelStatus.READY]
    (kind,) = fitting.kinds(session, [(adapter, version)], known=every)
    own = next((base.slug for base in ready if base.key == version.base_model_id), "")
    options = (find_family(adapter.base_family) or FALLBACK_FAMILY).facts.options
    usual = options.gpu_precision
    values = DEFAULTS | {
        "dtype": usual.value,
        "base": own,
        "from": own,
        "merge-name": f"{adapter.name} merged"[:MAX_NAME],
        "fuse-name": f"{adapter.name} fused"[:MAX_NAME],
        "version": str(version.version),
        "weight": f"{version.usual_weight:g}",
    }
    rows = {job.key: job for job in tools.active_jobs(session, adapter)}
    rows |= {ordered: tools.get_job(session, ordered)} if ordered else {}
    jobs = [ToolJob(job) for job in rows.values()]
    return ToolForms(
        adapter=adapter,
        version=version,
        cover=next(iter(service.summary(session, adapter).covers), None),
        choices=_find_choices(session, adapter, version),
        bases=[(base.slug, base.name) for base in ready],
        fitting=[(base.slug, base.name) for base in fitting.fitting(kind, ready)],
        jobs=jobs,
        ordered=ordered or 0,
        values={
            tool: defaultdict(str, values | dict(sent.typed if sent and sent.tool is tool else {}))
            for tool in Tool
        },
        errors={tool: sent.errors if sent and sent.tool is tool else {} for tool in Tool},
        layouts=LAYOUTS if options.has_single_file else LAYOUTS[:1],
        dtypes=[one for one in DTYPES if one[0] != FusedDtype.FP16 or one[0] == usual],
        shown=sent.tool if sent else jobs[-1].tool if jobs else "",
    )
