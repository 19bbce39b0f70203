"""What can be done with renders: ask for pictures, find them again."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from app.registry.adapters import fitting
from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import Made
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.errors import InvalidInput, NotFound
from app.registry.jobs import service as jobs
from app.registry.jobs.presence import present_workers
from app.registry.jobs.states import JobStatus
from app.registry.renders.lora_tags import take_tags
from app.registry.renders.models import Render, RenderAdapter, RenderImage
from app.registry.runs.service import field_reasons
from app.registry.validation import named_reasons
from worker.core.inference.config import MAX_CLIP_SKIP, MAX_WEIGHT, SAMPLER_VERSION, RenderConfig

MAX_ADAPTERS = 8
MAX_RANDOM_SEED = 2**32 - 1
RENDERS_A_PAGE = 24


@dataclass(frozen=True)
class Stacked:
    """One adapter of a render with its weights."""

    adapter_id: int
    weight: float = 1.0
    text_encoder_weight: float | None = None
    version: int | str | None = None  # a number or an alias; None: the one that `latest` names


@dataclass(frozen=True)
class RenderRequest:
    """What a person asked for; None takes the base's own size and a random seed.

    Without a `clip_skip` the text is read as it was when the adapters were trained.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    steps: int = 20
    guidance: float | None = None
    clip_skip: int | None = None
    width: int | None = None
    height: int | None = None
    count: int = 1
    base_model: str | int | None = None
    adapters: Sequence[Stacked] = field(default_factory=tuple)
    twin: bool = False


def default_guidance(base: BaseModel) -> float:
    """The guidance small bases draw best with is lower than that of large ones."""
    return 3.5 if (base.resolution or 512) <= 128 else 7.0


def create_render(session: Session, request: RenderRequest) -> Render:
    """Queue a render, with its twin without adapters when that is wanted and differs."""
    fields: dict[str, str] = {}
    try:
        request = _with_named(session, request)
    except InvalidInput as error:
        fields |= error.fields
    stack, made = _resolve_stack(session, request.adapters, fields)
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
        config = _checked(request, base, fields, clip_skip=skip)
        if base.family == "sdxl" and config is not None and config.clip_skip > 1:
            fields["clip_skip"] = (
                "SDXL always reads the layer before the last of its text encoders: leave CLIP "
                "skip empty."
            )
    if fields or base is None or config is None:
        raise InvalidInput(named_reasons(fields), fields=fields)
    render = _row(base, config, stack)
    if request.twin and any(entry["weight"] or entry["text_encoder_weight"] for entry in stack):
        render.twin_id = jobs.enqueue(session, _row(base, config, [])).key
    jobs.enqueue(session, render)
    for adapter_id in {entry["adapter_id"] for entry in stack}:
        session.add(RenderAdapter(adapter_id=adapter_id, render_id=render.key))
    session.flush()
    return render


def _with_named(session: Session, request: RenderRequest) -> RenderRequest:
    """The request with what its prompt names in the stack, and no longer in the prompt."""
    prompt, named = take_tags(session, request.prompt)
    more = [
        Stacked(one.adapter_id, one.weight, one.text_encoder_weight, one.version) for one in named
    ]
    return replace(request, prompt=prompt, adapters=[*request.adapters, *more])


def _resolve_stack(
    session: Session, stack: Sequence[Stacked], fields: dict[str, str]
) -> tuple[list[dict[str, Any]], list[Made]]:
    """What a render keeps of each adapter, and their rows; what is wrong is added to `fields`."""
    if len(stack) > MAX_ADAPTERS:
        fields["adapters"] = f"At most {MAX_ADAPTERS} adapters can be combined."
        return [], []
    resolved: list[dict[str, Any]] = []
    made: list[Made] = []
    for entry in stack:
        weights = (entry.weight, entry.text_encoder_weight or 0.0)
        if not all(-MAX_WEIGHT <= weight <= MAX_WEIGHT for weight in weights):
            fields["adapters"] = f"A weight lies between {-MAX_WEIGHT:g} and {MAX_WEIGHT:g}."
            continue
        try:
            adapter = adapters.get_adapter(session, entry.adapter_id)
            version = adapters.get_version(session, adapter, entry.version)
        except NotFound as error:
            fields["adapters"] = error.detail
            continue
        made.append((adapter, version))
        resolved.append(
            {
                "adapter_id": adapter.key,
                "version_id": version.key,
                "version": version.version,
                "sha256": version.sha256,
                "name": adapter.name,
                "slug": adapter.slug,
                "base_model_id": version.base_model_id,
                "clip_skip": trained_skip(version.config),
                "weight": entry.weight,
                "text_encoder_weight": (
                    entry.weight if entry.text_encoder_weight is None else entry.text_encoder_weight
                ),
            }
        )
    return resolved, made


def trained_skip(config: Mapping[str, Any]) -> int:
    """The CLIP skip in the config of a training; 1 when it says nothing that could be one."""
    skip = config.get("clip_skip")
    return skip if type(skip) is int and 1 <= skip <= MAX_CLIP_SKIP else 1


def _trained_skip(stack: Sequence[dict[str, Any]]) -> int:
    """What the adapters were trained with, the highest when they differ; weights do not matter.

    Otherwise a slider at zero would change more than the adapter does.
    """
    return max((entry["clip_skip"] for entry in stack), default=1)


def _base_for(session: Session, request: RenderRequest, made: Sequence[Made]) -> BaseModel:
    """The base asked for, else the one the adapters are for, else the embedded one."""
    own = usual_base(session, made) if request.base_model is None else None
    return own or base_models.find_base_model(session, request.base_model)


def usual_base(session: Session, made: Sequence[Made]) -> BaseModel | None:
    """The base that the first adapter whose own is known was trained on.

    When that is not known of any, the oldest that the first fits; None when there is none.
    """
    for _, version in made:
        if version.base_model_id is not None:
            return base_models.get_base_model(session, version.base_model_id)
    if made:
        (kind,) = fitting.kinds(session, made[:1])
        return next(iter(fitting.fitting(kind, base_models.list_base_models(session))), None)
    return None


def _check_fit(session: Session, base: BaseModel, made: Sequence[Made]) -> None:
    """InvalidInput names every adapter that cannot be drawn with the base, and what it fits."""
    bases = base_models.list_base_models(session) if made else []
    kinds = fitting.kinds(session, made, known=bases)
    found = (
        fitting.misfit(adapter, kind, base, bases)
        for (adapter, _), kind in zip(made, kinds, strict=True)
    )
    if sentence := " ".join(dict.fromkeys(filter(None, found))):
        raise InvalidInput(sentence, fields={"adapters": sentence})


def _checked(
    request: RenderRequest, base: BaseModel, fields: dict[str, str], *, clip_skip: int
) -> RenderConfig | None:
    seed = request.seed if request.seed is not None else secrets.randbelow(MAX_RANDOM_SEED)
    guidance = request.guidance if request.guidance is not None else default_guidance(base)
    side = base.resolution or 512
    try:
        return RenderConfig(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=seed,
            steps=request.steps,
            guidance=guidance,
            clip_skip=clip_skip,
            width=side if request.width is None else request.width,
            height=side if request.height is None else request.height,
            count=request.count,
        )
    except ValidationError as error:
        fields |= field_reasons(error)
        return None


def _row(base: BaseModel, config: RenderConfig, stack: list[dict[str, Any]]) -> Render:
    values = config.model_dump()
    return Render(
        base_model_id=base.key, adapters=stack, cache_key=_cache_key(base, values, stack), **values
    )


def _cache_key(base: BaseModel, values: dict[str, Any], stack: Sequence[dict[str, Any]]) -> str:
    """Equal requests have equal keys; adapters count by the hash of their weights.

    A sampler that draws them otherwise has other keys, so that it copies nothing of the old one.
    """
    used = [
        (entry["sha256"], entry["weight"], entry["text_encoder_weight"])
        for entry in stack
        if entry["weight"] or entry["text_encoder_weight"]
    ]
    facts = [SAMPLER_VERSION, base.key, base.fingerprint, values, sorted(used)]
    content = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def get_render(session: Session, render_id: int) -> Render:
    """The render with this id."""
    render = session.get(Render, render_id)
    if render is None:
        raise NotFound("There is no such render.")
    return render


def render_images(session: Session, render_id: int) -> list[RenderImage]:
    """The pictures of a render, in order."""
    query = select(RenderImage).where(RenderImage.render_id == render_id)
    return list(session.exec(query.order_by(col(RenderImage.index))))


def cancel_render(session: Session, render_id: int) -> Render:
    """Cancel a render; asking twice is no mistake."""
    render = get_render(session, render_id)
    jobs.request_cancel(session, Render, render)
    return render


def cancel_with_twin(session: Session, render_id: int) -> Render:
    """Cancel a render and its twin, as far as they have not ended; asking twice is no mistake."""
    render = get_render(session, render_id)
    shown = [render, get_render(session, render.twin_id)] if render.twin_id else [render]
    for row in shown:
        if not row.state.is_final:
            cancel_render(session, row.key)
    session.refresh(render)
    return render


def has_render_worker(session: Session) -> bool:
    """True while a worker that draws was seen a moment ago."""
    return bool(present_workers(session, queue=Render.queue))


def recent_renders(session: Session, *, limit: int = RENDERS_A_PAGE) -> list[Render]:
    """The newest finished renders that are not only somebody's twin, newest first."""
    of_twin = aliased(Render)
    is_twin = select(1).where(col(of_twin.twin_id) == col(Render.id)).exists()
    query = (
        select(Render)
        .where(Render.status == JobStatus.SUCCEEDED, ~is_twin)
        .order_by(col(Render.id).desc())
        .limit(limit)
    )
    return list(session.exec(query))


def adapter_renders(
    session: Session, adapter_id: int, *, limit: int = 12, before: int | None = None
) -> list[Render]:
    """The newest finished renders that use this adapter, or those older than render `before`."""
    query = (
        select(Render)
        .join(RenderAdapter, col(RenderAdapter.render_id) == col(Render.id))
        .where(RenderAdapter.adapter_id == adapter_id, Render.status == JobStatus.SUCCEEDED)
        .order_by(col(RenderAdapter.render_id).desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(RenderAdapter.render_id < before)
    return list(session.exec(query))


def is_picture_of(session: Session, adapter_id: int, sha256: str) -> bool:
    """True for a picture that was drawn with this adapter in the playground."""
    query = (
        select(RenderImage.id)
        .join(RenderAdapter, col(RenderAdapter.render_id) == RenderImage.render_id)
        .where(RenderImage.sha256 == sha256, RenderAdapter.adapter_id == adapter_id)
    )
    return session.exec(query.limit(1)).first() is not None


def first_images(session: Session, renders: Sequence[Render]) -> dict[int, RenderImage]:
    """The first picture of each of these renders, by the render's id."""
    keys = [render.key for render in renders]
    query = select(RenderImage).where(col(RenderImage.render_id).in_(keys), RenderImage.index == 0)
    return {image.render_id: image for image in session.exec(query)}
