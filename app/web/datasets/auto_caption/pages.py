"""The page on which a model writes the captions of a dataset."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Query
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.edits.steps import NOTHING_UNDONE, undo_edit
from app.registry.db import MAX_ID
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.job_kinds.caption_kinds import PreviewCaptionArgs
from app.registry.wording import plural
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.auto_caption.forms import CaptionForm, new_form, read_form, read_selection
from app.web.datasets.auto_caption.view import (
    A_PAGE,
    image_ids_of,
    make_page,
    make_results,
    providers_of,
)
from app.web.datasets.page_requests import DatasetRequest, OfDataset
from app.web.forms import SentForm
from app.web.state import Id, OptionalId

router = Router(include_in_schema=False)

ADDRESS = "/datasets/{slug}/captions/auto"
OptionalFormId = Annotated[int | None, Form(ge=1, le=MAX_ID)]
Percent = Annotated[int | None, Query(ge=0, le=100)]
Cursor = Annotated[int, Query(ge=0, le=MAX_ID)]
# id of a proposal, and the version of the caption that stood beside it
Ticked = Annotated[str, Form(pattern=r"^[0-9]{1,9}-[0-9]{1,9}$")]
Proposals = Annotated[list[Ticked] | None, Form(max_length=A_PAGE)]


@router.get(ADDRESS, Action.LOOK)
def show(
    asked: OfDataset,
    preview: OptionalId = None,
    applied: OptionalId = None,
    after: Cursor = 0,
    above: Percent = None,
) -> Response:
    """Show the form, what is at work, and what was proposed."""
    providers = providers_of(asked.state, asks=True)
    with asked.reading() as (session, dataset):
        shown = orders.get_preview(session, dataset.key, preview) if preview else None
        form = new_form(
            dataset,
            providers,
            last=orders.newest_order(session, dataset.key),
            asked=shown.job.arguments(PreviewCaptionArgs) if shown else None,
        )
        form = CaptionForm(**{**vars(form), **read_selection(asked.request.query_params)})
        results = make_results(session, dataset, after=after, above=above, applied=applied)
        context = make_page(session, dataset, form, providers, preview=shown, results=results)
    return templates.render(asked.request, "datasets/auto_caption/page.html", context)


@router.post(ADDRESS, Action.EDIT)
def start(asked: OfDataset, sent: SentForm) -> Response:
    """Order captions; errors stand beside their fields."""
    form = read_form(sent, providers_of(asked.state))
    try:
        with asked.writing() as (session, dataset):
            orders.order_captions(
                session,
                dataset,
                form.request,
                asked.state.settings,
                image_ids=image_ids_of(session, dataset, form),
                mode=form.mode,
                kind=form.kind,
                write=form.write,
            )
    except (InvalidInput, Conflict) as error:
        return _refused(asked, form, error)
    return RedirectResponse(f"{address_of(asked.slug)}#results", status_code=303)


@router.post(f"{ADDRESS}/preview", Action.DRAW)
def preview(asked: OfDataset, sent: SentForm, sample: OptionalFormId = None) -> Response:
    """Caption one image as an order would, and keep nothing."""
    form = read_form(sent, providers_of(asked.state))
    try:
        with asked.writing() as (session, dataset):
            if sample is None:
                raise InvalidInput("Choose an image.", fields={"sample": "Choose an image."})
            job = orders.order_preview(session, dataset, sample, form.request, asked.state.settings)
    except InvalidInput as error:
        return _refused(asked, form, error)
    if asked.wants_fragment:
        return show_preview(asked, job.key)
    return RedirectResponse(f"{address_of(asked.slug)}?preview={job.key}#preview", status_code=303)


@router.get(f"{ADDRESS}/previews/{{job_id}}", Action.LOOK)
def show_preview(asked: OfDataset, job_id: Id) -> Response:
    """Show a preview; it polls until it is there."""
    with asked.reading() as (session, dataset):
        preview = orders.get_preview(session, dataset.key, job_id)
    return templates.render_fragment(
        "datasets/auto_caption/_preview.html", dataset=dataset, preview=preview
    )


@router.get(f"{ADDRESS}/results", Action.LOOK)
def results(asked: OfDataset, above: Percent = None, applied: OptionalId = None) -> Response:
    """Show the order and its proposals; it polls while the order is at work."""
    with asked.reading() as (session, dataset):
        results = make_results(session, dataset, above=above, applied=applied)
    return templates.render_fragment(
        "datasets/auto_caption/_results.html", dataset=dataset, results=results
    )


@router.post(f"{ADDRESS}/orders/{{job_id}}/cancel", Action.CONTROL)
def cancel(asked: OfDataset, job_id: Id) -> Response:
    """Cancel an order; what it has made stays proposed."""
    with asked.writing() as (session, dataset):
        orders.cancel_order(session, dataset.key, job_id)
    return _results_or_page(asked)


@router.post(f"{ADDRESS}/orders/{{job_id}}/continue", Action.EDIT)
def continue_order(asked: OfDataset, job_id: Id) -> Response:
    """Order what an ended order has left."""
    with asked.writing() as (session, dataset):
        orders.continue_order(session, dataset, job_id, asked.state.settings)
    return _results_or_page(asked)


def _results_or_page(asked: DatasetRequest) -> Response:
    if asked.wants_fragment:
        return results(asked)
    return RedirectResponse(f"{address_of(asked.slug)}#results", status_code=303)


@router.post(f"{ADDRESS}/proposals", Action.EDIT)
def decide(
    asked: OfDataset, decision: Annotated[str, Form(max_length=20)] = "", proposal: Proposals = None
) -> Response:
    """Apply or discard the proposals that are ticked, or all.

    A tick confirms the caption that it was set beside: what was changed since then stays.
    """
    pairs = (one.split("-") for one in proposal or [])
    ticked = {int(key): int(version) for key, version in pairs}
    chosen = None if decision.endswith("_all") else list(ticked)
    with asked.writing() as (session, dataset):
        if decision in ("apply", "apply_all"):
            done = proposals.apply_proposals(session, dataset.key, chosen, seen=ticked)
            query = f"?applied={done.edit_id}" if done.edit_id else "#results"
            sentence = done.sentence
        elif decision in ("discard", "discard_all"):
            count = proposals.discard_proposals(session, dataset.key, chosen)
            query, sentence = "#results", f"{plural(count, 'proposal')} discarded."
        else:
            raise InvalidInput("Choose to apply or to discard.", fields={"decision": "Unknown."})
    return templates.redirect_with_notice(f"{address_of(asked.slug)}{query}", sentence)


@router.post(f"{ADDRESS}/orders/{{job_id}}/guesses", Action.EDIT)
def take_guesses(
    asked: OfDataset,
    job_id: Id,
    guess: OptionalFormId = None,
    above: Annotated[int | None, Form(ge=0, le=100)] = None,
) -> Response:
    """Write the guess that was clicked, or all from a percentage on."""
    ids = None if guess is None else [guess]
    share = None if above is None else above / 100
    with asked.writing() as (session, dataset):
        order = orders.get_order(session, dataset.key, job_id)
        done = guesses.apply_guesses(session, order, ids, above=share)
    if asked.wants_fragment:
        return results(asked, applied=done.edit_id)
    query = f"?applied={done.edit_id}#results" if done.edit_id else "#results"
    return templates.redirect_with_notice(f"{address_of(asked.slug)}{query}", done.sentence)


@router.post(f"{ADDRESS}/undo", Action.EDIT)
def undo(asked: OfDataset, edit: Annotated[int, Form(ge=1, le=MAX_ID)]) -> Response:
    """Undo the captions that were applied in one step."""
    with asked.writing() as (session, dataset):
        outcome = undo_edit(session, dataset.key, edit)
    left = len(outcome.left_out)
    kept = f" {plural(left, 'caption')} changed since stayed." if left else ""
    if not outcome.changed:
        address = f"{address_of(asked.slug)}?applied={edit}"
        return templates.redirect_with_notice(address, f"{NOTHING_UNDONE}.{kept}")
    sentence = f"{plural(outcome.changed, 'caption')} restored.{kept}"
    return templates.redirect_with_notice(address_of(asked.slug), sentence)


def address_of(slug: str) -> str:
    """The address of the page."""
    return ADDRESS.format(slug=slug)


def _refused(asked: DatasetRequest, form: CaptionForm, error: AppError) -> Response:
    """The page with the form as it was sent, and what is wrong with it."""
    form = form.with_errors(error.fields or {"order": error.detail})
    providers = providers_of(asked.state, asks=True)
    with asked.reading() as (session, dataset):
        context = make_page(session, dataset, form, providers)
    answer = templates.render(
        asked.request, "datasets/auto_caption/page.html", context, status=error.status
    )
    if asked.wants_fragment:  # of the preview: the whole form has to come again
        answer.headers["hx-retarget"], answer.headers["hx-reselect"] = "#auto-form", "#auto-form"
        answer.headers["hx-reswap"] = "outerHTML"
    return answer
