"""The strip of the playground: one seed at nine weights of an adapter, generated in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.renders import drafts, listing, service
from app.registry.renders.models import Render, RenderImage
from app.registry.renders.strips import usual_weights
from app.web.forms import SentForm
from app.web.playground.forms import PlayForm, read_form
from app.web.playground.live import SLOT
from app.web.playground.result_view import progress_of
from app.web.playground.stack import StackView, look_up
from app.web.state import Id, State
from app.web.templates import render_fragment, wants_fragment

router = APIRouter(include_in_schema=False)

STRIP_SLOT = "{slot}-strip"  # beside the live redraws of the same tab
FALLBACK_SLOT = "strip"  # of browsers without scripts, which wait for the page of the render


@dataclass(frozen=True)
class StripImage:
    """A weight and its image; None until it is there."""

    weight: float
    image: RenderImage | None


@dataclass(frozen=True)
class StripView:
    """A strip in any state, its images in the order of their weights.

    `place`: the row of the adapter in the form.
    """

    render: Render
    place: int
    name: str
    items: Sequence[StripImage]
    progress: str
    error: str

    @property
    def is_active(self) -> bool:
        """True while the images are still to come."""
        return self.render.state.is_active


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
    form = read_form(sent.multi_items())
    same_seed = replace(form, keep_seed=True, count="1")
    slot, place = str(sent.get("slot", "")), str(sent.get("place", ""))
    with state.database.read() as session:
        stack = look_up(session, form).rows
    try:
        with state.database.write() as session:
            render = _create(session, state, same_seed, stack, slot=slot, place=place)
    except AppError as error:
        if not wants_fragment(request):
            raise
        fragment = StripFragment(None, error.detail)
        return render_fragment("playground/_strip.html", fragment)
    if not wants_fragment(request):
        return RedirectResponse(f"/renders/{render.key}", status_code=303)
    with state.database.read() as session:
        strip = _view(session, render, int(place))
    started = StripStarted(strip, replace(form, seed=str(render.seed)))
    return render_fragment("playground/_strip_started.html", started)


def _create(
    session: Session, state: State, form: PlayForm, stack: list[StackView], *, slot: str, place: str
) -> Render:
    request = form.request(session)
    on = [index for index, row in enumerate(form.stack) if row.is_on]
    if not place.isascii() or not place.isdigit() or int(place) not in on:
        raise InvalidInput("Turn the adapter on to see its weights.")
    current = [float(stack[index].row.number or 0) for index in on]
    varied = on.index(int(place))
    weights = [
        [weight if index == varied else other for index, other in enumerate(current)]
        for weight in usual_weights(current[varied])
    ]
    name = STRIP_SLOT.format(slot=slot) if SLOT.fullmatch(slot) else FALLBACK_SLOT
    strip = replace(request, weights=weights, twin=False)
    return drafts.create_draft(session, strip, state.store, slot=name)


@router.get("/renders/{render_id}/strip")
def show_strip(render_id: Id, state: State, place: int = 0) -> Response:
    """Show a strip; polls until it is finished."""
    with state.database.read() as session:
        render = service.get_render(session, render_id)
        if drafts.is_replaced(session, render):
            return Response(status_code=204)
        fragment = StripFragment(_view(session, render, place))
    return render_fragment("playground/_strip.html", fragment)


def _view(session: Session, render: Render, place: int) -> StripView:
    weights, stack = render.weights or [], render.stack
    varied = next(
        (index for index in range(len(stack)) if len({row[index] for row in weights}) > 1), 0
    )
    images = {image.index: image for image in listing.images_of(session, [render])[render.key]}
    items = [StripImage(row[varied], images.get(index)) for index, row in enumerate(weights)]
    return StripView(
        render=render,
        place=place,
        name=stack[varied].name if stack else "",
        items=sorted(items, key=lambda item: item.weight),
        progress=progress_of(render, worker_present=service.has_render_worker(session)),
        error="" if render.state.is_active or images else render.error or "Canceled.",
    )
