"""Strips of the playground: one seed at several weights, generated in one request.

One adapter at nine weights is a line, two adapters at five weights each are a square.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, groupby
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import drafts, listing, service
from app.registry.renders.requests import RenderRequest
from app.registry.renders.strips import square_weights, usual_weights, vary
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
    """An image, None until it is there, and its weights: one for each adapter that varies.

    `put`: of a checkpoint, what puts it into the stack, such as `0=ink-run-3@150`.
    """

    weights: tuple[float, ...]
    label: str
    image: RenderImage | None
    is_first: bool
    words: str = ""
    put: str = ""


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
        """What it shows."""
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
        """What a screen reader says once they are there."""
        return "" if self.is_active or self.error else f"All {len(self.items)} images are ready."


@dataclass(frozen=True)
class StripFragment:
    """The strip below the result; `problem`: why there is none."""

    strip: StripView | None
    problem: str = ""


@dataclass(frozen=True)
class StripStarted:
    """A strip that was asked for, with the form whose seed it has."""

    strip: StripView
    form: PlayForm
    problem: str = ""


@router.post("/play/strip")
def make_strip(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a strip of the adapter in row `place`; it replaces the one before of the same tab."""
    text = str(sent.get("place", ""))
    asked = int(text) if PLACE.fullmatch(text) else None

    def choose(on: Sequence[int]) -> list[int]:
        if asked is None or asked not in on:
            raise InvalidInput("Turn the adapter on to see its weights.")
        return [asked]

    return _make(request, state, sent, choose)


@router.post("/play/square")
def make_square(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a square of two adapters; it replaces the strip before of the same tab.

    `pair`, or else the choice `square`, has their rows, such as `0-1`; absent: the first two that
    are on.
    """
    pair = PAIR.fullmatch(str(sent.get("pair") or sent.get("square") or ""))
    asked = [int(pair[1]), int(pair[2])] if pair else []

    def choose(on: Sequence[int]) -> list[int]:
        places = sorted(asked) or list(on[:2])
        if len(set(places)) < 2 or not set(places) <= set(on):
            raise InvalidInput("Turn two adapters on to see both weights.")
        return places

    return _make(request, state, sent, choose)


def pairs_of(stack: Sequence[StackView]) -> list[tuple[str, str]]:
    """Each two adapters of the stack, for a square: their rows, such as `0-1`, and names."""
    named = [(place, row.adapter.name) for place, row in enumerate(stack) if row.adapter]
    return [
        (f"{down}-{across}", f"{first} and {second}")
        for (down, first), (across, second) in combinations(named[:MAX_RENDER_ADAPTERS], 2)
    ]


Choose = Callable[[Sequence[int]], list[int]]
"""The rows whose weights vary, of those that are on. Raises InvalidInput."""


def _make(request: Request, state: State, sent: SentForm, choose: Choose) -> Response:
    def plan(session: Session, form: PlayForm) -> PlannedStrip:
        places, strip = _request(session, form, choose)
        return strip, partial(_view, places=places)

    return queue_strip(request, state, sent, plan)


PlannedStrip = tuple[RenderRequest, Callable[[Session, Render], StripView]]
"""The request of a strip, and what shows its render."""


def queue_strip(
    request: Request,
    state: State,
    sent: SentForm,
    plan: Callable[[Session, PlayForm], PlannedStrip],
) -> Response:
    """Queue the strip that `plan` makes of the form, or say in its place why there is none.

    It replaces the one before of the same tab.
    """
    form = read_form(sent.multi_items())
    try:
        with state.database.read() as session:  # no other writer waits for these queries
            strip, show = plan(session, form)
        with state.database.write() as session:
            slot = _slot_of(str(sent.get("slot", "")))
            render = drafts.create_draft(session, strip, state.store, slot=slot)
    except AppError as error:
        if not wants_fragment(request):
            raise
        return render_fragment("playground/_strip.html", StripFragment(None, error.detail))
    if not wants_fragment(request):
        return RedirectResponse(f"/renders/{render.key}", status_code=303)
    with state.database.read() as session:
        view = show(session, render)
    started = StripStarted(view, replace(form, seed=str(render.seed)))
    return render_fragment("playground/_strip_started.html", started)


def _slot_of(tab: str) -> str:
    """The slot of the strips of a tab, which is beside that of its live redraws."""
    return STRIP_SLOT.format(slot=tab) if SLOT.fullmatch(tab) else FALLBACK_SLOT


def _request(
    session: Session, form: PlayForm, choose: Choose
) -> tuple[Sequence[int], RenderRequest]:
    """The rows whose weights vary, and the request. Raises AppError."""
    request = replace(form, keep_seed=True, count="1").request(session)
    stack = look_up(session, form).rows
    on = [place for place, row in enumerate(form.stack) if row.is_on]
    places = choose(on)
    current = [stack[place].row.number or 0.0 for place in on]
    varied = [on.index(place) for place in places]
    at = [current[index] for index in varied]
    values = [(weight,) for weight in usual_weights(*at)] if len(at) == 1 else square_weights(*at)
    weights = vary(current, [dict(zip(varied, value, strict=True)) for value in values])
    return places, request.model_copy(update={"weights": weights, "twin": False})


@router.get("/renders/{render_id}/strip")
def show_strip(render_id: Id, state: State, place: Places) -> Response:
    """Show a strip; polls until it is finished. `place`: the rows of its adapters in the form."""
    return polled_strip(state, render_id, partial(_view, places=place))


def polled_strip(
    state: State, render_id: int, show: Callable[[Session, Render], StripView]
) -> Response:
    """The strip of a render as `show` makes it; nothing once a newer one has replaced it."""
    with state.database.read() as session:
        render = service.get_render(session, render_id)
        if drafts.is_replaced(session, render):
            return Response(status_code=204)
        fragment = StripFragment(show(session, render))
    return render_fragment("playground/_strip_polled.html", fragment)


def _view(session: Session, render: Render, places: Sequence[int]) -> StripView:
    if render.weights is None:
        raise NotFound("This image is no strip of weights.")
    weights, stack = render.weights, render.stack
    if any(None in row for row in weights):
        raise NotFound("This strip shows the checkpoints of a run.")
    varied = [index for index in range(len(stack)) if len({row[index] for row in weights}) > 1]
    varied = varied or [0]  # of one image
    names = [stack[index].name for index in varied]
    if len(set(names)) < len(names):
        names = [f"{stack[index].name} v{stack[index].version}" for index in varied]
    images = {image.index: image for image in listing.images_of(session, [render])[render.key]}
    items = []
    for index, row in enumerate(weights):
        at = tuple(row[column] or 0.0 for column in varied)
        label = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, at, strict=True))
        items.append(StripImage(at, label, images.get(index), index == 0, f"{at[-1]:.2f}"))
    return strip_view(
        session,
        render,
        places=places,
        names=names,
        items=sorted(items, key=lambda item: item.weights),
        address=f"/renders/{render.key}/strip?" + "&".join(f"place={place}" for place in places),
    )


def strip_view(session: Session, render: Render, **values: Any) -> StripView:
    """A strip with its progress; the rest is given."""
    has_ended_without = not render.state.is_active and render.state is not JobStatus.SUCCEEDED
    return StripView(
        render=render,
        progress=progress_of(render, worker_present=service.has_render_worker(session)),
        error=(render.error or "Canceled.") if has_ended_without else "",
        **values,
    )
