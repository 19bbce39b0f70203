"""Images before and after a tool: renders of the same prompt and seed, in no list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service, tools
from app.registry.base_models import service as base_models
from app.registry.datasets.caption_words import contains_words
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.kinds import (
    ExtractAdapterArgs,
    FuseAdapterArgs,
    FuseAdapterResult,
    MergeAdaptersArgs,
    NewVersionResult,
    ResizeAdapterArgs,
    ScaleAdapterArgs,
    ShownResult,
    StepProgress,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders import listing
from app.registry.renders.covers import RESULT, TOOL_SLOT
from app.registry.renders.drafts import create_draft
from app.registry.renders.requests import RenderRequest
from app.registry.storage.store import BlobStore
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from worker.core.lora_files.weights import USUAL_WEIGHT

ANY_PROMPT = "a castle"


@dataclass(frozen=True)
class ToolImage:
    """One of both renders, its image once it has one, and what it was drawn with."""

    render: Render
    sha256: str | None
    label: str

    @property
    def alt(self) -> str:
        """The image in words."""
        return f"{self.render.prompt}, {self.label}"


@dataclass(frozen=True)
class ToolImages:
    """The images before and after a tool; of a merge, two before it."""

    sides: Sequence[ToolImage]

    @property
    def is_active(self) -> bool:
        """True while one of them is queued or running."""
        return any(side.render.state.is_active for side in self.sides)

    @property
    def caption(self) -> str:
        """Prompt and seed of all."""
        return f"{self.sides[0].render.prompt}, seed {self.sides[0].render.seed}"

    @property
    def error(self) -> str:
        """The reason why one of them was not drawn; empty if all were or will be."""
        ended = [side.render for side in self.sides if side.sha256 is None]
        reasons = [
            row.error or "The image was not generated." for row in ended if not row.state.is_active
        ]
        return next(iter(reasons), "")


def has_images(job: IoJob) -> bool:
    """True if what the job made can be shown: a version, or a base model that was kept."""
    result = job.outcome(StepProgress)
    is_kept = isinstance(result, FuseAdapterResult) and result.base_model_id is not None
    is_version = isinstance(result, NewVersionResult) and result.adapter_id is not None
    return job.state is JobStatus.SUCCEEDED and (is_kept or is_version)


def order_images(session: Session, job_id: int, store: BlobStore) -> ToolImages:
    """The images of a tool job; they are ordered the first time.

    Raises Conflict if the job made nothing that can be shown, NotFound or InvalidInput if it cannot
    be drawn any more.
    """
    job = session.get(IoJob, tools.get_job(session, job_id).key, with_for_update=True)
    assert job is not None
    if (known := find_images(session, job)) is not None:
        return known
    if not has_images(job):
        raise Conflict("This job has not made an adapter or base model that can be shown.")
    requests = _requests(session, job)
    drawn = prompt_of(session, *requests)
    renders = []
    for place, side in enumerate(requests):
        slot = TOOL_SLOT.format(job=job.key, place=RESULT if side is requests[-1] else place)
        renders.append(create_draft(session, side.model_copy(update=drawn), store, slot=slot))
    keys = {"before_render_id": renders[0].key, "after_render_id": renders[-1].key}
    keys |= {"second_render_id": renders[1].key} if len(renders) > 2 else {}
    job.result = job.result | keys
    session.add(job)
    return _tool_images(session, renders)


def find_images(session: Session, job: IoJob) -> ToolImages | None:
    """The images of a tool job; None if they were not ordered, or one is deleted for good."""
    result = job.outcome(StepProgress)
    if not isinstance(result, ShownResult):
        return None
    keys = [result.before_render_id or 0, result.after_render_id or 0]
    keys[1:1] = [result.second_render_id] if result.second_render_id else []
    renders = [render for key in keys if (render := session.get(Render, key)) is not None]
    return _tool_images(session, renders) if len(renders) == len(keys) else None


def _tool_images(session: Session, renders: Sequence[Render]) -> ToolImages:
    images = listing.first_images(session, renders)
    shown = [
        ToolImage(
            render,
            images[render.key].sha256 if render.key in images else None,
            _label(session, render),
        )
        for render in renders
    ]
    return ToolImages(shown)


def _label(session: Session, render: Render) -> str:
    """The adapters of a render, or else its base model, in words."""
    parts = [f"{used.name}, version {used.version}" for used in render.stack]
    return " + ".join(parts) or base_models.base_of(session, render.base_model_id).name


def _requests(session: Session, job: IoJob) -> list[RenderRequest]:
    """The requests for the images, without their prompt. Raises Conflict or NotFound."""
    args, result = job.readable_arguments(), job.outcome(StepProgress)
    if isinstance(args, FuseAdapterArgs) and isinstance(result, FuseAdapterResult):
        stack = [part.named for part in args.parts]
        return [_request(stack, job.subject_id), _request(base=result.base_model_id)]
    if not isinstance(result, NewVersionResult) or result.adapter_id is None:
        raise Conflict("This job has not made an adapter that can be shown.")
    after = [WeightedAdapter(adapter_id=result.adapter_id, version=result.version)]
    if isinstance(args, ResizeAdapterArgs | ScaleAdapterArgs):
        version = session.get(AdapterVersion, job.subject_id or 0)
        if version is None:
            raise NotFound("The version before was deleted, so it cannot be shown.")
        before = [WeightedAdapter(adapter_id=version.adapter_id, version=version.version)]
        return [_request(before), _request(after)]
    if isinstance(args, MergeAdaptersArgs):
        parts = args.parts[:2]
        if args.run_id is not None:  # of an average: the first and the last checkpoint, whole
            parts = tuple(
                part.with_weight(USUAL_WEIGHT) for part in args.parts[:: len(args.parts) - 1]
            )
        return [*(_request([part.named]) for part in parts), _request(after)]
    if isinstance(args, ExtractAdapterArgs):
        return [_request(base=args.tuned_id), _request(after, job.subject_id)]
    raise Conflict("The settings of this job cannot be read any more.")


def _request(stack: Sequence[WeightedAdapter] = (), base: int | None = None) -> RenderRequest:
    return RenderRequest(prompt=ANY_PROMPT, base_model=base, adapters=list(stack))


def prompt_of(session: Session, *requests: RenderRequest) -> dict[str, Any]:
    """Prompt and seed of the first sample of an adapter, with a trigger word of each of them."""
    prompt, seed = "", 0
    words: list[str] = []
    for used in (used for request in requests for used in request.adapters):
        adapter = service.get_adapter(session, used.adapter_id)
        version = service.get_version(session, adapter, used.version)
        sample = next(iter(service.version_samples(session, version)), None)
        if sample and not prompt:
            prompt, seed = sample.prompt, sample.seed
        words += adapter.trigger_words[:1]
    for word in words:
        if not contains_words(prompt := prompt or ANY_PROMPT, word):
            prompt = f"{prompt}, {word}"
    return {"prompt": prompt or ANY_PROMPT, "seed": seed}
