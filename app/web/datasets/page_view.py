"""The page of one dataset, rendered for several routes, and redirects to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.blobs.report import bad_files_of
from app.registry.blobs.subjects import Subject
from app.registry.datasets import service, uploads
from app.registry.datasets.edits.selection import Selection
from app.registry.datasets.edits.steps import step_to_undo
from app.registry.datasets.listing.image_search import kept_figures
from app.registry.datasets.listing.pages import page_of_image
from app.registry.datasets.training_side import tokens_of
from app.registry.deletion.datasets import count_deleted_images
from app.registry.tables.datasets import Dataset
from app.web import templates
from app.web.datasets.check_view import checks_panel
from app.web.datasets.edit_forms import EditForm
from app.web.datasets.edit_view import NOTHING, bulk_bar
from app.web.datasets.forms import DatasetForm
from app.web.datasets.listing_view import ALL_SHOWN, ShownImages, read_filter_bar, read_tiles
from app.web.datasets.page_requests import DatasetRequest
from app.web.datasets.statistics_view import read_statistics_panel


@dataclass(frozen=True)
class CaptionConflict:
    """A caption that was changed elsewhere during an edit."""

    image_id: int
    mine: str
    theirs: str
    version: str


def dataset_page(
    asked: DatasetRequest,
    *,
    shown: ShownImages = ALL_SHOWN,
    form: DatasetForm | None = None,
    status: int = 200,
    outcome: uploads.UploadOutcome | None = None,
    conflict: CaptionConflict | None = None,
    selection: Selection = NOTHING,
    edit: EditForm | None = None,
    edited: int | None = None,
) -> Response:
    """The page of a dataset: its facts, the upload area and a page of its images.

    `edit`: with the form of a bulk edit; `edited`: offers its undo.
    """
    with asked.reading() as (session, dataset):
        if conflict:
            shown = ShownImages(page=page_of_image(session, dataset, conflict.image_id))
        summary = service.summary(session, dataset, kept_figures(session, dataset))
        tiles = read_tiles(session, dataset, replace(shown, first=None))
        return templates.render(
            asked.request,
            "datasets/show.html",
            status=status,
            dataset=dataset,
            summary=summary,
            tiles=tiles,
            filters=read_filter_bar(session, dataset, shown.wanted, matching=tiles.page.total),
            problems=shown.problems,
            statistics=read_statistics_panel(
                session, dataset, shown.wanted, now=shown.with_statistics
            ),
            form=form or DatasetForm(dataset.name, dataset.trigger_word or ""),
            outcome=outcome,
            conflict=conflict,
            bad_files=bad_files_of(session, Subject.DATASET, dataset.key),
            deleted_images=count_deleted_images(session, dataset.key),
            checks=checks_panel(session, summary),
            bulk=bulk_bar(
                session, dataset, shown.wanted, tiles.page.total, form=edit, selection=selection
            ),
            edited=step_to_undo(session, dataset.key, edited) if edited else None,
            tokens=tokens_of(session, dataset.key),
        )


def redirect_to(dataset: Dataset, more: str = "") -> RedirectResponse:
    return RedirectResponse(f"/datasets/{dataset.slug}{more}", status_code=303)
