"""The page on which a model writes the captions of a dataset."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.edits.selection import selected_images
from app.registry.datasets.edits.steps import NOTHING_UNDONE, undo_edit
from app.registry.db import MAX_ID, Session
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.job_kinds.caption_kinds import PreviewCaptionArgs
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.registry.wording import plural
from app.web import templates
from app.web.datasets.auto_caption.forms import (
    CaptionForm,
    new_form,
    read_form,
    read_selection,
)
from app.web.datasets.auto_caption.view import (
    A_PAGE,
    make_page,
    make_results,
    providers_of,
)
from app.web.forms import SentForm
from app.web.state import Id, Slug, State

router = APIRouter(include_in_schema=False)

ADDRESS = "/datasets/{slug}/captions/auto"
OptionalId = Annotated[int | None, Query(ge=1, le=MAX_ID)]
OptionalFormId = Annotated[int | None, Form(ge=1, le=MAX_ID)]
Percent = Annotated[int | None, Query(ge=0, le=100)]
Cursor = Annotated[int, Query(ge=0, le=MAX_ID)]
# id of a proposal, and the version of the caption that stood beside it
Ticked = Annotated[str, Form(pattern=r"^[0-9]{1,9}-[0-9]{1,9}$")]
Proposals = Annotated[list[Ticked] | None, Form(max_length=A_PAGE)]


@router.get(ADDRESS)
def show(
    request: Request,
    state: State,
    slug: Slug,
    preview: OptionalId = None,
    applied: OptionalId = None,
    after: Cursor = 0,
    above: Percent = None,
) -> Response:
    """Show the form, what is at work, and what was proposed."""
    providers = providers_of(state, asks=True)
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        shown = orders.get_preview(session, dataset.key, preview) if preview else None
        form = new_form(
            dataset,
            providers,
            last=orders.newest_order(session, dataset.key),
            asked=shown.job.arguments(PreviewCaptionArgs) if shown else None,
        )
        form = CaptionForm(**{**vars(form), **read_selection(request.query_params)})
        results = make_results(session, dataset, after=after, above=above, applied=applied)
        context = make_page(session, dataset, form, providers, preview=shown, results=results)
    return templates.render(request, "datasets/auto_caption/page.html", context)


@router.post(ADDRESS)
def start(request: Request, state: State, slug: Slug, sent: SentForm) -> Response:
    """Order captions; errors stand beside their fields."""
    form = read_form(sent, providers_of(state))
    try:
        with state.database.write() as session:
            dataset = service.dataset_by_slug(session, slug)
            orders.order_captions(
                session,
                dataset,
                form.request,
                state.settings,
                image_ids=_image_ids(session, dataset, form),
                mode=form.mode,
                kind=form.kind,
                write=form.write,
            )
    except (InvalidInput, Conflict) as error:
        return _refused(request, state, slug, form, error)
    return RedirectResponse(f"{address_of(slug)}#results", status_code=303)


@router.post(f"{ADDRESS}/preview")
def preview(
    request: Request,
    state: State,
    slug: Slug,
    sent: SentForm,
    sample: OptionalFormId = None,
) -> Response:
    """Caption one image as an order would, and keep nothing."""
    form = read_form(sent, providers_of(state))
    try:
        with state.database.write() as session:
            dataset = service.dataset_by_slug(session, slug)
            if sample is None:
                raise InvalidInput("Choose an image.", fields={"sample": "Choose an image."})
            job = orders.order_preview(session, dataset, sample, form.request, state.settings)
    except InvalidInput as error:
        return _refused(request, state, slug, form, error)
    if templates.wants_fragment(request):
        return show_preview(state, slug, job.key)
    return RedirectResponse(f"{address_of(slug)}?preview={job.key}#preview", status_code=303)


@router.get(f"{ADDRESS}/previews/{{job_id}}")
def show_preview(state: State, slug: Slug, job_id: Id) -> Response:
    """Show a preview; it polls until it is there."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        preview = orders.get_preview(session, dataset.key, job_id)
    return templates.render_fragment(
        "datasets/auto_caption/_preview.html", dataset=dataset, preview=preview
    )


@router.get(f"{ADDRESS}/results")
def results(
    state: State, slug: Slug, above: Percent = None, applied: OptionalId = None
) -> Response:
    """Show the order and its proposals; it polls while the order is at work."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        results = make_results(session, dataset, above=above, applied=applied)
    return templates.render_fragment(
        "datasets/auto_caption/_results.html", dataset=dataset, results=results
    )


@router.post(f"{ADDRESS}/orders/{{job_id}}/cancel")
def cancel(request: Request, state: State, slug: Slug, job_id: Id) -> Response:
    """Cancel an order; what it has made stays proposed."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        orders.cancel_order(session, dataset.key, job_id)
    return _results_or_page(request, state, slug)


@router.post(f"{ADDRESS}/orders/{{job_id}}/continue")
def continue_order(request: Request, state: State, slug: Slug, job_id: Id) -> Response:
    """Order what an ended order has left."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        orders.continue_order(session, dataset, job_id, state.settings)
    return _results_or_page(request, state, slug)


def _results_or_page(request: Request, state: AppState, slug: str) -> Response:
    if templates.wants_fragment(request):
        return results(state, slug)
    return RedirectResponse(f"{address_of(slug)}#results", status_code=303)


@router.post(f"{ADDRESS}/proposals")
def decide(
    state: State,
    slug: Slug,
    decision: Annotated[str, Form(max_length=20)] = "",
    proposal: Proposals = None,
) -> Response:
    """Apply or discard the proposals that are ticked, or all.

    A tick confirms the caption that it was set beside: what was changed since then stays.
    """
    pairs = (one.split("-") for one in proposal or [])
    ticked = {int(key): int(version) for key, version in pairs}
    chosen = None if decision.endswith("_all") else list(ticked)
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        if decision in ("apply", "apply_all"):
            done = proposals.apply_proposals(session, dataset.key, chosen, seen=ticked)
            query = f"?applied={done.edit_id}" if done.edit_id else "#results"
            sentence = done.sentence
        elif decision in ("discard", "discard_all"):
            count = proposals.discard_proposals(session, dataset.key, chosen)
            query, sentence = "#results", f"{plural(count, 'proposal')} discarded."
        else:
            raise InvalidInput("Choose to apply or to discard.", fields={"decision": "Unknown."})
    return templates.redirect_with_notice(f"{address_of(slug)}{query}", sentence)


@router.post(f"{ADDRESS}/orders/{{job_id}}/guesses")
def take_guesses(
    request: Request,
    state: State,
    slug: Slug,
    job_id: Id,
    guess: OptionalFormId = None,
    above: Annotated[int | None, Form(ge=0, le=100)] = None,
) -> Response:
    """Write the guess that was clicked, or all from a percentage on."""
    ids = None if guess is None else [guess]
    share = None if above is None else above / 100
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        order = orders.get_order(session, dataset.key, job_id)
        done = guesses.apply_guesses(session, order, ids, above=share)
    if templates.wants_fragment(request):
        return results(state, slug, applied=done.edit_id)
    query = f"?applied={done.edit_id}#results" if done.edit_id else "#results"
    return templates.redirect_with_notice(f"{address_of(slug)}{query}", done.sentence)


@router.post(f"{ADDRESS}/undo")
def undo(state: State, slug: Slug, edit: Annotated[int, Form(ge=1, le=MAX_ID)]) -> Response:
    """Undo the captions that were applied in one step."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        outcome = undo_edit(session, dataset.key, edit)
    left = len(outcome.left_out)
    kept = f" {plural(left, 'caption')} changed since stayed." if left else ""
    if not outcome.changed:
        address = f"{address_of(slug)}?applied={edit}"
        return templates.redirect_with_notice(address, f"{NOTHING_UNDONE}.{kept}")
    sentence = f"{plural(outcome.changed, 'caption')} restored.{kept}"
    return templates.redirect_with_notice(address_of(slug), sentence)


def address_of(slug: str) -> str:
    """The address of the page."""
    return ADDRESS.format(slug=slug)


def _image_ids(session: Session, dataset: Dataset, form: CaptionForm) -> list[int] | None:
    """The images of the form; None: all. Raises InvalidInput."""
    selection = form.selection
    if selection is None:
        return None
    return [image.id for image in selected_images(session, dataset, selection)]


def _refused(
    request: Request, state: AppState, slug: str, form: CaptionForm, error: AppError
) -> Response:
    """The page with the form as it was sent, and what is wrong with it."""
    form = form.with_errors(error.fields or {"order": error.detail})
    providers = providers_of(state, asks=True)
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        context = make_page(session, dataset, form, providers)
    answer = templates.render(
        request, "datasets/auto_caption/page.html", context, status=error.status
    )
    if templates.wants_fragment(request):  # of the preview: the whole form has to come again
        answer.headers["hx-retarget"], answer.headers["hx-reselect"] = "#auto-form", "#auto-form"
        answer.headers["hx-reswap"] = "outerHTML"
    return answer
