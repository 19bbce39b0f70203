"""Operations on renders: create, find, cancel. Lists of them are in `listing`."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from app.registry.adapters import fitting
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.base_models import precisions
from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE, size_note, size_problem
from app.registry.errors import InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.jobs import service as jobs
from app.registry.jobs.presence import present_workers
from app.registry.renders import results, sources
from app.registry.renders import search as search  # writes the keys of stored renders
from app.registry.renders.lora_tags import take_tags
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import FoundSource
from app.registry.renders.strips import MAX_STRIP_ADAPTERS, Row, fill_rows, strip_problem
from app.registry.runs.requests import field_reasons
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import Adapter
from app.registry.tables.base_models import BaseModel
from app.registry.tables.renders import Render, RenderAdapter, RenderImage
from app.registry.validation import named_reasons
from worker.core.bases.family import BaseFamily
from worker.core.inference.config import (
    DEFAULT_STRENGTH,
    MAX_COUNT,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    SAMPLER_VERSION,
    SIDE_STEP,
    RenderConfig,
)
from worker.core.inference.prompt_syntax import PROMPT_VERSION, is_simple
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS
from worker.core.training.presets import default_guidance
from worker.core.words import RenderPrecision, SamplerName

MAX_RANDOM_SEED = MAX_SEED - MAX_COUNT


def guidance_for(base: BaseModel) -> float:
    """The guidance scale of a request that names none."""
    return default_guidance(base.resolution or USUAL_SIDE)


def create_render(session: Session, request: RenderRequest, store: BlobStore) -> Render:
    """Queue a render, and on request its twin without adapters if that differs.

    Each of them is finished at once if `store` has the images of an equal request.
    """
    render, twin, source = _plan_render(session, request)
    if source is not None:
        sources.remember(session, source)
    if twin is not None:
        render.twin_id = _store_render(session, twin, store).key
    store_planned(session, render, store)
    if twin is not None:  # what was asked for comes first
        twin.created_at = render.created_at + timedelta(microseconds=1)
        session.flush()
    return render


def plan_single(session: Session, request: RenderRequest) -> Render:
    """The row of a render without twin, not stored. Raises InvalidInput for every bad field."""
    return _plan_render(session, request.model_copy(update={"twin": False}))[0]


def store_planned(session: Session, render: Render, store: BlobStore) -> Render:
    """Store a planned render: queued, or finished if `store` has the images of an equal one."""
    _store_render(session, render, store)
    link_adapters(session, render)
    return render


def link_adapters(session: Session, render: Render) -> None:
    """Let the pages of its adapters find a stored render."""
    used = {used.adapter_id for used in render.stack}
    here = session.exec(select(Adapter.id).where(col(Adapter.id).in_(used)))
    for adapter_id in used.intersection(here):
        session.add(RenderAdapter(adapter_id=adapter_id, render_id=render.key))
    session.flush()


def find_finished(session: Session, request: RenderRequest) -> Render | None:
    """The newest finished render of an equal request, rather one with a twin; None: there is none.

    Raises InvalidInput like `create_render`.
    """
    planned, *_ = _plan_render(session, request)
    query = (
        select(Render)
        .where(
            Render.cache_key == planned.cache_key,
            Render.precision == planned.precision,
            Render.status == JobStatus.SUCCEEDED,
            col(Render.deleted_at).is_(None),
        )
        .order_by(col(Render.twin_id).is_(None), col(Render.id).desc())
    )
    return session.exec(query.limit(1)).first()


def _plan_render(
    session: Session, request: RenderRequest
) -> tuple[Render, Render | None, FoundSource | None]:
    """The rows of a render and of its twin, not stored, and the image they start from.

    Raises InvalidInput for every bad field.
    """
    fields: dict[str, str] = {}
    asked = len(request.adapters)
    try:
        request = _with_named(session, request)
    except InvalidInput as error:
        fields |= error.fields
    limit = MAX_RENDER_ADAPTERS if request.weights is None else MAX_STRIP_ADAPTERS
    stack, made = _resolve_stack(session, request.adapters, fields, limit=limit)
    source = _find_source(session, request, fields)
    base = None
    try:
        base = _base_for(session, request, made)
        base_models.require_ready(base)
        _check_fit(session, base, made)
    except InvalidInput as error:
        fields |= error.fields
    config = None
    if base is not None:
        skip = _trained_skip(stack) if request.clip_skip is None else request.clip_skip
        config = _check_config(request, base, fields, clip_skip=skip, source=source)
        if base.family == BaseFamily.SDXL and config is not None and config.clip_skip > 1:
            fields["clip_skip"] = (
                "SDXL always reads the second-to-last layer of its text encoders: leave CLIP skip "
                "empty."
            )
    weights = None
    if request.weights is not None and "adapters" not in fields:
        weights = fill_rows(request.weights, [used.weight for used in stack], asked=asked)
        if problem := strip_problem(weights, len(stack)):
            fields["weights"] = problem
    if fields or base is None or config is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    precision = precisions.expected_precision(session, base)
    has_twin = request.twin and not all(used.is_off for used in stack)
    twin = _render_row(base, config, [], precision, source=source) if has_twin else None
    render = _render_row(base, config, stack, precision, weights, source=source)
    return render, twin, source


def _store_render(session: Session, render: Render, store: BlobStore) -> Render:
    """Store the render as finished if its images are cached, else queue it."""
    cached = results.find_cached_images(session, render, store)
    if cached is None:
        return jobs.enqueue(session, render)
    results.store_cached_render(session, render, cached)
    return render


def _with_named(session: Session, request: RenderRequest) -> RenderRequest:
    """The request with the LoRA tags moved from the prompt to the stack."""
    prompt, named = take_tags(session, request.prompt)
    stack = [*request.adapters, *named]
    return request.model_copy(update={"prompt": prompt, "adapters": stack})


def _resolve_stack(
    session: Session, stack: Sequence[WeightedAdapter], fields: dict[str, str], *, limit: int
) -> tuple[list[ResolvedAdapter], list[AdapterAndVersion]]:
    """The stored form of each adapter, and their rows; errors are added to `fields`."""
    if len(stack) > limit:
        fields["adapters"] = f"At most {limit} adapters can be combined."
        return [], []
    found = []
    for named in stack:
        try:
            found.append(resolve(session, named))
        except NotFound as error:
            fields["adapters"] = error.detail
    return [resolved for resolved, _ in found], [made for _, made in found]


def _find_source(
    session: Session, request: RenderRequest, fields: dict[str, str]
) -> FoundSource | None:
    """The image to start from; errors are added to `fields`."""
    if request.source is None:
        if request.strength is not None:
            fields["strength"] = "A strength needs an image to start from."
        return None
    try:
        return sources.find_source(session, request.source)
    except NotFound:
        fields["source"] = sources.GONE
        return None


def _trained_skip(stack: Sequence[ResolvedAdapter]) -> int:
    """The CLIP skip the adapters were trained with, the highest if they differ.

    Weights do not matter: a weight of zero must not change the text encoding.
    """
    return max((used.clip_skip for used in stack), default=1)


def _base_for(
    session: Session, request: RenderRequest, made: Sequence[AdapterAndVersion]
) -> BaseModel:
    """The requested base model, else that of the adapters, else the built-in one."""
    own = usual_base(session, made) if request.base_model is None else None
    return own or base_models.find_base_model(session, request.base_model)


def usual_base(session: Session, made: Sequence[AdapterAndVersion]) -> BaseModel | None:
    """The base model of the first adapter whose base model is known.

    If none is known or it is retired, the oldest base model that fits the first adapter; else the
    retired one or None.
    """
    known = next((version.base_model_id for _, version in made if version.base_model_id), None)
    base = None if known is None else base_models.get_base_model(session, known)
    if not made or (base is not None and not base.is_retired):
        return base
    (kind,) = fitting.kinds(session, made[:1])
    return next(iter(fitting.fitting(kind, base_models.list_base_models(session))), base)


def _check_fit(session: Session, base: BaseModel, made: Sequence[AdapterAndVersion]) -> None:
    """Raise InvalidInput that names every adapter that does not fit, and what it fits."""
    bases = base_models.list_base_models(session) if made else []
    kinds = fitting.kinds(session, made, known=bases)
    found = (
        fitting.misfit(adapter, kind, base, bases)
        for (adapter, _), kind in zip(made, kinds, strict=True)
    )
    if sentence := " ".join(dict.fromkeys(filter(None, found))):
        raise InvalidInput(sentence, fields={"adapters": sentence})


def _check_config(
    request: RenderRequest,
    base: BaseModel,
    fields: dict[str, str],
    *,
    clip_skip: int,
    source: FoundSource | None,
) -> RenderConfig | None:
    side = base.resolution or USUAL_SIDE
    usual = {
        "seed": secrets.randbelow(MAX_RANDOM_SEED),
        "guidance": guidance_for(base),
        "width": side,
        "height": side,
    }
    values = usual | _asked(request) | {"clip_skip": clip_skip}
    if source is None:
        values["strength"] = None
    else:
        sides = sources.size_like(source, side, request.width, request.height)
        values |= dict(zip(("width", "height"), sides, strict=True))
        values.setdefault("strength", DEFAULT_STRENGTH)
    try:
        config = RenderConfig(**values)
    except ValidationError as error:
        fields |= field_reasons(error)
        _explain_sides(base, fields, width=values["width"], height=values["height"])
        return None
    if reason := size_problem(base, config.width or side, config.height or side):
        fields["width"] = reason
        return None
    if config.seed + config.count - 1 > MAX_SEED:
        fields["seed"] = (
            f"Each image has the next seed, so with {config.count} images it is "
            f"{MAX_SEED - config.count + 1:,} at most."
        )
        return None
    return config


def _asked(request: RenderRequest) -> dict[str, Any]:
    """The settings that a request names."""
    named = ((name, getattr(request, name)) for name in RenderConfig.model_fields)
    return {name: value for name, value in named if value is not None}


def _explain_sides(base: BaseModel, fields: dict[str, str], **sides: Any) -> None:
    """Say in the errors of invalid sides what to choose: for a size that is too large, a smaller.

    Else the nearest valid side.
    """
    if not sides.keys() & fields.keys():
        return
    nearest = {name: sources.nearest_side(typed) for name, typed in sides.items()}
    usual = base.resolution or USUAL_SIDE
    if reason := size_problem(base, *(side or usual for side in nearest.values())):
        typed = (int(sides[name]) if side else usual for name, side in nearest.items())
        for name in sides:
            fields.pop(name, None)
        fields["width"] = size_problem(base, *typed) or reason
        return
    for name, side in nearest.items():
        if name in fields and side:
            fields[name] = (
                f"Use a multiple of {SIDE_STEP} from {MIN_SIDE} to {MAX_SIDE:,}; the nearest "
                f"is {side:,}."
            )


def _render_row(
    base: BaseModel,
    config: RenderConfig,
    stack: Sequence[ResolvedAdapter],
    precision: RenderPrecision | None,
    weights: Sequence[Row] | None = None,
    *,
    source: FoundSource | None,
) -> Render:
    values = config.model_dump(exclude_none=True)
    if weights is not None:
        values |= {"weights": [list(row) for row in weights], "count": len(weights)}
    if source is not None:
        values |= {"source_sha256": source.sha256}
    return Render(
        base_model_id=base.key,
        adapters=[used.for_render() for used in stack],
        cache_key=_cache_key(base, values, stack),
        precision=precision,
        note=size_note(base, values["width"], values["height"]) or None,
        **values,
    )


def _cache_key(base: BaseModel, values: dict[str, Any], stack: Sequence[ResolvedAdapter]) -> str:
    """The cache key: identical requests have equal keys; adapters count by their hash.

    The sampler's version is part of it, so that images of an older sampler are not reused. The
    precision is a column beside it, because only the worker knows it for certain. The usual sampler
    is left out, and the version of the prompt's syntax where there is none: keys are older.
    """
    prompts = (values["prompt"], values["negative_prompt"])
    if not all(is_simple(prompt) for prompt in prompts):
        values = values | {"prompt_version": PROMPT_VERSION}
    if values["sampler"] is SamplerName.DDIM:
        values = {name: value for name, value in values.items() if name != "sampler"}
    if "weights" in values:
        used = [_key_of(entry) for entry in stack]  # the weights are in this order
    else:
        used = sorted(_key_of(entry) for entry in stack if not entry.is_off)
    facts = [SAMPLER_VERSION, base.key, base.fingerprint, values, used]
    content = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _key_of(used: ResolvedAdapter) -> tuple[Any, ...]:
    """What an adapter adds to a cache key; block weights only where there are some."""
    factors = used.block_weights.factors if used.block_weights else ()
    return used.sha256, *used.weights, *factors


def get_render(session: Session, render_id: int) -> Render:
    """Look up a render. Raises NotFound."""
    render = session.get(Render, render_id)
    if render is None:
        raise NotFound("There is no such render.")
    return render


def render_images(session: Session, render_id: int) -> list[RenderImage]:
    """The images of a render, in order."""
    query = select(RenderImage).where(RenderImage.render_id == render_id)
    return list(session.exec(query.order_by(col(RenderImage.index))))


def cancel_render(session: Session, render_id: int) -> Render:
    """Cancel a render; idempotent."""
    render = get_render(session, render_id)
    jobs.request_cancel(session, Render, render)
    return render


def cancel_with_twin(session: Session, render_id: int) -> Render:
    """Cancel a render and its twin unless they have ended; idempotent."""
    render = get_render(session, render_id)
    shown = [render, get_render(session, render.twin_id)] if render.twin_id else [render]
    for row in shown:
        if not row.state.is_final:
            cancel_render(session, row.key)
    session.refresh(render)
    return render


def has_render_worker(session: Session) -> bool:
    """True if a render worker was seen recently."""
    return bool(present_workers(session, queue=Render.queue))
