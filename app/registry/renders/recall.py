"""Requests from the settings in a text or an image, ours or of another program (infotext)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders import sources
from app.registry.renders.lora_tags import NoSuchAdapter, take_tags
from app.registry.renders.plan import plan_single
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import SourceImage
from worker.core.inference.config import BlockWeights
from worker.core.inference.infotext import Infotext
from worker.core.lora_files.weights import weight_problem
from worker.core.words import SamplerName

TAG = re.compile(r"<lora:[^<>]{1,200}>")
MAX_TAGS = 40
NUMBERS = ("seed", "steps", "guidance", "width", "height", "clip_skip")


@dataclass(frozen=True)
class Recalled:
    """The request of a text, not checked; `missing`: sentences on what of the text is not here."""

    request: RenderRequest
    missing: list[str]


def recall(session: Session, found: Infotext) -> Recalled:
    """The request of a text: adapters that its tags name are put into the stack."""
    missing: list[str] = []
    stack: list[WeightedAdapter] = []
    prompt = found.prompt
    for tag in TAG.findall(prompt)[:MAX_TAGS]:
        prompt = prompt.replace(tag, "")
        try:
            stack.append(_named_by(session, tag, found))
        except AppError as error:
            is_unknown = isinstance(error, NoSuchAdapter)
            missing.append(f"The adapter {tag} is not here." if is_unknown else error.detail)
    values: dict[str, Any] = {name: getattr(found, name) for name in NUMBERS}
    if found.sampler:
        try:
            values["sampler"] = SamplerName(found.sampler)
        except ValueError:
            missing.append(f"The sampler {found.sampler[:40]} is not here, so DDIM is chosen.")
    if source := _source_of(session, found, missing):
        values |= {"source": source, "strength": found.strength}
    request = RenderRequest.model_construct(
        prompt=prompt.strip(),
        negative_prompt=found.negative_prompt,
        adapters=stack,
        **{name: value for name, value in values.items() if value is not None},
    )
    return Recalled(request, missing)


def add_problems(session: Session, recalled: Recalled) -> None:
    """Add what would be refused in the request to what is missing."""
    try:
        plan_single(session, recalled.request)
    except AppError as error:
        recalled.missing.append(error.detail)


def _source_of(session: Session, found: Infotext, missing: list[str]) -> SourceImage | None:
    """The image that a text says it started from."""
    if found.source_sha256:
        named = SourceImage(sha256=found.source_sha256)
        try:
            return SourceImage(sha256=sources.find_source(session, named).sha256)
        except NotFound:
            pass
    if found.strength is not None or found.source_sha256:
        missing.append(
            "It started from another image, which is not here: choose it under “Start from an "
            "image”."
        )
    return None


def _named_by(session: Session, tag: str, found: Infotext) -> WeightedAdapter:
    """The adapter of a LoRA tag. Raises AppError if it is not here."""
    _, (named,) = take_tags(session, tag)
    factors = found.block_factors.get(tag.strip("<>").split(":")[1].strip())
    if factors is None:
        return named
    if problem := next(filter(None, map(weight_problem, factors)), None):
        raise InvalidInput(f"The blocks of {tag}: {problem}")
    blocks = BlockWeights(**dict(zip(BlockWeights.model_fields, factors, strict=True)))
    return named.model_copy(update={"block_weights": blocks})
