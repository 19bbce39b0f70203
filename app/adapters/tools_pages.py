"""The tools on the page of an adapter: forms, and how their work goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlmodel import Session
from starlette.responses import RedirectResponse, Response

from app.adapters import service, tools
from app.adapters.models import Adapter, AdapterVersion
from app.adapters.tools import FusedDtype, Keep, Layout, Method, Part
from app.adapters.tools_api import progress_of
from app.base_models import service as base_models
from app.base_models.models import BaseModel, BaseModelStatus
from app.errors import AppError, InvalidInput, NotFound
from app.forms import SentForm
from app.jobs.models import IoJob
from app.state import MAX_ID, AppState, Id, State
from app.web import render, render_fragment, wants_fragment

router = APIRouter(include_in_schema=False)

OptionalId = Annotated[int | None, Query(ge=1, le=MAX_ID)]
WHOLE = re.compile(r"-?\d{1,8}", re.ASCII)
ROWS = (1, 2, 3)
METHODS = [
    ("linear", "Add up exactly (the ranks add up, too)"),
    ("svd", "Add up at a rank you choose (SVD)"),
    ("ties", "TIES: only where they agree"),
    ("dare", "DARE: a random part of each"),
]
LAYOUTS = [
    ("base_model diffusers", "New base model here, as a diffusers folder"),
    ("base_model single", "New base model here, as a single file"),
    ("download single", "Single .safetensors file to download"),
]
DTYPES = [("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("keep", "as the base has it")]
DEFAULTS = {
    "weight": "1",
    "method": "linear",
    "rank": "16",
    "density": "0.5",
    "seed": "0",
    **{f"other-{row}": "" for row in ROWS},
    **{f"weight-{row}": "1" for row in ROWS},
    "text-weight": "",
    **{f"text-weight-{row}": "" for row in ROWS},
    "merge-name": "",
    "resize-rank": "",
    "energy": "",
    "dynamic": "",
    "fuse-name": "",
    "fuse-weight": "1",
    "base": "",
    "output": "base_model diffusers",
    "dtype": "fp16",
    "extract-name": "",
    "from": "",
    "tuned": "",
    "extract-rank": "16",
}


@dataclass(frozen=True)
class ToolJob:
    """How the work of a tool goes, in words."""

    job: IoJob
    percent: int

    @property
    def is_active(self) -> bool:
        """True while it waits or is at work."""
        return self.job.state.is_active

    @property
    def what(self) -> str:
        """What it does."""
        return {
            tools.MERGE: "Merging",
            tools.RESIZE: "Resizing",
            tools.FUSE: "Fusing",
            tools.EXTRACT: "Extracting",
        }[self.job.kind]


@dataclass(frozen=True)
class ToolForms:
    """What the forms offer: other adapters of the family, bases, and what was typed."""

    adapter: Adapter
    version: AdapterVersion
    others: list[Adapter]
    bases: list[BaseModel]
    fitting: list[BaseModel]
    active: list[ToolJob]
    values: dict[str, str]
    errors: dict[str, str]
    rows: tuple[int, ...] = ROWS
    methods: tuple[tuple[str, str], ...] = tuple(METHODS)
    layouts: tuple[tuple[str, str], ...] = tuple(LAYOUTS)
    dtypes: tuple[tuple[str, str], ...] = tuple(DTYPES)


@dataclass(frozen=True)
class ToolsPage:
    """The forms as a page of their own, with the work that was ordered last."""

    forms: ToolForms
    tool: ToolJob | None


@dataclass(frozen=True)
class ToolFragment:
    """How the work of a tool goes; it asks again by itself until that has ended."""

    tool: ToolJob


@dataclass(frozen=True)
class ToolRefused:
    """Why nothing was ordered."""

    errors: dict[str, str]


@router.get("/adapters/{slug}/tools")
def forms(
    request: Request, slug: str, state: State, v: OptionalId = None, job: OptionalId = None
) -> Response:
    """The tools of an adapter: a part of its page, or a page of its own."""
    with state.database.read() as session:
        context = _forms(session, slug, v)
        tool = _tool(tools.get_job(session, job)) if job else None
    if wants_fragment(request):
        return render_fragment("adapters/_tool_forms.html", context)
    return render(request, "adapters/tools.html", ToolsPage(context, tool))


@router.post("/adapters/{slug}/tools/merge")
def merge(request: Request, slug: str, state: State, sent: SentForm) -> Response:
    """Order a merge of this adapter with others."""
    return _ordered(request, slug, state, sent, _merge_order)


@router.post("/adapters/{slug}/tools/resize")
def resize(request: Request, slug: str, state: State, sent: SentForm) -> Response:
    """Order a smaller version of this adapter."""
    return _ordered(request, slug, state, sent, _resize_order)


@router.post("/adapters/{slug}/tools/fuse")
def fuse(request: Request, slug: str, state: State, sent: SentForm) -> Response:
    """Order a base with this adapter in its weights."""
    return _ordered(request, slug, state, sent, _fuse_order)


@router.post("/adapters/{slug}/tools/extract")
def extract(request: Request, slug: str, state: State, sent: SentForm) -> Response:
    """Order an adapter of what two bases differ by."""
    return _ordered(request, slug, state, sent, _extract_order)


@router.get("/tool-jobs/{job_id}")
def progress(job_id: Id, state: State) -> Response:
    """How the work goes."""
    with state.database.read() as session:
        tool = _tool(tools.get_job(session, job_id))
    return render_fragment("adapters/_tool_job.html", ToolFragment(tool))


@router.post("/tool-jobs/{job_id}/cancel")
def cancel(request: Request, job_id: Id, state: State) -> Response:
    """End the work; nothing half done is left."""
    with state.database.write() as session:
        tool = _tool(tools.cancel(session, job_id))
    if wants_fragment(request):
        return render_fragment("adapters/_tool_job.html", ToolFragment(tool))
    return RedirectResponse(request.headers.get("referer", "/adapters"), status_code=303)


def _ordered(
    request: Request, slug: str, state: AppState, sent: Mapping[str, Any], order: Any
) -> Response:
    """The answer to a form: how the work goes, or what is wrong with what was typed."""
    typed = {key: str(value).strip() for key, value in sent.items()}
    try:
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            job: IoJob = order(session, adapter, typed)
            tool = _tool(job)
    except (InvalidInput, NotFound) as error:
        return _refused(request, slug, state, typed, error)
    if wants_fragment(request):
        return render_fragment("adapters/_tool_job.html", ToolFragment(tool))
    return RedirectResponse(f"/adapters/{slug}/tools?job={tool.job.key}", status_code=303)


def _refused(
    request: Request, slug: str, state: AppState, typed: dict[str, str], error: AppError
) -> Response:
    errors = error.fields or {"": error.detail}
    if wants_fragment(request):
        return render_fragment("adapters/_tool_refused.html", ToolRefused(errors), status=422)
    with state.database.read() as session:
        context = _forms(session, slug, None, typed, errors)
    return render(request, "adapters/tools.html", ToolsPage(context, None), status=422)


def _merge_order(session: Session, adapter: Adapter, typed: Mapping[str, str]) -> IoJob:
    weights = _number(typed, "weight"), _optional(typed, "text-weight")
    parts = [Part(adapter.key, *weights, version=_whole(typed, "version"))]
    for row in ROWS:
        if reference := typed.get(f"other-{row}", ""):
            slug, _, name = reference.partition("@")
            try:
                other = service.adapter_by_slug(session, slug.strip())
            except NotFound as error:
                sentence = f"There is no adapter “{slug[:80]}”."
                raise InvalidInput(sentence, fields={f"other-{row}": sentence}) from error
            try:
                number = service.get_version(session, other, name or None).version
            except NotFound as error:
                raise InvalidInput(error.detail, fields={f"other-{row}": error.detail}) from error
            weights = _number(typed, f"weight-{row}"), _optional(typed, f"text-weight-{row}")
            parts.append(Part(other.key, *weights, version=number))
    method = _choice(Method, typed, "method")
    order = tools.MergeOrder(
        name=typed.get("merge-name", ""),
        parts=parts,
        method=method,
        rank=None if method is Method.LINEAR else _whole(typed, "rank"),
        density=_number(typed, "density"),
        seed=_whole(typed, "seed") or 0,
    )
    return tools.order_merge(session, order)


def _resize_order(session: Session, adapter: Adapter, typed: Mapping[str, str]) -> IoJob:
    energy = _number(typed, "energy") / 100 if typed.get("energy") else None
    order = tools.ResizeOrder(
        version=_whole(typed, "version"),
        rank=_whole(typed, "resize-rank"),
        energy=energy,
        dynamic=bool(typed.get("dynamic")),
    )
    return tools.order_resize(session, adapter.key, order)


def _fuse_order(session: Session, adapter: Adapter, typed: Mapping[str, str]) -> IoJob:
    keep, _, layout = typed.get("output", "").partition(" ")
    order = tools.FuseOrder(
        name=typed.get("fuse-name", ""),
        parts=[Part(adapter.key, _number(typed, "fuse-weight"), version=_whole(typed, "version"))],
        base=typed.get("base") or None,
        layout=_choice(Layout, {"output": layout}, "output"),
        dtype=_choice(FusedDtype, typed, "dtype"),
        keep=_choice(Keep, {"output": keep}, "output"),
    )
    return tools.order_fuse(session, order)


def _extract_order(session: Session, adapter: Adapter, typed: Mapping[str, str]) -> IoJob:
    order = tools.ExtractOrder(
        name=typed.get("extract-name", ""),
        base=typed.get("from", ""),
        tuned=typed.get("tuned", ""),
        rank=_whole(typed, "extract-rank") or 0,
    )
    return tools.order_extract(session, order)


def _forms(
    session: Session,
    slug: str,
    number: int | None,
    typed: Mapping[str, str] | None = None,
    errors: dict[str, str] | None = None,
) -> ToolForms:
    adapter = service.adapter_by_slug(session, slug)
    version = service.get_version(session, adapter, number)
    every = base_models.list_base_models(session)
    ready = [base for base in every if base.status == BaseModelStatus.READY]
    own = next((base.slug for base in ready if base.key == version.base_model_id), "")
    values = DEFAULTS | {
        "base": own,
        "from": own,
        "merge-name": f"{adapter.name} merged"[: tools.MAX_NAME],
        "fuse-name": f"{adapter.name} fused"[: tools.MAX_NAME],
        "version": str(version.version),
    }
    return ToolForms(
        adapter=adapter,
        version=version,
        others=tools.suggested(session, adapter),
        bases=ready,
        fitting=[base for base in ready if base.family == adapter.base_family],
        active=[_tool(job) for job in tools.active_jobs(session, adapter)],
        values=values | dict(typed or {}),
        errors=errors or {},
    )


def _tool(job: IoJob) -> ToolJob:
    return ToolJob(job, round(100 * progress_of(job)))


def _number(typed: Mapping[str, str], name: str) -> float:
    text = typed.get(name, DEFAULTS.get(name, ""))
    try:
        return float(text.replace(",", "."))
    except ValueError:
        sentence = f"“{text[:40]}” is not a number."
        raise InvalidInput(sentence, fields={name: sentence}) from None


def _optional(typed: Mapping[str, str], name: str) -> float | None:
    """The number that was typed; None when the field was left empty."""
    return _number(typed, name) if typed.get(name) else None


def _whole(typed: Mapping[str, str], name: str) -> int | None:
    """The whole number that was typed; None when the field was left empty."""
    text = typed.get(name, "")
    if not text:
        return None
    if not WHOLE.fullmatch(text):
        sentence = f"“{text[:40]}” is not a whole number."
        raise InvalidInput(sentence, fields={name: sentence})
    return int(text)


def _choice(kind: Any, typed: Mapping[str, str], name: str) -> Any:
    try:
        return kind(typed.get(name, ""))
    except ValueError:
        sentence = "This choice is not one of those offered."
        raise InvalidInput(sentence, fields={name: sentence}) from None
