"""Pages of styles like this: of an adapter, of a dataset, of an image that somebody chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.datasets import service as datasets
from app.registry.db import Session
from app.registry.errors import Conflict, InvalidInput
from app.registry.likeness import similar
from app.registry.likeness.similar import NotMeasured, Reference, SimilarPage
from app.registry.paging import find_page
from app.registry.state import AppState
from app.web.access.needs import Action, Router
from app.web.addresses import ListLinks
from app.web.forms import SentForm, uploaded
from app.web.state import Id, PageNumber, Slug, State, Words
from app.web.templates import render
from worker.core.families.family import BaseFamily, find_family

router = Router(include_in_schema=False)

ADAPTERS_A_PAGE = 24


@dataclass(frozen=True)
class LikePage:
    """Adapters by the nearness of their style to that of a thing that `title` names.

    `links` are to all of them, or to those of one family of base models. `problem`: why there is
    no list; `is_waiting`: a worker still measures the thing.
    """

    title: str
    links: ListLinks
    found: SimilarPage | None = None
    problem: str = ""
    is_waiting: bool = False
    families: tuple[BaseFamily, ...] = tuple(BaseFamily)


@router.get("/adapters/{slug}/like", Action.LOOK)
def like_adapter(
    request: Request, slug: Slug, state: State, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters of the nearest styles."""
    with state.database.read() as session:
        adapter = adapters.require_listed(adapters.adapter_by_slug(session, slug))
    title = f"Styles like “{adapter.name}”"
    return _show(request, state, title, base, page, lambda s: similar.of_adapter(s, adapter.key))


@router.get("/datasets/{slug}/like", Action.LOOK)
def like_dataset(
    request: Request, slug: Slug, state: State, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters whose styles are nearest to the images of a dataset."""
    with state.database.read() as session:
        dataset = datasets.dataset_by_slug(session, slug)
    title = f"Styles like “{dataset.name}”"
    return _show(request, state, title, base, page, lambda s: similar.of_dataset(s, dataset.key))


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
    request: Request, search_id: Id, state: State, base: Words = "", page: PageNumber = 1
) -> Response:
    """The adapters whose styles are nearest to an image that was sent."""
    title = "Styles like your image"
    return _show(request, state, title, base, page, lambda s: similar.of_image(s, search_id))


def _show(
    request: Request,
    state: AppState,
    title: str,
    base: str,
    page: int,
    find: Callable[[Session], Reference],
) -> Response:
    base, size = find_family(base) or "", ADAPTERS_A_PAGE
    links = ListLinks(request.url.path, {"base": base}, kept=())
    try:
        with state.database.read() as session:
            reference = find(session)
            found = find_page(
                lambda number: similar.list_similar(
                    session, reference, limit=size, start=(number - 1) * size, base=base
                ),
                page,
            )
    except Conflict as error:
        is_waiting = isinstance(error, NotMeasured)
        shown = LikePage(title, links, problem=error.detail, is_waiting=is_waiting)
    else:
        shown = LikePage(title, links, found)
    return render(request, "likeness/list.html", shown)
