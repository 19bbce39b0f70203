"""The view of the page of automatic captions: the form, the order at work, and its proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.registry.datasets import service
from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.auto_caption.orders import ChosenImages, OrderProgress, Preview
from app.registry.datasets.auto_caption.proposals import ProposedChange
from app.registry.datasets.auto_caption.providers import Provider, list_providers, local_models
from app.registry.datasets.edits.differences import Part, Piece, differences
from app.registry.datasets.edits.selection import selected_images
from app.registry.datasets.edits.steps import Step, step_to_undo
from app.registry.datasets.service import DatasetSummary
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.job_kinds.caption_kinds import CaptionImagesResult
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.web.datasets.auto_caption.forms import CaptionForm
from worker.core.captioning.words import CaptionMode
from worker.core.words import CaptionKind

A_PAGE = 48  # proposals
SHOWN = 24  # images without a caption, and captions that were written
KIND_CHOICES = (
    ("", "The first caption"),
    *((kind.value, kind.label) for kind in CaptionKind),
)
LEAST_SAME = 0.3
"""The share of a caption that stays, below which the captions are shown one after the other."""


@dataclass(frozen=True)
class Results:
    """The newest order, the proposals that wait for a decision, and the images without a caption.

    `after`: the id after which the shown ones begin; `next`: that of the next page, if any.
    `left`: how many images an order that ended early would go on with.
    `undo`: the step of what was applied just now, else of what the order wrote at its end.
    `captions`: those that were written. `guesses`: the surest of `guess_count`, of which
    `above_count` reach the percentage `above`, if it was entered.
    """

    dataset: Dataset
    order: OrderProgress | None
    changes: list[tuple[ProposedChange, list[Piece]]]
    waiting: int
    after: int
    next: int | None
    left: int
    left_empty: list[ProposedChange]
    undo: Step | None
    captions: list[ProposedChange]
    guesses: list[ProposedChange]
    guess_count: int
    above: int | None
    above_count: int


@dataclass(frozen=True)
class AutoCaptionPage:
    """The page: the form with its providers, one image to try it on, and what came of it.

    `chosen`: the number of images that the form is for. `samples`: ids and names of images to try,
    `sample` is the one that was tried.
    """

    dataset: Dataset
    summary: DatasetSummary
    providers: list[Provider]
    form: CaptionForm
    chosen: int
    sample: int | None
    samples: list[tuple[int, str]]
    preview: Preview | None
    results: Results
    modes: list[tuple[CaptionMode, str, str]] = field(default_factory=list)
    kinds: tuple[tuple[str, str], ...] = ()


def providers_of(state: AppState, *, asks: bool = False) -> list[Provider]:
    """The providers that this server offers; `asks`: an Ollama of this machine for its models."""
    models = local_models(state.settings) if asks else None
    with state.database.read() as session:
        return list_providers(session, state.settings, models)


def make_results(
    session: Session,
    dataset: Dataset,
    *,
    after: int = 0,
    above: int | None = None,
    applied: int | None = None,
) -> Results:
    """The newest order of a dataset, and a page of its proposals.

    `above`: a percentage, of which guesses to preview. `applied`: the step that was made just now.
    """
    order = orders.newest_order(session, dataset.key)
    found: Sequence[ProposedChange] = ()
    if order is None or not order.is_active:
        found = proposals.list_proposed(session, dataset.key, after=after, limit=A_PAGE + 1)
    shown, following = _first_page(found)
    left, left_empty, written, unsure = 0, [], [], []
    guess_count = above_count = 0
    if order is not None:
        left = 0 if order.is_active else len(orders.images_left(session, order))
        left_empty = proposals.list_left_empty(session, order.job.key, limit=SHOWN)
        written = proposals.list_written(session, order.job.key, limit=SHOWN)
    if order is not None and not order.is_active:
        unsure = guesses.list_guesses(session, order, limit=A_PAGE)
        guess_count = guesses.count_guesses(session, order)
        above_count = guesses.count_guesses(session, order, above=(above or 0) / 100)
    return Results(
        dataset=dataset,
        order=order,
        changes=[(change, marked(change.before, change.after)) for change in shown],
        waiting=proposals.count_proposed(session, dataset.key),
        after=after,
        next=following,
        left=left,
        left_empty=left_empty,
        undo=step_to_undo(session, dataset.key, applied)
        if applied
        else _written_step(session, order),
        captions=written,
        guesses=unsure,
        guess_count=guess_count,
        above=above,
        above_count=above_count,
    )


def marked(before: str, after: str) -> list[Piece]:
    """The differences word by word, or both captions as a whole where little is the same."""
    pieces = differences(before, after)
    same = sum(len(piece.text.strip()) for piece in pieces if piece.part is Part.SAME)
    if not before or same >= LEAST_SAME * max(len(before), len(after)):
        return pieces
    return [Piece(before, Part.REMOVED), Piece(" ", Part.SAME), Piece(after, Part.ADDED)]


def _first_page(found: Sequence[ProposedChange]) -> tuple[Sequence[ProposedChange], int | None]:
    """As many as fit on a page, all of an image or none; the id after which the next ones begin."""
    if len(found) <= A_PAGE:
        return found, None
    cut = found[A_PAGE].image.key
    shown = [change for change in found[:A_PAGE] if change.image.key != cut]
    return shown, shown[-1].image.key


def _written_step(session: Session, order: OrderProgress | None) -> Step | None:
    """The step of the captions that an order wrote, if it can be undone."""
    edit_id = order.job.outcome(CaptionImagesResult).edit_id if order else None
    if order is None or edit_id is None or order.job.subject_id is None:
        return None
    return step_to_undo(session, order.job.subject_id, edit_id)


def make_page(
    session: Session,
    dataset: Dataset,
    form: CaptionForm,
    providers: list[Provider],
    *,
    preview: Preview | None = None,
    results: Results | None = None,
) -> AutoCaptionPage:
    """The whole page; `results`: if not those of the newest order from their beginning."""
    summary = service.summary(session, dataset)
    try:
        ids = image_ids_of(session, dataset, form)
    except AppError:
        ids = []
    chosen = orders.chosen_images(session, dataset.key, ids, first=A_PAGE, kind=form.kind)
    return AutoCaptionPage(
        dataset=dataset,
        summary=summary,
        providers=providers,
        form=form,
        chosen=chosen.total,
        sample=preview.image.key if preview else None,
        samples=[(image.key, image.filename) for image in chosen.first],
        preview=preview,
        results=results or make_results(session, dataset),
        modes=_modes(chosen),
        kinds=KIND_CHOICES,
    )


def image_ids_of(session: Session, dataset: Dataset, form: CaptionForm) -> list[int] | None:
    """The images that the form is for; None: all. Raises InvalidInput."""
    if form.selection is None:
        return None
    return [image.id for image in selected_images(session, dataset, form.selection)]


def _modes(chosen: ChosenImages) -> list[tuple[CaptionMode, str, str]]:
    """Value, label and hint of each mode."""
    return [
        (
            CaptionMode.FILL,
            f"Fill empty captions ({chosen.empty:,})",
            "Others stay.",
        ),
        (
            CaptionMode.APPEND,
            f"Append to captions ({chosen.total:,})",
            "You see every change before it is made.",
        ),
        (
            CaptionMode.REPLACE,
            f"Replace captions ({chosen.total:,})",
            "You see every change before it is made.",
        ),
    ]
