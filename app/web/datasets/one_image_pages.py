"""The page of one image: large, with its captions, their history, its crop and its facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.caption_tokens import tokens_of
from app.registry.datasets.caption_writes import BY_HAND, STILL_TYPING
from app.registry.datasets.image_captions import changes, history
from app.registry.datasets.image_captions.changes import CaptionChange
from app.registry.datasets.image_captions.completion import complete_tag
from app.registry.db import MAX_ID, Session
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.web import templates
from app.web.datasets.one_image_view import OneImage, one_image
from app.web.datasets.page_view import CaptionConflict
from app.web.forms import Text
from app.web.state import Id, Slug, State
from worker.core.words import CaptionKind

router = APIRouter(include_in_schema=False)

ADDRESS = "/datasets/{slug}/images/{image_id}"
Version = Annotated[int, Path(ge=1, le=MAX_ID)]
SeenVersion = Annotated[int | None, Form(ge=0, le=MAX_ID)]


@dataclass(frozen=True)
class OneImagePage:
    """The page of an image, or a part of it that changed."""

    view: OneImage


def image_of(session: Session, slug: str, image_id: int) -> tuple[Dataset, Image]:
    """A dataset and one of its images. Raises NotFound."""
    dataset = service.dataset_by_slug(session, slug)
    image = service.get_image(session, image_id)
    if image.dataset_id != dataset.key:
        raise NotFound("This dataset has no such image.")
    return dataset, image


@router.get("/datasets/{slug}/tags")
def complete(
    state: State, slug: Slug, q: Annotated[str, Query(max_length=200)] = ""
) -> JSONResponse:
    """The tags of the dataset that complete what was typed."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        return JSONResponse(complete_tag(session, dataset, q))


@router.get(ADDRESS)
def show(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """Show an image with its captions; the query is the filter of the page that led to it."""
    return _page(request, state, slug, image_id)


def _page(
    request: Request,
    state: State,
    slug: str,
    image_id: int,
    *,
    conflict: tuple[CaptionKind, CaptionConflict] | None = None,
) -> Response:
    with state.database.snapshot() as session:
        dataset, image = image_of(session, slug, image_id)
        view = one_image(session, dataset, image, request.url.query, conflict=conflict)
    status = 409 if conflict else 200
    return templates.render(request, "datasets/image.html", OneImagePage(view), status=status)


def _changed(
    request: Request, state: State, slug: str, image_id: int, part: str, anchor: str = ""
) -> Response:
    """The part of the page that changed; without scripts, the page."""
    if templates.wants_fragment(request):
        with state.database.snapshot() as session:
            view = one_image(session, *image_of(session, slug, image_id), request.url.query)
        return templates.render_fragment(part, OneImagePage(view))
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/datasets/{slug}/images/{image_id}{query}{anchor}", status_code=303)


@router.get(ADDRESS + "/history")
def show_history(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """The history of the captions, which the page reads again after a change."""
    return _changed(request, state, slug, image_id, "datasets/_image_history.html")


@router.post(ADDRESS + "/captions")
def add_caption(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    kind: Annotated[CaptionKind, Form()],
    caption: Text = "",
) -> Response:
    """Add a caption of another kind."""
    if not caption.strip():
        raise InvalidInput("Write the caption, then add it.", fields={"caption": "It is empty."})
    with state.database.write() as session:
        image_of(session, slug, image_id)
        changes.change_caption(session, image_id, kind, CaptionChange(caption, seen_version=0))
    return _changed(request, state, slug, image_id, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/captions/{kind}")
def save_caption(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    kind: CaptionKind,
    caption: Text = "",
    version: SeenVersion = None,
    typing: Text = "",
) -> Response:
    """Save a caption; `typing`: it continues what the same field saved a moment ago."""
    change = CaptionChange(caption, seen_version=version)
    found = save_typed(request, state, slug, image_id, change, kind, is_typing=bool(typing))
    if isinstance(found, CaptionConflict):
        return _page(request, state, slug, image_id, conflict=(kind, found))
    return found or _changed(request, state, slug, image_id, "", f"#caption-{kind}")


def save_typed(
    request: Request,
    state: AppState,
    slug: str,
    image_id: int,
    change: CaptionChange,
    kind: CaptionKind | None = None,
    *,
    is_typing: bool,
) -> JSONResponse | CaptionConflict | None:
    """Save a caption, unless it was changed elsewhere since the version of the change.

    `kind` None: the first one. The answer for a script, which may be an error; for a page None, or
    the conflict.
    """
    origin = STILL_TYPING if is_typing else BY_HAND
    try:
        with state.database.write() as session:
            dataset, image = image_of(session, slug, image_id)
            of = kind or CaptionKind(image.caption_kind)
            saved = changes.change_caption(session, image_id, of, change, origin=origin)
            summary = service.summary(session, dataset)
            tokens = tokens_of(session, dataset.key)
    except Conflict as conflict:
        if not templates.wants_page(request):
            raise
        theirs, newer = conflict.fields["caption"], conflict.fields["caption_version"]
        return CaptionConflict(image_id, change.caption or "", theirs, newer)
    if templates.wants_page(request):
        return None
    return JSONResponse(
        {
            "caption": saved.caption,
            "version": saved.version,
            "uncaptioned": summary.image_count - summary.captioned_count,
            "tokens": tokens.count(saved.caption),
        }
    )


@router.post(ADDRESS + "/captions/{kind}/share")
def change_share(
    request: Request, state: State, slug: Slug, image_id: Id, kind: CaptionKind, share: Text = ""
) -> Response:
    """Change how often a caption is used."""
    number = int(share) if share.isascii() and share.isdigit() and len(share) < 10 else 0
    with state.database.write() as session:
        image_of(session, slug, image_id)
        changes.change_caption(session, image_id, kind, CaptionChange(share=number))
    return _changed(request, state, slug, image_id, "datasets/_image_shares.html")


@router.post(ADDRESS + "/captions/{kind}/remove")
def remove_caption(
    request: Request, state: State, slug: Slug, image_id: Id, kind: CaptionKind
) -> Response:
    """Remove a caption; its history keeps it."""
    with state.database.write() as session:
        image_of(session, slug, image_id)
        changes.remove_caption(session, image_id, kind)
    return _changed(request, state, slug, image_id, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/captions/{kind}/{version}/restore")
def restore_caption(
    request: Request, state: State, slug: Slug, image_id: Id, kind: CaptionKind, version: Version
) -> Response:
    """Let a caption say again what it said in a version."""
    with state.database.write() as session:
        image_of(session, slug, image_id)
        history.restore_caption(session, image_id, kind, version)
    return _changed(request, state, slug, image_id, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/kind")
def change_kind(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    kind: Annotated[CaptionKind, Form()],
) -> Response:
    """Say what the first caption is."""
    with state.database.write() as session:
        image_of(session, slug, image_id)
        changes.change_first_kind(session, image_id, kind)
    return _changed(request, state, slug, image_id, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/focus")
def change_focus(
    request: Request, state: State, slug: Slug, image_id: Id, left: Text = "", top: Text = ""
) -> Response:
    """Save the point that crops keep, in percent from the left and the top; empty: the center."""
    focus = None if not left.strip() and not top.strip() else (_percent(left), _percent(top))
    with state.database.write() as session:
        image_of(session, slug, image_id)
        service.set_focus(session, image_id, focus)
    if templates.wants_page(request):
        return _changed(request, state, slug, image_id, "", "#image-crop")
    with state.database.read() as session:
        view = one_image(session, *image_of(session, slug, image_id), request.url.query)
    crop = view.crop
    return JSONResponse(
        {
            "left": crop.left,
            "top": crop.top,
            "width": crop.width,
            "height": crop.height,
            "focus": [view.focus.left, view.focus.top],
            "text": view.focus.text,
        }
    )


def _percent(text: str) -> float:
    """A number from 0 to 100 as a fraction; NaN, which no focus is, for any other text."""
    try:
        return float(text[:40].replace(",", ".")) / 100
    except ValueError:
        return float("nan")


@router.post(ADDRESS + "/use")
def change_use(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    repeats: Text = "",
    never_flip: Text = "",
) -> Response:
    """Save how runs use the image: repeats and horizontal flip."""
    number = int(repeats) if repeats.isascii() and repeats.isdigit() and len(repeats) < 10 else 0
    with state.database.write() as session:
        image_of(session, slug, image_id)
        service.change_image(session, image_id, repeats=number, never_flip=bool(never_flip))
    return _changed(request, state, slug, image_id, "datasets/_image_use.html")


@router.post(ADDRESS + "/set-aside")
def set_aside(
    request: Request, state: State, slug: Slug, image_id: Id, aside: Text = ""
) -> Response:
    """Keep an image, but do not train on it; or take it back."""
    with state.database.write() as session:
        image_of(session, slug, image_id)
        service.change_image(session, image_id, set_aside=bool(aside))
    return _changed(request, state, slug, image_id, "datasets/_image_head.html")
