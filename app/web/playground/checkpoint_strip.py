"""Strips of checkpoints: the image of the form with each checkpoint of a run, in one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.registry.adapters import service as adapters
from app.registry.db import Session
from app.registry.errors import InvalidInput, NotFound
from app.registry.renders import checkpoint_strips, listing
from app.registry.renders.requests import RenderRequest
from app.registry.tables.renders import Render
from app.web.forms import SentForm
from app.web.playground.forms import PLACE, PlayForm
from app.web.playground.stack import StackView, look_up
from app.web.playground.strip import (
    PlannedStrip,
    RowPlace,
    StripImage,
    StripView,
    polled_strip,
    queue_strip,
    strip_view,
)
from app.web.state import Id, State

router = APIRouter(include_in_schema=False)


def rows_with_steps(session: Session, stack: Sequence[StackView]) -> list[int]:
    """The rows of the stack whose adapters come from a run with several checkpoints."""
    return [
        place
        for place, row in enumerate(stack)
        if row.adapter is not None
        and checkpoint_strips.has_steps(
            session, row.adapter, adapters.get_version(session, row.adapter, row.version)
        )
    ]


@router.post("/play/checkpoints")
def make_strip(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a strip of the run that made the adapter in row `place`."""
    text = str(sent.get("place", ""))
    place = int(text) if PLACE.fullmatch(text) else None

    def plan(session: Session, form: PlayForm) -> PlannedStrip:
        return _request(session, form, place), partial(_view, place=place or 0)

    return queue_strip(request, state, sent, plan)


def _request(session: Session, form: PlayForm, place: int | None) -> RenderRequest:
    """The request. Raises AppError."""
    stack = look_up(session, form).rows
    filled = replace(form, stack=tuple(row.row for row in stack), keep_seed=True, count="1")
    request = filled.request(session)
    on = [index for index, row in enumerate(form.stack) if row.is_on]
    if place is None or place not in on:
        raise InvalidInput("Turn the adapter on to see its checkpoints.")
    varied = stack[place].adapter
    assert varied is not None  # else the request was refused
    version = adapters.get_version(session, varied, stack[place].version)
    steps, first = checkpoint_strips.steps_of_run(session, varied, version)
    return checkpoint_strips.vary_adapter(request, on.index(place), steps, first=first)


@router.get("/renders/{render_id}/checkpoints")
def show_strip(render_id: Id, state: State, place: RowPlace) -> Response:
    """Show a strip of checkpoints; polls until it is finished. `place`: the row in the form."""
    return polled_strip(state, render_id, partial(_view, place=place))


def _view(session: Session, render: Render, place: int) -> StripView:
    weights, stack = render.weights or [], render.stack
    varied = [index for index in range(len(stack)) if any(row[index] is None for row in weights)]
    if not varied:
        raise NotFound("This image is no strip of checkpoints.")
    images = {image.index: image for image in listing.images_of(session, [render])[render.key]}
    items = {}
    for index, row in enumerate(weights):
        column = next((column for column in varied if row[column] is not None), varied[0])
        used = stack[column]
        name = checkpoint_strips.step_label(session, used)
        label = f"{used.name} {name}, {row[column] or 0:.2f}"
        put = f"{place}={used.slug}@{used.version}"
        words = name.removeprefix("step ")
        items[column] = StripImage((), label, images.get(index), index == 0, words, put)
    return strip_view(
        session,
        render,
        places=[],
        names=[stack[varied[0]].name],
        items=[item for _, item in sorted(items.items())],
        address=f"/renders/{render.key}/checkpoints?place={place}",
        is_run=True,
    )
