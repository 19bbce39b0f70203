"""Strips of the playground: one seed at several weights or checkpoints, generated in one request.

One adapter at nine weights is a line, two adapters at five weights each are a square.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import drafts, listing, service, strips
from app.registry.renders.requests import RenderRequest
from app.registry.tables.renders import Render, RenderImage
from app.web.forms import SentForm
from app.web.playground.forms import MAX_ROWS, PLACE, PlayForm, read_form
from app.web.playground.live import SLOT
from app.web.playground.result_view import progress_of
from app.web.playground.stack import StackView, look_up
from app.web.state import Id, State
from app.web.templates import render_fragment, wants_fragment
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

router = APIRouter(include_in_schema=False)

STRIP_SLOT = "{slot}-strip"  # beside the live redraws of the same tab
FALLBACK_SLOT = "strip"  # of browsers without scripts, which wait for the page of the render
PAIR = re.compile(r"(\d{1,3})-(\d{1,3})", re.ASCII)

RowPlace = Annotated[int, Query(ge=0, le=MAX_ROWS)]
Places = Annotated[list[RowPlace], Query(max_length=2)]


@dataclass(frozen=True)
class StripImage:
    """Image `index` of the render, None until it is there.

    `weights`: one for each adapter that varies. `put`: of a checkpoint, what puts it into the
    stack, such as `0=ink-run-3@150`.
    """

    index: int
    label: str
    words: str
    weights: tuple[float, ...] = ()
    put: str = ""
    image: RenderImage | None = None

    @property
    def is_first(self) -> bool:
        """True for the image that was generated first: that of the form."""
        return self.index == 0


@dataclass(frozen=True)
class StripView:
    """A strip in any state, its images in the order of their weights.

    `places`: the rows of the adapters that vary in the form; `names`: those adapters. `address` is
    asked for the strip until it is finished. `is_run`: its images are in the order of the
    checkpoints of a run.
    """

    render: Render
    places: Sequence[int]
    names: Sequence[str]
    items: Sequence[StripImage]
    progress: str
    error: str
    address: str
    is_run: bool = False

    @property
    def is_active(self) -> bool:
        """True while the images are still to come."""
        return self.render.state.is_active

    @property
    def title(self) -> str:
        """The heading of the strip."""
        if self.is_run:
            return f"Checkpoints of {self.names[0]}"
        return "Both weights" if self.is_square else f"Weight of {self.names[0]}"

    @property
    def is_square(self) -> bool:
        """True if two adapters vary."""
        return len(self.names) > 1

    @property
    def first(self) -> int:
        """The place of the image that was generated first: that of the form."""
        return next((place for place, item in enumerate(self.items) if item.is_first), 0)

    @property
    def rows(self) -> list[list[StripImage]]:
        """The images of a square, a row for each weight of the first adapter."""
        return [list(row) for _, row in groupby(self.items, key=lambda item: item.weights[0])]

    @property
    def announcement(self) -> str:
        """The words for a screen reader once the images are there."""
        return "" if self.is_active or self.error else f"All {len(self.items)} images are ready."


@dataclass(frozen=True)
class StripFragment:
    """The strip below the result; `problem`: why there is none.

    `form`: of a strip that was just asked for, with its seed.
    """

    strip: StripView | None
    problem: str = ""
    form: PlayForm | None = None


@dataclass(frozen=True)
class StripForm:
    """The form that a strip is made of, with all weights filled in.

    `rows`: the whole stack; `on`: the rows of the adapters of `request`.
    """

    request: RenderRequest
    rows: Sequence[StackView]
    on: Sequence[int]

    def row(self, sent: SentForm, noun: str) -> int:
        """The row of the adapter that is asked for. Raises InvalidInput if it is not on."""
        text = str(sent.get("place", ""))
        if not PLACE.fullmatch(text) or int(text) not in self.on:
            raise InvalidInput(f"Turn the adapter on to see its {noun}.")
        return int(text)

    def vary(self, places: Sequence[int]) -> RenderRequest:
        """The request with the weights of these rows varied."""
        current = [self.rows[place].row.number or 0.0 for place in self.on]
        return strips.vary_weights(self.request, current, [*map(self.on.index, places)])


Plan = Callable[[Session, StripForm], tuple[RenderRequest, Sequence[int]]]
"""The request of a strip, and the rows of the form that vary. Raises AppError."""


@router.post("/play/strip")
def make_strip(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a strip of the adapter in row `place`; it replaces the one before of the same tab."""

    def plan(_: Session, form: StripForm) -> tuple[RenderRequest, Sequence[int]]:
        place = form.row(sent, "weights")
        return form.vary([place]), [place]

    return _queue(request, state, sent, plan)


@router.post("/play/square")
def make_square(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a square of two adapters; it replaces the strip before of the same tab.

    `pair`, or else the choice `square`, has their rows, such as `0-1`; absent: the first two that
    are on.
    """
    pair = PAIR.fullmatch(str(sent.get("pair") or sent.get("square") or ""))

    def plan(_: Session, form: StripForm) -> tuple[RenderRequest, Sequence[int]]:
        places = sorted(map(int, pair.groups())) if pair else form.on[:2]
        if len(set(places)) < 2 or not set(places) <= set(form.on):
            raise InvalidInput("Turn two adapters on to see both weights.")
        return form.vary(places), places

    return _queue(request, state, sent, plan)


@router.post("/play/checkpoints")
def make_checkpoints(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a strip of the run that made the adapter in row `place`."""

    def plan(session: Session, form: StripForm) -> tuple[RenderRequest, Sequence[int]]:
        place = form.row(sent, "checkpoints")
        used = _version_of(session, form.rows[place])
        assert used is not None  # else the request was refused
        at = form.on.index(place)
        return strips.vary_checkpoints(session, form.request, at, used), [place]

    return _queue(request, state, sent, plan)


def _queue(request: Request, state: State, sent: SentForm, plan: Plan) -> Response:
    """Queue the strip that `plan` makes of the form, or say in its place why there is none.

    It replaces the one before of the same tab.
    """
    form = read_form(sent.multi_items())
    tab = str(sent.get("slot", ""))
    slot = STRIP_SLOT.format(slot=tab) if SLOT.fullmatch(tab) else FALLBACK_SLOT
    try:
        with state.database.read() as session:  # no other writer waits for these queries
            strip, places = plan(session, _read(session, form))
        with state.database.write() as session:
            render = drafts.create_draft(session, strip, state.store, slot=slot)
    except AppError as error:
        if not wants_fragment(request):
            raise
        return render_fragment("playground/_strip.html", StripFragment(None, error.detail))
    if not wants_fragment(request):
        return RedirectResponse(f"/renders/{render.key}", status_code=303)
    with state.database.read() as session:
        view = _view(session, render, places)
    fragment = StripFragment(view, form=replace(form, seed=str(render.seed)))
    return render_fragment("playground/_strip_sent.html", fragment)


def _read(session: Session, form: PlayForm) -> StripForm:
    """The form of one image, with its seed. Raises AppError."""
    rows = look_up(session, form).rows
    filled = replace(form, stack=tuple(row.row for row in rows), keep_seed=True, count="1")
    on = [place for place, row in enumerate(form.stack) if row.is_on]
    return StripForm(filled.request(session), rows, on)


def pairs_of(stack: Sequence[StackView]) -> list[tuple[str, str]]:
    """Each two adapters of the stack, for a square: their rows, such as `0-1`, and names."""
    named = [(place, row.adapter.name) for place, row in enumerate(stack) if row.adapter]
    return [
        (f"{down}-{across}", f"{first} and {second}")
        for (down, first), (across, second) in combinations(named[:MAX_RENDER_ADAPTERS], 2)
    ]


def rows_with_checkpoints(session: Session, stack: Sequence[StackView]) -> list[int]:
    """The rows of the stack whose adapters come from a run with several checkpoints."""
    found = enumerate(_version_of(session, row) for row in stack)
    return [place for place, used in found if used and strips.has_checkpoints(session, used)]


def _version_of(session: Session, row: StackView) -> AdapterAndVersion | None:
    """The adapter and version of a row; None if it does not exist."""
    if row.adapter is None:
        return None
    return row.adapter, adapters.get_version(session, row.adapter, row.version)


@router.get("/renders/{render_id}/strip")
def show_strip(render_id: Id, state: State, place: Places) -> Response:
    """Show a strip; polls until it is finished. `place`: the rows of its adapters in the form."""
    return _polled(state, render_id, place, is_run=False)


@router.get("/renders/{render_id}/checkpoints")
def show_checkpoints(render_id: Id, state: State, place: RowPlace) -> Response:
    """Show a strip of checkpoints; polls until it is finished. `place`: the row in the form."""
    return _polled(state, render_id, [place], is_run=True)


def _polled(state: State, render_id: int, places: Sequence[int], *, is_run: bool) -> Response:
    """The strip of a render; nothing once a newer one has replaced it."""
    with state.database.read() as session:
        render = service.get_render(session, render_id)
        if drafts.is_replaced(session, render):
            return Response(status_code=204)
        if not render.weights or _is_run(render) is not is_run:
            noun = "checkpoints" if is_run else "weights"
            raise NotFound(f"This image is no strip of {noun}.")
        fragment = StripFragment(_view(session, render, places))
    return render_fragment("playground/_strip_sent.html", fragment)


def _is_run(render: Render) -> bool:
    """True for a strip whose images have an adapter each, as those of checkpoints do."""
    return any(None in row for row in render.weights or [])


def _view(session: Session, render: Render, places: Sequence[int]) -> StripView:
    """A strip; `places`: the rows of its adapters in the form."""
    is_run = _is_run(render)
    names, items = (
        _checkpoint_images(session, render, places[0]) if is_run else _weight_images(render)
    )
    images = {image.index: image for image in listing.images_of(session, [render])[render.key]}
    items = [replace(item, image=images.get(item.index)) for item in items]
    has_ended_without = not render.state.is_active and render.state is not JobStatus.SUCCEEDED
    query = "&".join(f"place={place}" for place in places)
    return StripView(
        render=render,
        places=[] if is_run else places,
        names=names,
        items=items,
        progress=progress_of(render, worker_present=service.has_render_worker(session)),
        error=(render.error or "Canceled.") if has_ended_without else "",
        address=f"/renders/{render.key}/{'checkpoints' if is_run else 'strip'}?{query}",
        is_run=is_run,
    )


def _weight_images(render: Render) -> tuple[list[str], list[StripImage]]:
    """The adapters that vary, and the images in the order of their weights."""
    weights, stack = render.weights or [], render.stack
    varied = [index for index in range(len(stack)) if len({row[index] for row in weights}) > 1]
    varied = varied or [0]  # of one image
    names = [stack[index].name for index in varied]
    if len(set(names)) < len(names):
        names = [f"{stack[index].name} v{stack[index].version}" for index in varied]
    items = []
    for index, row in enumerate(weights):
        at = tuple(row[column] or 0.0 for column in varied)
        label = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, at, strict=True))
        items.append(StripImage(index, label, f"{at[-1]:.2f}", weights=at))
    return names, sorted(items, key=lambda item: item.weights)


def _checkpoint_images(
    session: Session, render: Render, place: int
) -> tuple[list[str], list[StripImage]]:
    """The adapter whose run it is, and the images in the order of its checkpoints."""
    weights, stack = render.weights or [], render.stack
    varied = [index for index in range(len(stack)) if any(row[index] is None for row in weights)]
    items = {}
    for index, row in enumerate(weights):
        column = next((column for column in varied if row[column] is not None), varied[0])
        used = stack[column]
        name = strips.label_of(session, used)
        label = f"{used.name} {name}, {row[column] or 0:.2f}"
        put = f"{place}={used.slug}@{used.version}"
        items[column] = StripImage(index, label, name.removeprefix("step "), put=put)
    return [stack[varied[0]].name], [item for _, item in sorted(items.items())]
