"""Plans of renders: a request checked, with a reason for each bad field, and the rows it makes."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session

from app.registry.actor import Visibility
from app.registry.adapters import fitting
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.base_models import precisions
from app.registry.base_models import service as base_models
from app.registry.base_models.service import BaseReference
from app.registry.base_models.sizes import USUAL_SIDE, size_note, size_problem
from app.registry.errors import InvalidInput, NotFound, invalid_field
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.renders import sources
from app.registry.renders.lora_tags import take_tags
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import FoundSource
from app.registry.runs.requests import field_reasons
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from app.registry.validation import Reasons
from app.registry.wording import plural
from worker.core.families.facts.family_facts import UsualDrawing, reasons_against
from worker.core.families.family import find_family
from worker.core.inference.config import (
    DEFAULT_STRENGTH,
    MAX_COUNT,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    SAMPLER_VERSION,
    RenderConfig,
)
from worker.core.inference.prompt_syntax import PROMPT_VERSION, is_simple
from worker.core.lora_files.weights import (
    MAX_RENDER_ADAPTERS,
    MAX_STRIP,
    MAX_STRIP_ADAPTERS,
    weight_problem,
)
from worker.core.training.presets import default_guidance
from worker.core.words import RenderPrecision, SamplerName

Row = Sequence[float | None]
"""The weights of all adapters for one image of a strip; None leaves an adapter out of it."""

USUAL_STEPS = 20
MAX_RANDOM_SEED = MAX_SEED - MAX_COUNT
NO_SOURCE = "A strength needs an image to start from."


@dataclass(frozen=True)
class RenderPlan:
    """The rows that a request makes, not stored; `twin`: the same seed without adapters.

    `source`: the image that they start from.
    """

    render: Render
    twin: Render | None
    base: BaseModel
    source: FoundSource | None


def guidance_for(base: BaseModel) -> float:
    """The guidance scale of a request that names none."""
    return usual_of(base).guidance


def usual_of(base: BaseModel) -> UsualDrawing:
    """How images are drawn with a base model unless a request says otherwise."""
    return base.drawing or UsualDrawing(
        steps=USUAL_STEPS, guidance=default_guidance(base.resolution or USUAL_SIDE)
    )


def plan_render(session: Session, request: RenderRequest) -> RenderPlan:
    """Check a request and make its rows. Raises InvalidInput for every bad field."""
    reasons = Reasons()
    asked = len(request.adapters)
    with reasons.noted():
        request = _with_named(session, request)
    found: list[tuple[WeightedAdapter, ResolvedAdapter, AdapterAndVersion]] = []
    with reasons.noted():
        for named in _limited(request):
            with reasons.noted(missing="adapters"):
                found.append((named, *resolve(session, named)))
    stack, made = [used for _, used, _ in found], [rows for *_, rows in found]
    source, base, config, weights = None, None, None, None
    with reasons.noted():
        source = _find_source(session, request)
    with reasons.noted():
        base = base_for(session, request.base_model, made)
        base_models.require_ready(base)
        if sentences := fitting.misfits(session, made, base):
            raise invalid_field("adapters", " ".join(sentences))
    if base is not None:
        stack = [at_usual_weight(used, named, base) for named, used, _ in found]
        with reasons.noted():
            config = _check_config(request, base, stack, source)
    if request.weights is not None and "adapters" not in reasons.fields:
        with reasons.noted():
            weights = _check_weights(request.weights, stack, asked=asked)
    reasons.check()
    assert base is not None
    assert config is not None  # else there is a reason
    precision = precisions.expected_precision(session, base)
    has_twin = request.twin and not all(used.is_off for used in stack)
    twin = _render_row(base, config, [], precision, source=source) if has_twin else None
    render = _render_row(base, config, stack, precision, weights, source=source)
    return RenderPlan(render, twin, base, source)


def plan_single(session: Session, request: RenderRequest) -> Render:
    """The row of a render without twin, not stored. Raises InvalidInput for every bad field."""
    return plan_render(session, request.model_copy(update={"twin": False})).render


def _with_named(session: Session, request: RenderRequest) -> RenderRequest:
    """The request with the LoRA tags moved from the prompt to the stack."""
    prompt, named = take_tags(session, request.prompt)
    stack = [*request.adapters, *named]
    return request.model_copy(update={"prompt": prompt, "adapters": stack})


def _limited(request: RenderRequest) -> Sequence[WeightedAdapter]:
    """The adapters of a request. Raises InvalidInput if there are too many."""
    limit = MAX_RENDER_ADAPTERS if request.weights is None else MAX_STRIP_ADAPTERS
    if len(request.adapters) > limit:
        raise invalid_field("adapters", f"At most {limit} adapters can be combined.")
    return request.adapters


def _find_source(session: Session, request: RenderRequest) -> FoundSource | None:
    """The image to start from. Raises InvalidInput if it is gone."""
    if request.source is None:
        if request.strength is not None:
            raise invalid_field("strength", NO_SOURCE)
        return None
    try:
        return sources.find_source(session, request.source)
    except NotFound:
        raise invalid_field("source", sources.SOURCE_MISSING) from None


def _trained_skip(stack: Sequence[ResolvedAdapter]) -> int:
    """The CLIP skip the adapters were trained with, the highest if they differ.

    Weights do not matter: a weight of zero must not change the text encoding.
    """
    return max((used.clip_skip for used in stack), default=1)


def at_usual_weight(
    resolved: ResolvedAdapter, named: WeightedAdapter, base: BaseModel
) -> ResolvedAdapter:
    """The adapter; at the usual weight with this base model if none was named."""
    factor = usual_of(base).weight
    if named.weight is not None or factor == 1:
        return resolved
    return resolved.with_weight(resolved.weight * factor)


def base_for(
    session: Session, named: BaseReference | None, made: Sequence[AdapterAndVersion]
) -> BaseModel:
    """The named base model, else that of the adapters, else the built-in one."""
    own = usual_base_of(session, made) if named is None else None
    return own or base_models.find_base_model(session, named)


def usual_base_of(session: Session, made: Sequence[AdapterAndVersion]) -> BaseModel | None:
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


def _check_weights(
    rows: Sequence[Row], stack: Sequence[ResolvedAdapter], *, asked: int
) -> list[list[float | None]]:
    """The weights of a strip for all adapters of each image. Raises InvalidInput.

    Where a row has only the `asked` ones, the adapters that the prompt names, which come last, have
    their own.
    """
    named = [used.weight for used in stack[asked:]]
    weights = [[*row, *named] if len(row) == asked else list(row) for row in rows]
    if problem := _strip_problem(weights, len(stack)):
        raise invalid_field("weights", problem)
    return weights


def _strip_problem(weights: Sequence[Row], adapters: int) -> str:
    """Why these weights are not a strip for this number of adapters; empty if they are."""
    if not adapters:
        return "A strip of weights needs an adapter."
    if not 1 <= len(weights) <= MAX_STRIP:
        return f"A strip has 1 to {MAX_STRIP} images; this one has {len(weights)}."
    if any(len(row) != adapters for row in weights):
        return f"Each image of a strip needs {plural(adapters, 'weight')}, one for each adapter."
    used = [[weight for weight in row if weight is not None] for row in weights]
    if any(len(row) > MAX_RENDER_ADAPTERS for row in used):
        return (
            f"At most {MAX_RENDER_ADAPTERS} adapters can be combined in an image of a strip; null "
            "leaves one out."
        )
    return next(filter(None, (weight_problem(weight) for row in used for weight in row)), "")


def _check_config(
    request: RenderRequest,
    base: BaseModel,
    stack: Sequence[ResolvedAdapter],
    source: FoundSource | None,
) -> RenderConfig:
    """The settings, with the usual ones where the request names none. Raises InvalidInput."""
    side = base.resolution or USUAL_SIDE
    usual = {
        "seed": secrets.randbelow(MAX_RANDOM_SEED),
        "sampler": base.options.samplers[0],
        "steps": usual_of(base).steps,
        "guidance": guidance_for(base),
        "clip_skip": _trained_skip(stack),
        "width": side,
        "height": side,
    }
    values = usual | _settings_of(request)
    step = base.options.side_step
    if source is None:
        values["strength"] = None
    else:
        sides = sources.size_like(source, side, request.width, request.height, step=step)
        values |= dict(zip(("width", "height"), sides, strict=True))
        values.setdefault("strength", DEFAULT_STRENGTH)
    try:
        config = RenderConfig(**values)
    except ValidationError as error:
        fields = field_reasons(error)
        _explain_sides(base, fields, width=values["width"], height=values["height"])
        raise InvalidInput(" ".join(fields.values()), fields=fields) from error
    if config.sampler not in base.options.samplers:
        known = " or ".join(name.label for name in base.options.samplers)
        raise invalid_field(
            "sampler",
            f"{config.sampler.label} does not draw with {base.family_label}. Choose {known}.",
        )
    if odd := {name: "" for name in ("width", "height") if getattr(config, name) % step}:
        _explain_sides(base, odd, width=config.width, height=config.height)
        raise InvalidInput(" ".join(odd.values()), fields=odd)
    if reason := size_problem(base, config.width or side, config.height or side):
        raise invalid_field("width", reason)
    if config.seed + config.count - 1 > MAX_SEED:
        raise invalid_field(
            "seed",
            f"Each image has the next seed, so with {config.count} images it is "
            f"{MAX_SEED - config.count + 1:,} at most.",
        )
    family = find_family(base.family)
    if family and (fields := reasons_against(family.facts.options.drawing, config)):
        raise InvalidInput(" ".join(fields.values()), fields=fields)
    return config


def _settings_of(request: RenderRequest) -> dict[str, Any]:
    """The settings that a request names."""
    names = RenderConfig.model_fields.keys() & request.model_fields_set
    named = {name: getattr(request, name) for name in names}
    return {name: value for name, value in named.items() if value is not None}


def _explain_sides(base: BaseModel, fields: dict[str, str], **sides: Any) -> None:
    """Say in the errors of invalid sides what to choose: for a size that is too large, a smaller.

    Else the nearest valid side.
    """
    if not sides.keys() & fields.keys():
        return
    step = base.options.side_step
    nearest = {name: sources.nearest_side(typed, step) for name, typed in sides.items()}
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
                f"Use a multiple of {step} from {MIN_SIDE} to {MAX_SIDE:,}; the nearest "
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
    is_private = source is not None and source.is_private
    rights: dict[str, Any] = {"visibility": Visibility.PRIVATE.value} if is_private else {}
    return Render(
        base_model_id=base.key,
        adapters=[used.for_render() for used in stack],
        cache_key=_cache_key(base, values, stack),
        precision=precision,
        note=size_note(base, values["width"], values["height"]) or None,
        **values,
        **rights,
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
    """The part of an adapter in a cache key; block weights only where there are some."""
    factors = used.block_weights.factors if used.block_weights else ()
    return used.sha256, *used.weights, *factors
