"""The page of one dataset, rendered for several routes, and redirects to it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service, uploads
from app.registry.datasets.deletion import count_deleted_images
from app.registry.datasets.edits.selection import Selection
from app.registry.datasets.edits.steps import Step, step_to_undo
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_captions.tokens import CaptionTokens, tokens_of
from app.registry.datasets.image_pages import cursor_of_image, list_image_page
from app.registry.datasets.models import Dataset, Image
from app.registry.datasets.service import DatasetSummary
from app.registry.integrity.references import Subject
from app.registry.integrity.report import bad_files_of
from app.registry.state import AppState
from app.web import templates
from app.web.datasets.check_view import ChecksPanel, checks_panel
from app.web.datasets.edit_forms import EditForm
from app.web.datasets.edit_view import NOTHING, BulkBar, bulk_bar
from app.web.datasets.forms import DatasetForm


@dataclass(frozen=True)
class CaptionConflict:
    """A caption that was changed elsewhere during an edit."""

    image_id: int
    mine: str
    theirs: str
    version: str


@dataclass(frozen=True)
class DatasetPage:
    """One dataset: its facts, the upload area and a page of its images.

    `earlier` and `more` are the queries of the pages around it, "" where there are none.
    """

    dataset: Dataset
    summary: DatasetSummary
    images: list[Image]
    earlier: str
    more: str
    show: str
    q: str
    form: DatasetForm
    outcome: uploads.UploadOutcome | None
    conflict: CaptionConflict | None
    deleted: Image | None
    bad_files: list[str]
    deleted_images: int
    checks: ChecksPanel
    bulk: BulkBar
    edited: Step | None
    tokens: CaptionTokens
    tile_query: str


def dataset_page(
    request: Request,
    state: AppState,
    slug: str,
    *,
    show: str = "all",
    q: str = "",
    after: int = 0,
    deleted: int | None = None,
    form: DatasetForm | None = None,
    status: int = 200,
    outcome: uploads.UploadOutcome | None = None,
    conflict: CaptionConflict | None = None,
    selection: Selection = NOTHING,
    edit: EditForm | None = None,
    edited: int | None = None,
) -> Response:
    """The page of a dataset; `edit`: with the form of a bulk edit; `edited`: offers its undo."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        if conflict:
            after = cursor_of_image(session, dataset.key, conflict.image_id)
        wanted, _ = ImageFilter.parse([("show", show), ("q", q)])
        page = list_image_page(session, dataset.key, show=show, q=q.strip(), after=after)
        if after and not page.images:
            page = list_image_page(session, dataset.key, show=show, q=q.strip())
        summary = service.summary(session, dataset)
        context = DatasetPage(
            dataset=dataset,
            summary=summary,
            images=page.images,
            earlier=tiles_query(show, q, page.previous),
            more=tiles_query(show, q, page.next),
            show="uncaptioned" if show == "uncaptioned" else "all",
            q=q,
            form=form or DatasetForm(dataset.name, dataset.trigger_word or ""),
            outcome=outcome,
            conflict=conflict,
            deleted=service.deleted_image(session, dataset.key, deleted) if deleted else None,
            bad_files=bad_files_of(session, Subject.DATASET, dataset.key),
            deleted_images=count_deleted_images(session, dataset.key),
            checks=checks_panel(session, summary),
            bulk=bulk_bar(session, dataset, wanted, form=edit, selection=selection),
            edited=step_to_undo(session, dataset.key, edited) if edited else None,
            tokens=tokens_of(session, dataset.key),
            tile_query=wanted.query,
        )
    return templates.render(request, "datasets/show.html", context, status=status)


def tile_query(show: str, q: str) -> str:
    """The query of the page of an image: the filter that it is shown in."""
    return ImageFilter.parse([("show", show), ("q", q)])[0].query


def tiles_query(show: str, q: str, after: int | None) -> str:
    """The query of a page of images; "" if there is no such page."""
    if after is None:
        return ""
    values = {"show": show if show == "uncaptioned" else "", "q": q, "after": after}
    return urlencode({name: value for name, value in values.items() if value != ""})


def redirect_to_image(
    state: AppState, dataset: Dataset, image_id: int, *, is_deleted: bool = False
) -> RedirectResponse:
    """Redirect to the page that shows the image, or that offers to undo its deletion."""
    with state.database.read() as session:
        after = cursor_of_image(session, dataset.key, image_id)
    values = ({"after": after} if after else {}) | ({"deleted": image_id} if is_deleted else {})
    query = f"?{urlencode(values)}" if values else ""
    return redirect_to(dataset, query if is_deleted else f"{query}#image-{image_id}")


def redirect_to(dataset: Dataset, more: str = "") -> RedirectResponse:
    return RedirectResponse(f"/datasets/{dataset.slug}{more}", status_code=303)
