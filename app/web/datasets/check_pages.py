"""Pages of the checks before training: the panel of a dataset, and all findings with images."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.checks.reading import read_some
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.check_view import AskedSide, ChecksPanel, checks_panel
from app.web.datasets.page_requests import OfDataset

router = Router(include_in_schema=False)

IMAGES_SHOWN = 24  # of a finding or pile; the rest is counted


@router.get("/datasets/{slug}/checks", Action.LOOK)
def checks(asked: OfDataset, side: Annotated[AskedSide, Depends()]) -> Response:
    """All findings of a dataset with their images."""
    with asked.reading() as (session, dataset):
        summary = service.summary(session, dataset)
        panel = checks_panel(session, summary, side, now=True, listed=None)
        images = read_some(session, dataset, _shown_ids(panel))
    return templates.render(
        asked.request,
        "datasets/checks.html",
        summary=summary,
        checks=panel,
        images=images,
        images_shown=IMAGES_SHOWN,
    )


def _shown_ids(panel: ChecksPanel) -> set[int]:
    """The images that the page shows: the first of each finding, or of each of its first piles."""
    piles = [
        pile
        for shown in panel.findings
        for pile in (shown.finding.piles or (shown.finding.image_ids,))[:IMAGES_SHOWN]
    ]
    return {image_id for pile in piles for image_id in pile[:IMAGES_SHOWN]}


@router.get("/datasets/{slug}/checks/panel", Action.LOOK)
def panel(asked: OfDataset) -> Response:
    """The panel with the findings of a dataset."""
    with asked.reading() as (session, dataset):
        panel = checks_panel(session, service.summary(session, dataset), now=True)
    return templates.render_fragment("datasets/_checks.html", checks=panel, oob=True)


@router.get("/datasets/{slug}/checks/brief", Action.LOOK)
def brief(asked: OfDataset, side: Annotated[AskedSide, Depends()]) -> Response:
    """The open findings of a dataset in a few lines."""
    with asked.reading() as (session, dataset):
        panel = checks_panel(session, service.summary(session, dataset), side, now=True)
    return templates.render_fragment("datasets/_checks_brief.html", checks=panel)
