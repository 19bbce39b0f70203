"""Strips of weights: each image with another stack of adapters, a few of them in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.registry.job_kinds.weighted import ResolvedAdapter
from worker.core.inference.config import RenderConfig
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from worker.core.inference.batches import Preview
    from worker.core.inference.pipeline import RenderedImage, ResidentPipeline
    from worker.runtime.renders.warm_pipelines import WarmPipelines

Stack = Sequence[ResolvedAdapter]


def render_strip(
    warm: WarmPipelines,
    pipeline: ResidentPipeline,
    config: RenderConfig,
    *,
    stacks: Sequence[Stack],
    source: Image | None = None,
    on_step: Callable[[int, int], bool],
    on_preview: Preview,
) -> list[RenderedImage]:
    """The image of the config with each of these stacks; see `ResidentPipeline.render_weights`.

    No more different adapters are in use at once than one image can have: with those of more, such
    as the checkpoints of a run, the images are generated in parts.
    """
    total = config.steps_run * len(stacks)
    drawn: list[RenderedImage] = []
    for part in split_stacks(stacks, MAX_RENDER_ADAPTERS):
        drawn += pipeline.render_weights(
            config,
            [warm.stack(stack) for stack in part],
            source=source,
            on_step=partial(_note_step, on_step, first=len(drawn) * config.steps_run, total=total),
            on_preview=partial(_note_preview, on_preview, len(drawn)),
        )
    return drawn


def split_stacks(stacks: Sequence[Stack], limit: int) -> list[list[Stack]]:
    """The stacks in their order, in parts that have at most `limit` different adapters each."""
    parts: list[list[Stack]] = []
    known: set[str] = set()
    for stack in stacks:
        own = {used.sha256 for used in stack}
        if not parts or len(known | own) > limit:
            parts.append([])
            known = set()
        parts[-1].append(stack)
        known |= own
    return parts


def _note_step(
    on_step: Callable[[int, int], bool], done: int, _: int, *, first: int, total: int
) -> bool:
    return on_step(first + done, total)


def _note_preview(on_preview: Preview, before: int, first: int, latents: Tensor) -> None:
    on_preview(before + first, latents)
