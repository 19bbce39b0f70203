"""Drafts of the playground: live redraws of a weight that moves, and strips.

A strip is one seed at several weights or checkpoints, generated in one request. One adapter at nine
weights is a line, two adapters at five weights each are a square.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Annotated

from fastapi import Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import drafts, listing, service, strips
from app.registry.renders.plan import plan_render, usual_of
from app.registry.renders.requests import RenderRequest
from app.registry.tables.renders import Render, RenderImage
from app.web.access.needs import Action, Router
from app.web.forms import SentForm
from app.web.playground.forms import MAX_ROWS, PLACE, PlayForm, read_form, read_shown
from app.web.playground.result_view import instead_of_result, progress_of, result_fragment
from app.web.playground.stack import StackView, look_up
from app.web.state import Id, Reading, State
from app.web.templates import render_fragment, wants_fragment
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

router = Router(include_in_schema=False)

SLOT = re.compile(r"[0-9a-f]{16,64}", re.ASCII)  # of a tab
STRIP_SLOT = "{slot}-strip"  # beside the live redraws of the same tab
FALLBACK_SLOT = "strip"  # of browsers without scripts, which wait for the page of the render
PAIR = re.compile(r"(\d{1,3})-(\d{1,3})", re.ASCII)

Places = Annotated[list[Annotated[int, Query(ge=0, le=MAX_ROWS)]], Query(max_length=2)]


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


@router.post("/play/live", Action.DRAW)
def redraw(state: State, sent: SentForm) -> Response:
    """Queue a draft with the weights of the form; it replaces the one before of the same tab.

    `slot` names the tab, `shown` is the render whose image stays in view until then.
    """
    form = read_form(sent.multi_items())
    slot = str(sent.get("slot", ""))
    if not SLOT.fullmatch(slot):
        raise InvalidInput("The tab has no valid name. Reload the page.")
    same_seed = replace(form, keep_seed=True, count="1")  # the first image, with its seed
    try:
        with state.database.read() as session:  # no other writer waits for these queries
            plan = plan_render(session, same_seed.request(session))
        with state.database.write() as session:
            draft = drafts.store_draft(session, plan, state.store, slot=slot)
            drawn = replace(form, seed=str(draft.seed))
            fragment = result_fragment(session, draft, drawn, shown=read_shown(sent))
    except AppError as error:
        refused = render_fragment("playground/_live_problem.html", problem=error.detail)
        refused.headers["HX-Retarget"] = "#live-told"
        refused.headers["HX-Reswap"] = "innerHTML"  # the next one is said there, too
        return refused
    response = instead_of_result(fragment)
    response.headers["HX-Replace-Url"] = drawn.link
    return response


@router.post("/play/strip", Action.DRAW)
def make_strip(request: Request, state: State, sent: SentForm) -> Response:
    """Queue a strip, or say in its place why there is none.

    It replaces the one before of the same tab. `weights` or `checkpoints` has the row of its
    adapter. Else it is a square of two rows, such as `0-1`: those of `pair`, or else of the choice
    `square`; absent: the first two that are on.
    """
    form = read_form(sent.multi_items())
    tab = str(sent.get("slot", ""))
    slot = STRIP_SLOT.format(slot=tab) if SLOT.fullmatch(tab) else FALLBACK_SLOT
    try:
        with state.database.read() as session:  # no other writer waits for these queries
            strip, places = _plan(session, form, sent)
        with state.database.write() as session:
            render = drafts.create_draft(session, strip, state.store, slot=slot)
    except AppError as error:
        if not wants_fragment(request):
            raise
        return render_fragment("playground/_strip.html", strip=None, problem=error.detail)
    if not wants_fragment(request):
        return RedirectResponse(f"/renders/{render.key}", status_code=303)
    with state.database.read() as session:
        view = _view(session, render, places)
    form = replace(form, seed=str(render.seed))
    return render_fragment("playground/_strip_sent.html", strip=view, problem="", form=form)


def _plan(session: Session, form: PlayForm, sent: FormData) -> tuple[RenderRequest, Sequence[int]]:
    """The request of a strip, and the rows of the form that vary. Raises AppError."""
    stack = look_up(session, form)
    rows = stack.rows
    filled = replace(form, stack=tuple(row.row for row in rows), keep_seed=True, count="1")
    request = filled.request(session)
    on = [place for place, row in enumerate(form.stack) if row.is_on]
    if noun := next((name for name in ("weights", "checkpoints") if name in sent), ""):
        text = str(sent[noun])
        if not PLACE.fullmatch(text) or int(text) not in on:
            raise InvalidInput(f"Turn the adapter on to see its {noun}.")
        places = [int(text)]
    else:
        pair = PAIR.fullmatch(str(sent.get("pair") or sent.get("square") or ""))
        places = sorted(map(int, pair.groups())) if pair else on[:2]
        if len(set(places)) < 2 or not set(places) <= set(on):
            raise InvalidInput("Turn two adapters on to see both weights.")
    varied = [on.index(place) for place in places]
    if noun == "checkpoints":
        used = _version_of(session, rows[places[0]])
        assert used is not None  # else the request was refused
        return strips.vary_checkpoints(session, request, varied[0], used), places
    current = [rows[place].row.number or 0.0 for place in on]
    return strips.vary_weights(request, current, varied, usual_of(stack.base).weight), places


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


@router.get("/renders/{render_id}/strip", Action.LOOK)
def show_strip(render_id: Id, session: Reading, place: Places) -> Response:
    """Show a strip; polls until it is finished, and has nothing once a newer one replaced it.

    `place`: the rows of its adapters in the form.
    """
    render = service.get_render(session, render_id)
    if drafts.is_replaced(session, render):
        return Response(status_code=204)
    if not render.weights:
        raise NotFound("This image is no strip.")
    view = _view(session, render, place)
    return render_fragment("playground/_strip_sent.html", strip=view, problem="", form=None)


def _view(session: Session, render: Render, places: Sequence[int]) -> StripView:
    """A strip; `places`: the rows of its adapters in the form."""
    is_run = any(None in row for row in render.weights or [])  # its images have an adapter each
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
        address=f"/renders/{render.key}/strip?{query}",
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
