"""Views of grids for the pages."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.renders.grids.axes import PLACES, weight_text
from app.registry.renders.grids.cells import place_of, title_at
from app.registry.renders.grids.plan import GridPlan
from app.registry.renders.grids.views import CellView, GridView
from app.registry.renders.grids.winner import subject_of
from app.registry.tables.axes import Axis, AxisKind
from app.registry.wording import capitalized, duration, join_words, plural
from app.web.playground.adapter_picker import AdapterChoices
from app.web.playground.forms import form_of_render
from app.web.playground.grids.axis_boxes import AxisBoxes
from app.web.playground.grids.forms import Choice, GridForm
from app.web.playground.source_panel import SourcePanel
from app.web.playground.stack import StackView
from worker.core.inference.config import DEFAULT_STRENGTH

STACK_PATH = "/grids/stack"  # changes of the adapters are sent to it
MOST_REFUSED = 3  # cells that a notice names
MOST_LETTERS = 40  # of each


@dataclass(frozen=True)
class NewGridPage:
    """The form of a new grid; `choices`: adapters to add, `axis_choices`: what can vary.

    `boxes`: the values of each axis to tick; `announcement` tells a change of the adapters.
    """

    form: GridForm
    stack: list[StackView]
    choices: AdapterChoices
    axis_choices: list[Choice]
    boxes: Mapping[str, AxisBoxes]
    prompt_sets: list[tuple[object, str]]
    source: SourcePanel
    samplers: list[Choice]
    errors: dict[str, str]
    summary: str
    estimate: str
    problem: str
    announcement: str
    stack_path: str = STACK_PATH


@dataclass(frozen=True)
class ChosenCell:
    """The cell in the side panel, with what can be done with it.

    `subject`: the name of the adapter that it is about, `weight`: its weight in words; empty
    without one. `neighbor`: the place of the cell that it is compared with.
    """

    grid_id: int
    cell: CellView
    title: str
    subject: str
    weight: str
    is_checkpoint: bool
    is_winner: bool
    again: str
    neighbor: int | None
    told: str = ""
    is_oob: bool = False


def estimate_words(plan: GridPlan) -> str:
    """The cost of a grid as sentences."""
    cached = plan.images - plan.new_images
    cells = "" if plan.images == plan.cells else f" for {plural(plan.cells, 'cell')}"
    words = [f"{plural(plan.images, 'image')}{cells}."]
    if not plan.new_images:
        words.append("All of them exist already.")
    elif cached:
        words.append(f"{cached:,} of them exist{'s' if cached == 1 else ''} already.")
    if plan.new_images:
        how_long = "not known yet" if plan.seconds is None else f"about {duration(plan.seconds)}"
        words.append(f"Time{' for the rest' if cached else ''}: {how_long}.")
    return " ".join([*words, *plan.notes])


def progress_words(view: GridView) -> str:
    """The progress of a grid as a sentence."""
    text = f"{view.done} of {plural(len(view.cells), 'image')}"
    if view.is_active:
        left = "" if view.seconds is None else f", about {duration(view.seconds)} left"
        return f"{text}{left}."
    if view.lacking:
        return f"{text}. {view.lacking} {'was' if view.lacking == 1 else 'were'} not generated."
    return f"{plural(len(view.cells), 'image')}."


def refused_words(plan: GridPlan) -> str:
    """Which cells of a grid cannot be generated any more, and why."""
    titles = [title_at(plan.axes, place) for place in plan.refused]
    shown = [
        f"“{shorten(title, MOST_LETTERS, placeholder='…')}”" for title in titles[:MOST_REFUSED]
    ]
    if more := len(titles) - len(shown):
        shown.append(f"{more:,} more")
    reasons = " ".join(dict.fromkeys(plan.refused.values()))
    return (
        f"{plural(plan.cells, 'image')} {'is' if plan.cells == 1 else 'are'} generated. "
        f"{join_words(shown)} cannot be any more. {reasons}"
    )


def end_announcement(view: GridView) -> str:
    """A sentence for screen readers once nothing is to come; empty before."""
    return "" if view.is_active else f"The grid has ended: {progress_words(view)}"


def shared_words(session: Session, view: GridView) -> str:
    """The settings that all cells share, as a sentence."""
    request, kinds = view.grid.request, {axis.kind for axis in view.axes}
    parts = []
    if AxisKind.PROMPT not in kinds:
        parts.append(f"“{request['prompt']}”")
    parts += _fixed_adapters(view)
    for kind, word in ((AxisKind.SEED, "seed"), (AxisKind.STEPS, "steps")):
        if kind not in kinds:
            value = request[kind.value]
            parts.append(f"seed {value}" if word == "seed" else plural(value, "step"))
    if AxisKind.GUIDANCE not in kinds and request["guidance"] is not None:
        parts.append(f"guidance {request['guidance']:g}")
    if request.get("source"):
        parts.append(f"from an image at strength {request['strength'] or DEFAULT_STRENGTH:g}")
    with contextlib.suppress(AppError):  # a base model that was removed has no name any more
        parts.append(base_models.find_base_model(session, request["base_model"]).name)
    words = ", ".join(parts)
    return f"{capitalized(words)}."


def _fixed_adapters(view: GridView) -> list[str]:
    """The adapters that no axis varies, and the weight of one whose checkpoints vary, in words."""
    of_rows = {axis.row: axis.kind for axis in view.axes if axis.kind.is_of_row}
    drawn = next((cell.render for cell in view.cells if cell.render), None)
    names = {used.adapter_id: used.name for used in drawn.stack} if drawn else {}
    found = []
    for row, used in enumerate(view.grid.request["adapters"]):
        words, kinds = weight_text(used["weight"]), {a.kind for a in view.axes if a.row == row}
        if row not in of_rows:
            name = names.get(used["adapter_id"], "a deleted adapter")
            found.append(f"{'beside' if of_rows else 'with'} {name} {words}")
        elif AxisKind.CHECKPOINT in kinds and AxisKind.WEIGHT not in kinds:
            found.append(f"weight {words}")
    return found


def axis_words(axes: Sequence[Axis]) -> list[tuple[str, str]]:
    """Each axis with what it varies, for a list of facts."""
    named = [
        (name.capitalize(), f"{_kind_words(axis)}, {_values_words(axis)}")
        for name, axis in zip(PLACES, axes, strict=False)
    ]
    return [*named, *((name.capitalize(), "one") for name in PLACES[len(axes) :])]


def _kind_words(axis: Axis) -> str:
    of = "of" if axis.kind is AxisKind.WEIGHT else "in place of"
    return f"{axis.kind.label.lower()} {of} {axis.name}" if axis.name else axis.kind.label.lower()


def _values_words(axis: Axis) -> str:
    if axis.run_id is not None:
        all_of_them = "" if ":" in axis.text else "all "
        return f"run {axis.run_id}, {all_of_them}{plural(len(axis.values), 'checkpoint')}"
    text = " ".join(axis.text.split())
    is_short = 0 < len(text) <= 60 and axis.kind is not AxisKind.PROMPT
    return text if is_short else plural(len(axis.values), "value")


def chosen_cell(
    session: Session, view: GridView, place: int, *, told: str = "", is_oob: bool = False
) -> ChosenCell:
    """A cell for the side panel."""
    cell = view.cells[place]
    used = subject_of(view, cell)
    adapter = None
    if used and cell.image and adapters.still_here(session, [used.adapter_id]):
        adapter = adapters.get_adapter(session, used.adapter_id)
    again = ""
    if cell.render is not None:
        base = base_models.base_of(session, cell.render.base_model_id)
        again = form_of_render(cell.render, base.slug, cell.index).link
    return ChosenCell(
        grid_id=view.grid.key,
        cell=cell,
        title=view.title_of(cell),
        subject=adapter.name if adapter else "",
        weight=weight_text(used.weight) if used and adapter else "",
        is_checkpoint=adapter is not None and not adapter.is_listed,
        is_winner=view.grid.winner == place,
        again=again,
        neighbor=neighbor_of(view, cell),
        told=told,
        is_oob=is_oob,
    )


def neighbor_of(view: GridView, cell: CellView) -> int | None:
    """The place of the next cell in the row, else the one before, else below, above, behind."""
    sizes, here = view.grid.sizes, (cell.column, cell.row, cell.sheet)
    for axis, most in enumerate(sizes):
        if most > 1:
            at = list(here)
            at[axis] += 1 if at[axis] + 1 < most else -1
            return place_of(sizes, *at)
    return None
