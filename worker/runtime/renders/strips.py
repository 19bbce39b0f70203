"""Strips of weights: each image with another stack of adapters, a few of them in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.registry.job_kinds.weighted import ResolvedAdapter, in_parts
from worker.core.inference.config import RenderConfig
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from worker.core.inference.batches import Preview
    from worker.core.inference.pipeline import RenderedImage, ResidentPipeline
    from worker.runtime.renders.warm_pipelines import WarmPipelines


def render_strip(
    warm: WarmPipelines,
    pipeline: ResidentPipeline,
    config: RenderConfig,
    *,
    stacks: Sequence[Sequence[ResolvedAdapter]],
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
    keys = ((stack, {used.sha256 for used in stack}) for stack in stacks)
    for part in in_parts(keys, most=len(stacks), adapters=MAX_RENDER_ADAPTERS):
        drawn += pipeline.render_weights(
            config,
            [warm.stack(stack) for stack in part],
            source=source,
            on_step=partial(_note_step, on_step, first=len(drawn) * config.steps_run, total=total),
            on_preview=partial(_note_preview, on_preview, len(drawn)),
        )
    return drawn


def _note_step(
    on_step: Callable[[int, int], bool], done: int, _: int, *, first: int, total: int
) -> bool:
    return on_step(first + done, total)


def _note_preview(on_preview: Preview, before: int, first: int, latents: Tensor) -> None:
    on_preview(before + first, latents)
