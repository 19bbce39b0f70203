"""The images on the page of a dataset: more of them, their captions, rules, deletion and undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.caption_writes import BY_HAND, STILL_TYPING
from app.registry.datasets.image_captions.tokens import CaptionTokens, tokens_of
from app.registry.datasets.image_pages import list_image_page
from app.registry.datasets.models import Dataset, Image
from app.registry.datasets.service import DatasetSummary
from app.registry.db import MAX_ID
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.web import templates
from app.web.datasets.one_image_pages import image_of
from app.web.datasets.page_view import (
    CaptionConflict,
    dataset_page,
    redirect_to_image,
    tile_query,
    tiles_query,
)
from app.web.forms import Text
from app.web.state import Id, Slug, State

router = APIRouter(include_in_schema=False)

Words = Annotated[str, Query(max_length=200)]
Cursor = Annotated[int, Query(ge=0, le=MAX_ID)]


@dataclass(frozen=True)
class TilesFragment:
    """The next images of a dataset, and the query of those after them."""

    dataset: Dataset
    images: list[Image]
    more: str
    tokens: CaptionTokens
    tile_query: str
    conflict: None = None


@dataclass(frozen=True)
class ImageFragment:
    """An image that was deleted or restored, with the updated counts."""

    dataset: Dataset
    summary: DatasetSummary
    image: Image
    show: str
    tokens: CaptionTokens


@router.get("/datasets/{slug}/tiles")
def tiles(
    state: State, slug: Slug, show: Words = "all", q: Words = "", after: Cursor = 0
) -> Response:
    """The next images of a dataset, which the page adds to its own."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, slug)
        page = list_image_page(session, dataset.key, show=show, q=q.strip(), after=after)
        tokens = tokens_of(session, dataset.key)
    more = tiles_query(show, q, page.next)
    context = TilesFragment(dataset, page.images, more, tokens, tile_query(show, q))
    return templates.render_fragment("datasets/_tiles.html", context)


@router.post("/datasets/{slug}/images/{image_id}/caption")
def caption(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    caption: Text = "",
    version: Annotated[int | None, Form(ge=0, le=MAX_ID)] = None,
    typing: Text = "",
) -> Response:
    """Save a caption, unless it was changed elsewhere since `version`.

    `typing`: it continues what the same field saved a moment ago.
    """
    origin = STILL_TYPING if typing else BY_HAND
    try:
        with state.database.write() as session:
            dataset, image = image_of(session, slug, image_id)
            image = service.caption_image(
                session, image.key, caption, seen_version=version, origin=origin
            )
            summary = service.summary(session, dataset)
            tokens = tokens_of(session, dataset.key)
    except Conflict as conflict:
        if not templates.wants_page(request):
            raise
        theirs, newer = conflict.fields["caption"], conflict.fields["caption_version"]
        shown = CaptionConflict(image_id, caption, theirs, newer)
        return dataset_page(request, state, slug, conflict=shown, status=409)
    if templates.wants_page(request):
        return redirect_to_image(state, dataset, image_id)
    return JSONResponse(
        {
            "caption": image.caption,
            "version": image.caption_version,
            "uncaptioned": summary.image_count - summary.captioned_count,
            "tokens": tokens.count(image.caption),
        }
    )


@router.post("/datasets/{slug}/images/{image_id}/rules")
def change_rules(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    repeats: Text = "",
    never_flip: Text = "",
) -> Response:
    """Save the training rules of an image: repeats and horizontal flip."""
    number = int(repeats) if repeats.isascii() and repeats.isdigit() else 0
    with state.database.write() as session:
        dataset, image = image_of(session, slug, image_id)
        image = service.change_image(
            session, image.key, repeats=number, never_flip=bool(never_flip)
        )
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, summary, image)
        return templates.render_fragment("datasets/_rules.html", context)
    return redirect_to_image(state, dataset, image_id)


@router.post("/datasets/{slug}/images/{image_id}/delete")
def delete_image(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """Delete an image of a dataset; a message then offers to undo it."""
    with state.database.write() as session:
        dataset, image = image_of(session, slug, image_id)
        service.delete_image(session, image.key)
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, summary, image)
        return templates.render_fragment("datasets/_image_deleted.html", context)
    return redirect_to_image(state, dataset, image_id, is_deleted=True)


@router.post("/datasets/{slug}/images/{image_id}/restore")
def restore_image(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """Restore a deleted image."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, slug)
        image = service.deleted_image(session, dataset.key, image_id)
        if image is not None:
            service.restore_image(session, image_id)
        dataset, image = image_of(session, slug, image_id)
        summary = service.summary(session, dataset)
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, summary, image)
        return templates.render_fragment("datasets/_image_restored.html", context)
    return redirect_to_image(state, dataset, image_id)


def _image_fragment(
    state: AppState, dataset: Dataset, summary: DatasetSummary, image: Image
) -> ImageFragment:
    with state.database.read() as session:
        tokens = tokens_of(session, dataset.key)
    return ImageFragment(dataset, summary, image, show="all", tokens=tokens)
