"""The cells of a grid: the request of each, and how those that differ in weights share a render."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter, in_parts
from app.registry.renders.requests import RenderRequest
from app.registry.tables.axes import Axis, AxisKind, sizes_of
from app.registry.tables.renders import Render
from worker.core.lora_files.weights import MAX_STRIP_ADAPTERS
from worker.core.training.presets import PromptForm

OWN_TO_A_CELL = {"adapters", "cache_key", "created_at", "id", "search_text"}
WEIGHTS = {"weight", "text_encoder_weight"}
STACK = "stack"  # of a value of an axis
STACK_SETTINGS = (
    *("base_model", "negative_prompt", "sampler", "steps", "guidance", "clip_skip"),
    *("width", "height"),
)


def stored_request(request: RenderRequest) -> dict[str, Any]:
    """The request as JSON."""
    names = set(RenderRequest.model_fields)
    return request.model_dump(mode="json", include=names, warnings="none")


def read_request(stored: dict[str, Any]) -> RenderRequest:
    """The request that `stored_request` wrote; what later versions added has its default."""
    known = RenderRequest.model_fields.keys() & stored.keys()
    return RenderRequest(**{name: stored[name] for name in known if stored[name] is not None})


def place_of(sizes: tuple[int, int, int], column: int, row: int, sheet: int) -> int:
    """The number of a cell."""
    columns, rows, _ = sizes
    return (sheet * rows + row) * columns + column


def position_of(sizes: tuple[int, int, int], place: int) -> tuple[int, int, int]:
    """Column, row and sheet of a cell."""
    columns, rows, _ = sizes
    return place % columns, place // columns % rows, place // (columns * rows)


def title_at(axes: Sequence[Axis], place: int) -> str:
    """The values of a cell in words, such as “a castle, Chalk 0.75”."""
    at = position_of(sizes_of(axes), place)
    labels = [axis.labels[index] for axis, index in zip(axes, at, strict=False)]
    return ", ".join(reversed(labels))


def cell_request(base: RenderRequest, axes: Sequence[Axis], place: int) -> RenderRequest:
    """The request for the image of one cell."""
    at = position_of(sizes_of(axes), place)
    chosen = [(axis, axis.values[index].value) for axis, index in zip(axes, at, strict=False)]
    request = base
    for axis, value in sorted(chosen, key=lambda pair: _turn(pair[0].kind)):
        request = _with_value(request, axis, value)
    stack = [used for used in request.adapters if used is not None]
    return request.model_copy(update={"adapters": stack})


def _turn(kind: AxisKind) -> int:
    """When an axis is read: a stack has words around the prompt, and a weight is of an adapter."""
    return 2 if kind is AxisKind.WEIGHT else int(kind.is_of_row)


def stack_value(request: RenderRequest, form: PromptForm) -> dict[str, Any]:
    """The value of an axis of adapters that is a whole stack, with its base model and settings.

    `form`: what stands before and after the prompt of the cell.
    """
    settings = request.model_dump(mode="json", include=set(STACK_SETTINGS))
    stack = [one.model_dump(mode="json", exclude_none=True) for one in request.adapters]
    return {STACK: stack, "settings": settings, "form": list(form)}


def _with_stack(request: RenderRequest, value: dict[str, Any]) -> RenderRequest:
    before, after = value["form"]
    stack = [WeightedAdapter.model_validate(one) for one in value[STACK]]
    own = {"adapters": stack, "prompt": f"{before}{request.prompt}{after}"}
    return request.model_copy(update=value["settings"] | own)


def _with_value(request: RenderRequest, axis: Axis, value: Any) -> RenderRequest:
    """The request with one value of an axis; an adapter that is left out is None until the end."""
    if isinstance(value, dict) and STACK in value:
        return _with_stack(request, value)
    if not axis.kind.is_of_row:
        given = value if isinstance(value, dict) else {axis.kind.value: value}
        return request.model_copy(update=given)
    stack: list[Any] = list(request.adapters)
    before = stack[axis.row] if axis.row < len(stack) else None
    if axis.kind is AxisKind.WEIGHT:
        after = before and _at_weight(before, value)
    elif value is None:
        after = None
    else:
        named = WeightedAdapter.model_validate(value)
        is_checkpoint = axis.kind is AxisKind.CHECKPOINT
        after = _in_place_of(before, named) if is_checkpoint and before is not None else named
    stack[axis.row : axis.row + 1] = [after]
    return request.model_copy(update={"adapters": stack})


def _in_place_of(before: WeightedAdapter, named: WeightedAdapter) -> WeightedAdapter:
    """A checkpoint with the weights of the adapter it stands in for, unless it has its own."""
    used = before.model_copy(update={"adapter_id": named.adapter_id, "version": named.version})
    return used if named.weight is None else _at_weight(used, named.weight)


def _at_weight(used: WeightedAdapter, weight: float) -> WeightedAdapter:
    """The adapter at another weight, in the text encoders too unless theirs was another one."""
    change: dict[str, Any] = {"weight": weight}
    if used.text_encoder_weight == used.weight:
        change["text_encoder_weight"] = None
    return used.model_copy(update=change)


@dataclass(frozen=True)
class Batch:
    """Cells whose images one render makes, by their places.

    `weights`: those of all adapters of `stack` for each image, None for one that it lacks; None for
    a single image.
    """

    places: list[int]
    stack: list[WeightedAdapter] = field(default_factory=list)
    weights: list[list[float | None]] | None = None


def batches_of(planned: dict[int, Render], *, most: int, mixed: bool = True) -> list[Batch]:
    """The cells in order of their places, those that differ only in adapters and weights together.

    `planned`: the render of each cell alone. `most`: images in a batch. Not `mixed`: only those
    with the same adapters are together, so that one that fails takes no others with it.
    """
    groups: dict[str, list[int]] = {}
    for place in sorted(planned):
        groups.setdefault(_shared(planned[place], with_adapters=not mixed), []).append(place)
    found = []
    for places in groups.values():
        stacks = {place: _by_key(planned[place]) for place in places}
        for chunk in in_parts(stacks.items(), most=most, adapters=MAX_STRIP_ADAPTERS):
            if len(chunk) == 1:
                found.append(Batch(chunk))
                continue
            used = {key: one for place in chunk for key, one in stacks[place].items()}
            weights = [
                [own[key].weight if key in own else None for key in used]
                for own in (stacks[place] for place in chunk)
            ]
            found.append(Batch(chunk, [one.named for one in used.values()], weights))
    return sorted(found, key=lambda batch: batch.places[0])


def _shared(render: Render, *, with_adapters: bool) -> str:
    """Equal for renders that can be images of one strip."""
    rest = render.model_dump(mode="json", exclude=OWN_TO_A_CELL)
    return json.dumps([rest, list(_by_key(render)) if with_adapters else []], sort_keys=True)


def _by_key(render: Render) -> dict[str, ResolvedAdapter]:
    """The adapters of a render; those with equal keys differ only in weights."""
    found: dict[str, ResolvedAdapter] = {}
    for stored, used in zip(render.adapters, render.stack, strict=True):
        text = stored["text_encoder_weight"]
        fixed = {name: value for name, value in stored.items() if name not in WEIGHTS}
        key = json.dumps(fixed | {"text": None if text == used.weight else text}, sort_keys=True)
        same = sum(known.startswith(key) for known in found)  # one adapter can be in a stack twice
        found[f"{key} {same}"] = used
    return found
