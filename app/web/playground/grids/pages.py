"""Pages of grids: the list, a new one, and one with its cells as they come."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from app.registry import prompt_sets
from app.registry.db import MAX_ID, Session
from app.registry.deletion.lists import has_deleted
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.paging import find_page
from app.registry.people.whose import only
from app.registry.renders.grids import service, winner
from app.registry.renders.grids.plan import plan_grid
from app.registry.renders.grids.views import CellView, grid_view, list_grids
from app.registry.renders.grids.winner import WinnerAction
from app.registry.renders.plan import usual_of
from app.registry.state import AppState
from app.registry.tables.renders import Grid
from app.web.access.needs import Action, Router
from app.web.addresses import MAX_ADDRESS, ListLinks
from app.web.comparison import ComparedImage
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.media import content_disposition
from app.web.playground.adapter_picker import with_exact
from app.web.playground.forms import read_form, sampler_choices, unknown_choices
from app.web.playground.grids import views
from app.web.playground.grids.axis_boxes import axis_boxes, fill_axes
from app.web.playground.grids.forms import (
    GridForm,
    choices_of,
    form_of_grid,
    read_grid_form,
    read_play_address,
    usual_form,
)
from app.web.playground.grids.views import NewGridPage
from app.web.playground.source_panel import source_panel
from app.web.playground.stack import change_words, choices_beside, look_up
from app.web.state import Id, OptionalId, PageNumber, Reading, State, Words, Writing
from app.web.templates import go_to, redirect_with_notice, render, render_fragment, wants_fragment


def require_shown(request: Request, state: State) -> None:
    """Refuse the grid of a blind test that has not ended."""
    if grid_id := as_id(request.path_params.get("grid_id", "")):
        with state.database.read() as session:
            service.require_shown(session, grid_id)


router = Router(include_in_schema=False, dependencies=[Depends(require_shown)])

Place = Annotated[int | None, Query(ge=0, le=MAX_ID)]
Sheet = Annotated[int, Query(ge=0, le=MAX_ID)]
Waiting = Annotated[list[Annotated[int, Query(ge=0, le=MAX_ID)]], Query(max_length=400)]

SHARED_FIELDS = {
    "prompt": "Prompt",
    "seed": "Seed",
    "steps": "Steps",
    "guidance": "Guidance scale",
    "sampler": "Sampler",
    "title": "Title",
}
NO_PROMPT = "Enter a prompt to see how many images it will be, and how long they take."


@router.get("/grids", Action.LOOK)
def grids(request: Request, session: Reading, whose: Words = "", page: PageNumber = 1) -> Response:
    """List grids, newest first; a page number past the end shows the last page."""
    with only(session, Grid, whose):
        found = find_page(lambda number: list_grids(session, number=number), page)
    deleted = has_deleted(session, Grid)
    return render(
        request,
        "playground/grids/list.html",
        found=found,
        links=ListLinks("/grids", {"whose": whose}, ()),
        whose=whose,
        has_deleted=deleted,
    )


@router.get("/grids/new", Action.LOOK)
def new(request: Request, session: Reading, like: OptionalId = None) -> Response:
    """The form of a new grid, filled from a URL like that of the playground, or as another grid."""
    play = read_play_address(request.url.query)
    form = usual_form(play, usual_of(look_up(session, play).base).weight)
    if like is not None:
        form = form_of_grid(session, service.get_grid(session, like))
    return render(request, "playground/grids/new.html", _new_page(session, form))


@router.post("/grids/new", Action.LOOK)
def from_playground(request: Request, sent: SentForm) -> Response:
    """Go to the form of a new grid with the settings of the playground's form."""
    address = "/grids/new" + read_form(sent.multi_items()).link.removeprefix("/play")
    if len(address) > MAX_ADDRESS:
        raise InvalidInput("The prompts are too long for a grid. Shorten them first.")
    return go_to(request, address)


@router.post("/grids/estimate", Action.LOOK)
def estimate(request: Request, session: Reading, sent: SentForm) -> Response:
    """Say what a grid would cost, or what is wrong with it."""
    form = read_grid_form(dict(sent))
    try:
        plan = plan_grid(session, form.wanted(session))
        words, problem = views.estimate_words(plan), ""
    except AppError as error:
        is_begun = set(error.fields) != {"prompt"} or bool(form.play.prompt.strip())
        words, problem = ("", _reasons(error)) if is_begun else (NO_PROMPT, "")
    if not wants_fragment(request):
        page = _new_page(session, form, estimate=words, problem=problem)
        return render(request, "playground/grids/new.html", page)
    return render_fragment("playground/grids/_estimate.html", estimate=words, problem=problem)


@router.post(views.STACK_PATH, Action.LOOK)
def change_stack(request: Request, session: Reading, sent: SentForm) -> Response:
    """Add, remove or replace an adapter of a new grid; all other fields stay as typed.

    `fill` names an axis that varies something else now, `axis` one whose values were typed: what
    comes back for these are the axes.
    Without scripts, `find` is searched, or added if it is a slug.
    """
    before = read_grid_form(dict(sent))
    change: Mapping[str, str] = {name: str(value) for name, value in sent.multi_items()}
    if not wants_fragment(request):
        change = with_exact(session, change)
    after = before.with_stack(change)
    stack = look_up(session, after.play)
    if "axis" not in change:
        name = change.get("fill")
        after = fill_axes(session, after, stack, name, change.get(f"{name}-set", ""))
    told = change_words(session, before.play, stack.rows, change)
    page = _new_page(session, after, announcement=told)
    if not wants_fragment(request):
        return render(request, "playground/grids/new.html", page)
    if "fill" in change or "axis" in change:
        response = render_fragment("playground/grids/_axes.html", page)
    else:
        response = render_fragment("playground/grids/_stack_changed.html", page)
    response.headers["HX-Trigger-After-Settle"] = "stack-changed"
    return response


@router.post(f"{views.STACK_PATH}/find", Action.LOOK)
def find(session: Reading, sent: SentForm) -> Response:
    """Search for adapters to add to a new grid."""
    form = read_form(sent.multi_items())
    choices = choices_beside(session, form, look_up(session, form), with_used=True)
    return render_fragment("playground/_found.html", choices=choices, stack_path=views.STACK_PATH)


@router.post("/grids", Action.DRAW)
def create(request: Request, state: State, sent: SentForm) -> Response:
    """Create a grid; errors appear next to their fields."""
    form = read_grid_form(dict(sent))
    try:
        with state.database.read() as session:
            plan = plan_grid(session, form.wanted(session))
        with state.database.write() as session:
            grid = service.create_grid(session, plan, state.store)
    except AppError as error:
        with state.database.read() as session:
            page = _new_page(session, form, error)
        return render(request, "playground/grids/new.html", page, status=422)
    return RedirectResponse(f"/grids/{grid.key}", status_code=303)


def _reasons(error: AppError) -> str:
    """The reasons as text; a reason that is about one of the fields of all images names it."""
    reasons = (
        f"{SHARED_FIELDS[name]}: {reason}" if name in SHARED_FIELDS else reason
        for name, reason in error.fields.items()
    )
    return " ".join(dict.fromkeys(reasons)) or error.detail


def _new_page(
    session: Session,
    form: GridForm,
    error: AppError | None = None,
    estimate: str = "",
    problem: str = "",
    announcement: str = "",
) -> NewGridPage:
    errors = dict(error.fields) if error else {}
    stack = look_up(session, form.play, errors)
    errors |= unknown_choices(form.play, stack.bases)
    return NewGridPage(
        form=form,
        stack=stack.rows,
        choices=choices_beside(session, form.play, stack, with_used=True),
        axis_choices=choices_of(stack.rows),
        boxes=axis_boxes(session, form, stack),
        prompt_sets=prompt_sets.set_choices(session),
        source=source_panel(session, form.play, errors),
        samplers=sampler_choices(stack.base),
        errors=errors,
        summary=_reasons(error) if error else "",
        estimate=estimate,
        problem=problem,
        announcement=announcement,
    )


@router.get("/grids/{grid_id}", Action.LOOK)
def show(
    request: Request, grid_id: Id, session: Reading, sheet: Sheet = 0, cell: Place = None
) -> Response:
    """Show a sheet of a grid, and the chosen cell; polls until all images are there."""
    view = grid_view(session, service.get_grid(session, grid_id))
    place = view.grid.winner if cell is None else cell
    is_there = place is not None and 0 <= place < len(view.cells)
    chosen = views.chosen_cell(session, view, place or 0) if is_there else None
    facts = views.shared_words(session, view)
    columns, rows, sheets = view.grid.sizes
    sheet = min(max(sheet, 0), sheets - 1)
    cells = view.on_sheet(sheet)
    labels = [*(axis.labels for axis in view.axes), [], []]
    return render(
        request,
        "playground/grids/grid.html",
        view=view,
        sheet=sheet,
        table=[cells[row * columns : (row + 1) * columns] for row in range(rows)],
        columns=labels[0],
        rows=labels[1],
        sheets=labels[2],
        axes=views.axis_words(view.axes),
        facts=facts,
        progress=views.progress_words(view),
        chosen=chosen,
    )


@router.get("/grids/{grid_id}/live", Action.LOOK)
def live(grid_id: Id, session: Reading, sheet: Sheet = 0, w: Waiting = []) -> Response:  # noqa: B006
    """The progress of a grid, with those of the cells `w` that have changed."""
    view = grid_view(session, service.get_grid(session, grid_id))
    known = set(w)
    changed = [cell for cell in view.on_sheet(sheet) if cell.place in known]
    return render_fragment(
        "playground/grids/_live.html",
        view=view,
        sheet=sheet,
        changed=changed,
        progress=views.progress_words(view),
        told=views.end_announcement(view),
    )


@router.get("/grids/{grid_id}/cells/{place}", Action.LOOK)
def show_cell(request: Request, grid_id: Id, place: int, session: Reading) -> Response:
    """One cell for the side panel."""
    view = grid_view(session, service.get_grid(session, grid_id))
    cell = winner.cell_view(view, place)
    if not wants_fragment(request):
        return RedirectResponse(_address(grid_id, cell), status_code=303)
    fragment = views.chosen_cell(session, view, place, is_oob=True)
    return render_fragment("playground/grids/_chosen.html", chosen=fragment)


def _address(grid_id: int, cell: CellView) -> str:
    return f"/grids/{grid_id}?sheet={cell.sheet}&cell={cell.place}"


@router.get("/grids/{grid_id}/compare", Action.LOOK)
def compare(
    request: Request, grid_id: Id, session: Reading, a: Place = None, b: Place = None
) -> Response:
    """Compare two cells; without the second one, with the neighbor of the first."""
    view = grid_view(session, service.get_grid(session, grid_id))
    first = winner.cell_view(view, a or 0)
    other = views.neighbor_of(view, first) if b is None else b
    second = winner.cell_view(view, first.place if other is None else other)
    own, others = view.labels_of(first), view.labels_of(second)
    same = [one for one, two in zip(own, others, strict=True) if one == two]
    images = [
        ComparedImage(cell.image.sha256, _differing(labels, same), view.title_of(cell))
        for cell, labels in ((first, own), (second, others))
        if cell.image is not None
    ]
    return render(
        request,
        "playground/grids/compare.html",
        view=view,
        images=images if len(images) == 2 else [],
        caption=", ".join(same) or view.grid.title,
        whole=first.render,
        back=_address(grid_id, first),
    )


def _differing(labels: list[str], same: list[str]) -> str:
    """The labels that tell a cell from the other one; all of them for the same cell."""
    return ", ".join(label for label in labels if label not in same) or ", ".join(labels)


@router.get("/grids/{grid_id}/sheet.png", Action.LOOK)
def sheet_image(grid_id: Id, state: State, sheet: Sheet = 0) -> Response:
    """Download a sheet as one image with labels."""
    return sheet_response(state, grid_id, sheet)


def sheet_response(state: AppState, grid_id: int, sheet: int) -> Response:
    """A sheet as a download. Raises NotFound."""
    from app.registry.renders.grids.sheet import draw_sheet  # Pillow, which few requests need

    with state.database.read() as session:
        view = grid_view(session, service.get_grid(session, grid_id))
    sheet = min(sheet, view.grid.sizes[2] - 1)  # its name says which one it is
    content = draw_sheet(view, sheet, state.store)
    headers = {
        "content-disposition": content_disposition(f"brushwork-grid-{grid_id}-{sheet + 1}.png"),
        "cache-control": "private, no-store",
    }
    return Response(content, media_type="image/png", headers=headers)


@router.post("/grids/{grid_id}/winner", Action.EDIT)
def choose(request: Request, grid_id: Id, session: Writing, sent: SentForm) -> Response:
    """Choose a cell, and make its weight or image that of its adapter."""
    place = _place(sent)
    try:
        action = WinnerAction(str(sent.get("becomes", "")))
    except ValueError:
        raise InvalidInput("Choose what the image becomes.") from None
    told = winner.choose_winner(session, grid_id, place, action)
    return _answer_choice(request, session, grid_id, place, told)


@router.post("/grids/{grid_id}/keep", Action.DRAW)
def keep(request: Request, grid_id: Id, session: Writing, sent: SentForm) -> Response:
    """Make the image of a cell one of the gallery."""
    place = _place(sent)
    kept = winner.keep_cell(session, grid_id, place)
    return _answer_choice(
        request, session, grid_id, place, f"The gallery has it now, as image {kept.key}."
    )


def _place(sent: FormData) -> int:
    text = str(sent.get("place", ""))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput("Choose a cell first.")
    return int(text)


def _answer_choice(
    request: Request, session: Session, grid_id: int, place: int, told: str
) -> Response:
    """The side panel with what was done; without scripts, the page."""
    view = grid_view(session, service.get_grid(session, grid_id))
    cell = winner.cell_view(view, place)
    if not wants_fragment(request):
        return redirect_with_notice(_address(grid_id, cell), told)
    fragment = views.chosen_cell(session, view, place, told=told, is_oob=True)
    return render_fragment("playground/grids/_chosen.html", chosen=fragment)


@router.post("/grids/{grid_id}/cancel", Action.CONTROL)
def cancel(grid_id: Id, state: State) -> Response:
    """Cancel the images that are still to come; a grid that has just ended is shown."""
    with suppress(Conflict), state.database.write() as session:
        service.cancel_grid(session, grid_id)
    return RedirectResponse(f"/grids/{grid_id}", status_code=303)


@router.post("/grids/{grid_id}/continue", Action.CONTROL)
def continue_grid(grid_id: Id, state: State) -> Response:
    """Generate the images that a grid lacks; the page says which of them cannot be."""
    try:
        with state.database.read() as session:
            plan = service.plan_missing(session, grid_id)
    except InvalidInput as error:
        return redirect_with_notice(f"/grids/{grid_id}", error.detail)
    if plan is not None:
        with state.database.write() as session:
            service.continue_grid(session, grid_id, plan, state.store)
    if plan is not None and plan.refused:
        return redirect_with_notice(f"/grids/{grid_id}", views.refused_words(plan))
    return RedirectResponse(f"/grids/{grid_id}", status_code=303)


@router.post("/grids/{grid_id}/rename", Action.EDIT)
def rename(grid_id: Id, session: Writing, sent: SentForm) -> Response:
    """Rename a grid."""
    service.rename_grid(session, grid_id, str(sent.get("title", "")))
    return RedirectResponse(f"/grids/{grid_id}", status_code=303)
