"""Bulk edits on the page of a dataset: preview, apply, undo; as forms, and as htmx requests."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.datastructures import FormData, ImmutableMultiDict
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.edits.actions import EditAction
from app.registry.datasets.edits.applying import apply_edit
from app.registry.datasets.edits.plan import EditOutcome
from app.registry.datasets.edits.selection import live_images, read_ids
from app.registry.datasets.edits.steps import NOTHING_UNDONE, describe_step, list_steps, undo_edit
from app.registry.datasets.training_side import tokens_of
from app.registry.errors import InvalidInput
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.edit_forms import EditForm, read_edit_form
from app.web.datasets.edit_view import EditPanel, edit_panel
from app.web.datasets.forms import DatasetForm
from app.web.datasets.listing_view import ShownImages
from app.web.datasets.page_requests import DatasetRequest, OfDataset
from app.web.datasets.page_view import dataset_page, redirect_to
from app.web.forms import SentForm
from app.web.state import Id

router = Router(include_in_schema=False)

REMOVING_ACTIONS = frozenset({EditAction.DELETE, EditAction.MOVE})  # nothing is left to select
NAMED = 3  # images that were left out, in a message


@router.post("/datasets/{slug}/edits/preview", Action.LOOK)
def preview(asked: OfDataset, sent: SentForm) -> Response:
    """Show every change of an edit before it happens."""
    with asked.reading() as (session, dataset):
        form = _read(sent)
        if not asked.wants_fragment:
            return _page_with(asked, form)
        panel = edit_panel(session, dataset, form)
    return _panel(dataset, panel)


@router.post("/datasets/{slug}/edits", Action.EDIT)
def apply(asked: OfDataset, sent: SentForm) -> Response:
    """Carry out an edit as previewed; a message then offers to undo it."""
    with asked.reading() as (_, dataset):
        form = _read(sent)
    try:
        outcome = apply_edit(
            asked.state.database, dataset.key, form.edit, form.selection, seen=form.seen
        )
    except InvalidInput:
        if not asked.wants_fragment:
            return _page_with(asked, form, status=422)
        with asked.state.database.read() as session:
            return _panel(dataset, edit_panel(session, dataset, form))
    sentence = _sentence(asked.state, outcome)
    if asked.wants_fragment and "elsewhere" in sent:
        return _message(dataset, sentence, undo=outcome.step.key if outcome.step else None)
    if asked.wants_fragment:
        return _applied(asked.state, dataset, outcome, form.shown, sentence)
    edited = urlencode({"edited": outcome.step.key}) if outcome.step is not None else ""
    query = "&".join(part for part in (form.selection.wanted.query, edited) if part)
    more = f"?{query}" if query else ""
    if outcome.step is None or outcome.left_out:
        return templates.redirect_with_notice(f"/datasets/{asked.slug}{more}", sentence)
    return redirect_to(dataset, more)


@router.post("/datasets/{slug}/edits/{edit_id}/undo", Action.EDIT)
def undo(asked: OfDataset, edit_id: Id, sent: SentForm) -> Response:
    """Undo an edit."""
    with asked.writing() as (session, dataset):
        outcome = undo_edit(session, dataset.key, edit_id)
    is_undone = bool(outcome.changed or outcome.edit.sets_trigger)
    sentence = _sentence(asked.state, outcome, undone=True)
    if not asked.wants_fragment:
        return templates.redirect_with_notice(f"/datasets/{asked.slug}", sentence)
    if "elsewhere" in sent:
        return _message(dataset, sentence, undone=edit_id if is_undone else None)
    shown = read_ids(str(sent.get("shown", "")))
    return _applied(asked.state, dataset, outcome, shown, sentence, is_undo=True)


def _read(sent: FormData) -> EditForm:
    return read_edit_form(ImmutableMultiDict(sent.multi_items()))


def _page_with(asked: DatasetRequest, form: EditForm, *, status: int = 200) -> Response:
    """The whole page with the form of the edit, for browsers without scripts."""
    shown = ShownImages(form.selection.wanted)
    return dataset_page(asked, shown=shown, edit=form, status=status)


def _panel(dataset: Dataset, panel: EditPanel) -> Response:
    status = 422 if panel.preview.errors else 200
    return templates.render_fragment(
        "datasets/edits/_panel.html", dataset=dataset, panel=panel, status=status
    )


def _sentence(state: AppState, outcome: EditOutcome, *, undone: bool = False) -> str:
    """A message with the changes and the images that were left out."""
    said = NOTHING_UNDONE if undone else "Nothing changed"
    if outcome.step is not None and (outcome.changed or outcome.edit.sets_trigger):
        with state.database.read() as session:
            said = describe_step(session, outcome.step)
        said = f"Undone: {said[:1].lower()}{said[1:]}" if undone else said
    named = "; ".join(
        f"{row.filename}: {row.reason.rstrip('.')}" for row in outcome.left_out[:NAMED]
    )
    more = len(outcome.left_out) - NAMED
    rest = f"; and {more:,} more" if more > 0 else ""
    return f"{said}. {len(outcome.left_out):,} left out. {named}{rest}." if named else f"{said}."


def _message(
    dataset: Dataset, sentence: str, *, undo: int | None = None, undone: int | None = None
) -> Response:
    answer = templates.render_fragment(
        "datasets/edits/_message.html",
        dataset=dataset,
        sentence=sentence,
        undo=undo,
        undone=undone,
        is_elsewhere=True,
    )
    answer.headers["hx-trigger"] = "captions-changed"
    return answer


def _applied(
    state: AppState,
    dataset: Dataset,
    outcome: EditOutcome,
    shown: frozenset[int],
    sentence: str,
    *,
    is_undo: bool = False,
) -> Response:
    """The parts of the page that an edit changed, among the images that it shows."""
    changed = sorted(outcome.changed_images & shown)
    with state.database.read() as session:
        dataset = service.get_dataset(session, dataset.key)
        word = dataset.trigger_word or ""
        images = live_images(session, dataset.key, changed)
        here = {image.key for image in images}
        answer = templates.render_fragment(
            "datasets/edits/_applied.html",
            dataset=dataset,
            form=DatasetForm(dataset.name, word) if outcome.edit.sets_trigger else None,
            summary=service.summary(session, dataset),
            images=images,
            gone=[image_id for image_id in changed if image_id not in here],
            steps=list_steps(session, dataset.key, to_undo=True),
            sentence=sentence,
            undo=outcome.step.key if outcome.step is not None and not is_undo else None,
            tokens=tokens_of(session, dataset.key),
            is_elsewhere=False,
            conflict=None,
        )
    are_gone = outcome.edit.action in REMOVING_ACTIONS and not is_undo
    answer.headers["hx-trigger"] = "captions-changed" + (", images-gone" if are_gone else "")
    return answer
