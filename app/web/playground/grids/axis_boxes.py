"""The values of the axes of a new grid as boxes to tick; what counts is the text of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from app.registry import prompt_sets
from app.registry.adapters import service as adapters
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.renders.grids.axes import AxisContext, AxisRequest, read_axis
from app.registry.renders.plan import usual_of
from app.registry.tables.added_models import BaseModel
from app.registry.tables.axes import AxisKind, AxisValue
from app.web.playground.grids.forms import USUAL_SEEDS, GridForm, usual_weights
from app.web.playground.stack import CheckedStack
from worker.core.training.presets import prompts_of, usual_form


@dataclass(frozen=True)
class AxisBox:
    """A value as it is written and in words, with the hash of an image of it."""

    text: str
    label: str
    image: str | None
    is_ticked: bool


@dataclass(frozen=True)
class AxisBoxes:
    """The values of an axis; `joiner` stands between their texts, after the number of a `run`."""

    boxes: Sequence[AxisBox]
    joiner: str
    run: int | None


def fill_axes(
    session: Session, form: GridForm, stack: CheckedStack, name: str | None, prompt_set: str = ""
) -> GridForm:
    """The form with the usual values of the axis `name`, or without one of those that have none.

    `prompt_set`: its subjects with the trigger word of the stack are the usual prompts, if it is
    there.
    """
    used = ", ".join(item.row.reference for item in stack.rows)
    own = {**_usual_values(stack.base), "prompt": form.play.prompt, "adapter": used}
    with suppress(InvalidInput):
        _, subjects = prompt_sets.find_version(session, prompt_set)
        words = [word for item in stack.rows if item.adapter for word in item.adapter.trigger_words]
        own["prompt"] = "\n".join(prompts_of(subjects, usual_form(next(iter(words), None))))
    axes = []
    for axis in form.axes:
        kind, _, row = axis.what.partition(":")
        if axis.name == name or not (name or axis.values):
            values = own.get(kind) or (_run_of(session, stack, row) if kind == "checkpoint" else "")
            axis = replace(axis, values=values)
        axes.append(axis)
    return replace(form, axes=axes)


def _usual_values(base: BaseModel) -> dict[str, str]:
    """The values of an axis of a setting, around what is usual with the base model."""
    usual = usual_of(base)
    return {
        "weight": usual_weights(usual.weight),
        "seed": USUAL_SEEDS,
        "steps": f"{usual.steps // 2}, {usual.steps}, {usual.steps * 3 // 2}",
        "guidance": "1, 2, 4" if usual.guidance == 1 else "2, 4, 7",
        "sampler": ", ".join(name.label for name in base.options.samplers),
    }


def _run_of(session: Session, stack: CheckedStack, row: str) -> str:
    """The number of the run that trained this adapter of the stack, else of any other."""
    for _, item in sorted(enumerate(stack.rows), key=lambda pair: str(pair[0]) != row):
        if item.adapter is not None:
            version = adapters.get_version(session, item.adapter, item.version)
            if run := item.adapter.run_id or version.run_id:
                return str(run)
    return ""


def axis_boxes(session: Session, form: GridForm, stack: CheckedStack) -> dict[str, AxisBoxes]:
    """The boxes of each axis that can be read, by its name."""
    context = AxisContext(session, form.play.prompt, [""] * len(stack.rows), stack.base)
    found = {}
    for axis in form.axes:
        try:
            if (wanted := axis.read()) is not None:
                found[axis.name] = _boxes_of(wanted, context)
        except AppError:
            continue  # said when the grid is estimated
    return found


def _boxes_of(wanted: AxisRequest, context: AxisContext) -> AxisBoxes:
    """The values of an axis; of checkpoints, also those of its run that it leaves out."""
    axis = read_axis(wanted, context).axis
    every = axis.values
    if axis.run_id is not None:
        every = read_axis(replace(wanted, text=str(axis.run_id)), context).axis.values
    boxes = [
        AxisBox(*_words(context.session, wanted.kind, value), value in axis.values)
        for value in every
    ]
    return AxisBoxes(boxes, "\n" if wanted.kind is AxisKind.PROMPT else ", ", axis.run_id)


def _words(session: Session, kind: AxisKind, value: AxisValue) -> tuple[str, str, str | None]:
    """A value as it is written, in words, and the hash of its image: that of the first prompt."""
    own: Any = value.value
    if kind not in (AxisKind.CHECKPOINT, AxisKind.ADAPTER) or own is None:
        text = value.label if kind is AxisKind.SAMPLER else "none" if own is None else str(own)
        return text, value.label, None
    adapter = adapters.get_adapter(session, own["adapter_id"])
    version = adapters.get_version(session, adapter, own["version"])
    samples = adapters.version_samples(session, version)
    image = samples[0].sha256 if samples else adapter.cover_sha256
    if kind is AxisKind.CHECKPOINT:
        return str(version.version), f"Step {version.version:,}", image
    text = f"{adapter.slug}@{own['version']}"
    text += "" if own["weight"] is None else f":{own['weight']:g}"
    return text, value.label, image
