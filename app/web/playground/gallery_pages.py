"""The gallery of all images, and what is done with chosen ones."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response, StreamingResponse

from app.registry.adapters import service as adapters
from app.registry.db import MAX_ID, Session
from app.registry.errors import InvalidInput
from app.registry.paging import Page, find_page
from app.registry.people.whose import only
from app.registry.renders import selection
from app.registry.renders.gallery import GalleryFilter, adapter_choices, gallery_page, has_deleted
from app.registry.renders.listing import ShownRender
from app.registry.state import AppState
from app.registry.tables.renders import Render
from app.registry.zip_stream import archive_chunks
from app.web.access.needs import Action, Router
from app.web.addresses import ListLinks, own_address
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.media import content_disposition
from app.web.playground.forms import form_of_restyle
from app.web.state import Back, PageNumber, Reading, State, Words, Writing
from app.web.templates import redirect_with_notice, render, render_fragment, wants_fragment

router = Router(include_in_schema=False)

Ids = Annotated[list[Annotated[int, Query(ge=1, le=MAX_ID)]], Query(alias="id")]
Undo = Annotated[str, Query(max_length=4_000)]
UNDO = "undo"  # the part of the address with the ids of what was just deleted
GALLERY = "/renders"


def gallery_links(filters: GalleryFilter, page: int, whose: str = "") -> ListLinks:
    """Addresses of the gallery with changed filters."""
    values = {
        "q": filters.q,
        "adapter": filters.adapter,
        "starred": "1" if filters.starred else "",
        "show": "deleted" if filters.deleted else "",
        "whose": whose,
    }
    return ListLinks(GALLERY, values, kept=("show",), page=page)


@router.get(GALLERY, Action.LOOK)
def images(
    request: Request,
    session: Reading,
    q: Words = "",
    adapter: Words = "",
    starred: Words = "",
    show: Words = "",
    whose: Words = "",
    page: PageNumber = 1,
    undo: Undo = "",
) -> Response:
    """List all images, newest first; a page number past the end shows the last page."""
    filters = GalleryFilter(q.strip(), adapter.strip(), starred == "1", show == "deleted")
    with only(session, Render, whose):
        found = find_page(lambda number: gallery_page(session, filters, number), page)
    here = _adapters_here(session, found)
    choices = adapter_choices(session, filters.adapter)
    deleted = has_deleted(session)
    return render(
        request,
        "playground/gallery.html",
        found=found,
        filters=filters,
        links=gallery_links(filters, found.number, whose),
        whose=whose,
        choices=choices,
        here=here,
        has_deleted=deleted,
        undo=[key for key in map(as_id, undo.split("-")) if key],
        is_fragment=wants_fragment(request),
        is_empty=not (found.total or filters.is_narrow or whose),
        restyle_links={
            item.render.key: form_of_restyle(item.render, here).link for item in found.items
        },
    )


def _adapters_here(session: Session, found: Page[ShownRender]) -> set[int]:
    used = {used.adapter_id for item in found.items for used in item.render.stack}
    return adapters.still_here(session, sorted(used))


@router.get(f"{GALLERY}/zip", Action.DOWNLOAD)
def download(state: State, ids: Ids = [], back: Back = GALLERY) -> Response:  # noqa: B006
    """Download the chosen images as a ZIP archive."""
    if not ids:
        return redirect_with_notice(own_address(back), "Choose an image first.")
    return zip_response(state, ids)


def zip_response(state: AppState, render_ids: list[int]) -> Response:
    """The images of these renders as a download; what is wrong is said before it begins."""
    with state.database.read() as session:
        images = selection.named_images(session, render_ids)
    files = selection.zip_files(state.store, images)
    headers = {
        "content-disposition": content_disposition("brushwork-images.zip"),
        "cache-control": "private, no-store",
    }
    return StreamingResponse(archive_chunks(files), media_type="application/zip", headers=headers)


@router.get(f"{GALLERY}/compare-chosen", Action.LOOK)
def compare_chosen(ids: Ids = [], back: Back = GALLERY) -> Response:  # noqa: B006
    """Compare the two chosen images, the older one first; say so if it is another number."""
    keys = sorted(set(ids))
    if len(keys) != 2:
        return redirect_with_notice(own_address(back), "Choose two images to compare.")
    return RedirectResponse(f"{GALLERY}/compare?a={keys[0]}&b={keys[1]}", status_code=303)


@router.post(f"{GALLERY}/delete", Action.BULK)
def delete(session: Writing, sent: SentForm) -> Response:
    """Delete the chosen images; the page that follows offers to undo it."""
    keys, back = _read(sent)
    if not keys:
        return redirect_with_notice(back, "Choose an image first.")
    gone = selection.delete_chosen(session, keys)
    return _redirect_back(back, undo="-".join(str(row.key) for row in gone))


@router.post(f"{GALLERY}/restore", Action.BULK)
def restore(session: Writing, sent: SentForm) -> Response:
    """Restore the chosen images."""
    keys, back = _read(sent)
    if not keys:
        return redirect_with_notice(back, "Choose an image first.")
    selection.restore_chosen(session, keys)
    return _redirect_back(back)


@router.post(f"{GALLERY}/star", Action.BULK)
def star(request: Request, session: Writing, sent: SentForm) -> Response:
    """Star the chosen images, or remove their stars; `one`: answer with the star alone."""
    keys, back = _read(sent)
    if not keys:
        return redirect_with_notice(back, "Choose an image first.")
    rows = selection.star_chosen(session, keys, starred=sent.get("starred") == "1")
    if sent.get("one") and wants_fragment(request):
        return render_fragment("playground/_render_star.html", render=rows[0])
    return _redirect_back(back)


def _read(sent: FormData) -> tuple[list[int], str]:
    """The chosen ids and the page to go back to. Raises InvalidInput for other text."""
    keys: list[int] = []
    for value in sent.getlist("id"):
        key = as_id(str(value))
        if key is None:
            raise InvalidInput("A chosen image has no valid number. Load the page again.")
        keys.append(key)
    back = sent.get("back")
    return keys, own_address(str(back)) if back else GALLERY


def _redirect_back(back: str, **more: Any) -> Response:
    """Redirect to this page of the gallery, with more in its address."""
    parts = urlsplit(back)
    kept = [pair for pair in parse_qsl(parts.query) if pair[0] != UNDO]
    query = urlencode([*kept, *more.items()])
    return RedirectResponse(f"{parts.path}?{query}" if query else parts.path, status_code=303)
