"""The form of a new grid: the settings that its cells share, and its axes, kept as text."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.registry.adapters.resolve import resolve
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.renders.grids.axes import MAX_AXIS_TEXT, PLACES, AxisRequest
from app.registry.renders.grids.cells import read_request
from app.registry.renders.grids.numbers import has_alternatives
from app.registry.renders.grids.plan import GridRequest, usual_title
from app.registry.tables.axes import AxisKind
from app.registry.tables.renders import Grid
from app.registry.validation import NOT_A_CHOICE, too_long
from app.web.addresses import MAX_ADDRESS
from app.web.form_reader import FormReader
from app.web.playground.adapter_rows import row_of
from app.web.playground.forms import PLACE, InvalidWeights, PlayForm, read_address, read_form
from app.web.playground.stack import StackView

MAX_PAIRS = 300  # of an address
USUAL_SEEDS = "1 to 4"
COPIED_FIELDS = ("prompt", "seed", "sampler", "steps", "width", "height")
SHARED = ("prompt", "seed", "steps", "guidance", "sampler")
Choice = tuple[str, str]


@dataclass(frozen=True)
class AxisForm:
    """An axis as entered: `what` is a kind with the adapter that it varies, such as `weight:0`."""

    name: str
    what: str = ""
    values: str = ""

    @property
    def hint(self) -> str:
        """How its values are written; empty for one that varies nothing."""
        kinds = (kind for kind in AxisKind if kind == self.what.partition(":")[0])
        return next((kind.example for kind in kinds), "")

    def read(self) -> AxisRequest | None:
        """The axis for the service; None for one that varies nothing. Raises InvalidInput."""
        if not self.what:
            return None
        kind, _, row = self.what.partition(":")
        number = int(row) if row.isascii() and row.isdigit() and len(row) < 4 else 0
        try:
            return AxisRequest(AxisKind(kind), self.values, number)
        except ValueError:
            raise InvalidInput(NOT_A_CHOICE, fields={self.name: NOT_A_CHOICE}) from None


@dataclass(frozen=True)
class GridForm:
    """The form of a new grid; `play` has the settings of all cells."""

    play: PlayForm
    axes: Sequence[AxisForm]
    title: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The query of the playground's URL with these settings."""
        return urlsplit(self.play.link).query

    @property
    def varied(self) -> set[str]:
        """The settings of all images that an axis varies, so that their fields are not used."""
        return {axis.what for axis in self.axes if axis.what in SHARED}

    def with_stack(self, change: Mapping[str, str]) -> GridForm:
        """The form with an adapter added, removed or replaced; axes vary the same ones as before.

        An axis that varies the weight of an adapter that is removed varies nothing.
        """
        play = self.play.with_stack(change)
        removed = len(play.stack) < len(self.play.stack)
        place = int(change["drop"]) if removed else len(self.play.stack)
        axes = [replace(axis, what=_after_removal(axis.what, place)) for axis in self.axes]
        return replace(self, play=play, axes=axes)

    def wanted(self, session: Session) -> GridRequest:
        """The grid for the service. Raises InvalidInput."""
        fields = dict(self.errors)
        axes: list[AxisRequest] = []
        for axis in self.axes:
            try:
                read = axis.read()
            except InvalidInput as error:
                fields |= error.fields
                continue
            if read is None and not axes and axis is self.axes[0]:
                fields[axis.name] = "Choose what the columns vary."
            if read is not None and len(axes) < PLACES.index(axis.name):
                fields.setdefault(axis.name, "Fill in the axis before this one first.")
            axes += [read] if read is not None else []
        try:
            request = replace(self.play, count="1").request(session)
        except InvalidWeights as error:
            fields |= error.fields
        if fields:
            raise InvalidInput(" ".join(dict.fromkeys(fields.values())), fields=fields)
        return GridRequest(request.model_copy(update={"twin": False}), axes, self.title)


def _after_removal(what: str, removed: int) -> str:
    """The subject of an axis after the adapter at a place was removed; empty for its weight."""
    kind, _, row = what.partition(":")
    if not PLACE.fullmatch(row) or int(row) < removed:
        return what
    if int(row) == removed:
        return "" if kind == AxisKind.WEIGHT else what
    return f"{kind}:{int(row) - 1}"


def usual_weights(factor: float) -> str:
    """The values of an axis of weights; `factor`: what weights are multiplied by as usual."""
    return f"{factor / 4:g} to {factor * 5 / 4:g} by {factor / 4:g}"


def usual_form(play: PlayForm, factor: float) -> GridForm:
    """The form of a new grid before anything is chosen; `factor`: see `usual_weights`."""
    columns = ("weight:0", usual_weights(factor)) if play.stack else ("seed", USUAL_SEEDS)
    rows = ("prompt", play.prompt) if has_alternatives(play.prompt) else ("", "")
    axes = [AxisForm("columns", *columns), AxisForm("rows", *rows), AxisForm("sheets")]
    return GridForm(play, axes)


def form_of_grid(session: Session, grid: Grid) -> GridForm:
    """The form that makes this grid again; adapters that are gone are left out."""
    request = read_request(grid.request)
    stack = []
    for used in request.adapters:
        with contextlib.suppress(NotFound):
            resolved, _ = resolve(session, used)
            stack.append(row_of(resolved.slug, resolved))
    base = ""
    with contextlib.suppress(AppError):
        base = base_models.find_base_model(session, request.base_model).slug
    values: dict[str, Any] = {
        "negative": request.negative_prompt,
        "clip_skip": request.clip_skip,
        "source": request.source and request.source.sha256,
        "strength": request.strength,
        "guidance": None if request.guidance is None else f"{request.guidance:g}",
        **{name: getattr(request, name) for name in COPIED_FIELDS},
    }
    texts: dict[str, Any] = {
        name: "" if value is None else str(value) for name, value in values.items()
    }
    play = PlayForm(stack=tuple(stack), base=base, **texts)
    axes = [
        AxisForm(name, f"{axis.kind}:{axis.row}" if axis.kind.is_of_row else axis.kind, axis.text)
        for name, axis in zip(PLACES, grid.varied, strict=False)
    ]
    title = "" if grid.title == usual_title(grid.varied) else grid.title
    return GridForm(play, [*axes, *map(AxisForm, PLACES[len(axes) :])], title)


def read_play_address(query: str) -> PlayForm:
    """The settings of the playground in the query of an address; of a longer one, none."""
    if len(query) > MAX_ADDRESS:
        return PlayForm()
    try:
        return read_address(parse_qsl(query, max_num_fields=MAX_PAIRS))
    except ValueError:
        return PlayForm()


def read_grid_form(sent: Mapping[str, Any]) -> GridForm:
    """Parse a submitted form; what is wrong is in its `errors`."""
    form = FormReader(sent)
    play = read_play_address(form.text("address"))
    own = read_form(sent.items())
    shared: dict[str, Any] = {name: form.text(name) for name in SHARED if name in form}
    play = replace(play, stack=own.stack, find=own.find, keep_seed=True, **shared)
    axes = []
    for name in PLACES:
        values = form.text(f"{name}-values")
        if len(values) > MAX_AXIS_TEXT:
            form.refuse(name, too_long(values, MAX_AXIS_TEXT))
        axes.append(AxisForm(name, form.text(f"{name}-what")[:40], values))
    return GridForm(play, axes, form.text("title"), form.errors)


def choices_of(stack: Sequence[StackView]) -> list[Choice]:
    """The choices for an axis, with the adapters of the stack by name."""
    names = [item.adapter.name if item.adapter else item.row.slug for item in stack]
    weights = [(f"weight:{row}", f"Weight of {name}") for row, name in enumerate(names)]
    if not names:
        weights = [("weight:0", "Weight")]
    swaps = []
    for kind in (AxisKind.ADAPTER, AxisKind.CHECKPOINT):
        swaps += [(f"{kind}:{row}", f"{kind.label} in place of {n}") for row, n in enumerate(names)]
        beside = " beside the others" if names else ""
        swaps.append((f"{kind}:{len(names)}", f"{kind.label}{beside}"))
    others = [(kind.value, kind.label) for kind in AxisKind if not kind.is_of_row]
    return [("", "Nothing"), *weights, *swaps, *others]
