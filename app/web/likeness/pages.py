"""Pages of styles like this: of an adapter, of a dataset, of an image that somebody chose."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.datasets import service as datasets
from app.registry.db import Session
from app.registry.errors import Conflict, InvalidInput
from app.registry.likeness import similar
from app.registry.likeness.similar import NotMeasured, Reference
from app.registry.paging import find_page
from app.web.access.needs import Action, Router
from app.web.addresses import ListLinks
from app.web.forms import SentForm, uploaded
from app.web.state import Id, PageNumber, Reading, Slug, State, Words
from app.web.templates import render
from worker.core.families.family import BaseFamily, find_family

router = Router(include_in_schema=False)

ADAPTERS_A_PAGE = 24


@router.get("/adapters/{slug}/like", Action.LOOK)
def like_adapter(
    request: Request, slug: Slug, session: Reading, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters of the nearest styles."""
    adapter = adapters.require_listed(adapters.adapter_by_slug(session, slug))
    title = f"Styles like “{adapter.name}”"
    return _show(request, session, title, base, page, similar.of_adapter, adapter.key)


@router.get("/datasets/{slug}/like", Action.LOOK)
def like_dataset(
    request: Request, slug: Slug, session: Reading, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters whose styles are nearest to the images of a dataset."""
    dataset = datasets.dataset_by_slug(session, slug)
    title = f"Styles like “{dataset.name}”"
    return _show(request, session, title, base, page, similar.of_dataset, dataset.key)


@router.post("/style-searches", Action.DRAW)
def search(state: State, sent: SentForm) -> Response:
    """Measure the image in `file`, then show the adapters of the nearest styles."""
    file = sent.get("file")
    if not (isinstance(file, UploadFile) and file.filename):
        raise InvalidInput("Choose an image file first.")
    job = similar.start_search(state, uploaded(file))
    return RedirectResponse(f"/style-searches/{job.key}", status_code=303)


@router.get("/style-searches/{search_id}", Action.LOOK)
def show_search(
    request: Request, search_id: Id, session: Reading, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters whose styles are nearest to an image that was sent."""
    title = "Styles like your image"
    return _show(request, session, title, base, page, similar.of_image, search_id)


def _show(
    request: Request,
    session: Session,
    title: str,
    base: str,
    page: int,
    find: Callable[[Session, int], Reference],
    key: int,
) -> Response:
    """The nearest adapters, of all families of base models or of one; or why there is no list.

    `is_waiting`: a worker still measures the thing that `title` names.
    """
    base, size = find_family(base) or "", ADAPTERS_A_PAGE
    found, problem, is_waiting = None, "", False
    try:
        reference = find(session, key)
        found = find_page(
            lambda number: similar.list_similar(
                session, reference, limit=size, start=(number - 1) * size, base=base
            ),
            page,
        )
    except Conflict as error:
        problem, is_waiting = error.detail, isinstance(error, NotMeasured)
    return render(
        request,
        "likeness/list.html",
        title=title,
        links=ListLinks(request.url.path, {"base": base}, kept=()),
        found=found,
        problem=problem,
        is_waiting=is_waiting,
        families=tuple(BaseFamily),
    )
