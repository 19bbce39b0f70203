"""The images on the page of a dataset: more of them, their captions, rules, deletion and undo."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.caption_tokens import CaptionTokens, tokens_of
from app.registry.datasets.image_captions.changes import CaptionChange
from app.registry.datasets.service import DatasetSummary
from app.registry.deletion.lists import restore
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.web import templates
from app.web.datasets.filter_parameters import PageImages
from app.web.datasets.listing_view import Tiles, read_filter_bar, read_tiles
from app.web.datasets.one_image_pages import SeenVersion, image_of, save_typed
from app.web.datasets.page_view import (
    CaptionConflict,
    dataset_page,
    image_address,
    redirect_to_image,
)
from app.web.datasets.statistics_view import read_statistics_panel
from app.web.forms import Text
from app.web.state import Id, Slug, State

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class TilesFragment:
    """The next images of a dataset, and the query of those after them."""

    dataset: Dataset
    tiles: Tiles
    filter_query: str
    tokens: CaptionTokens
    conflict: None = None


@dataclass(frozen=True)
class ImageFragment:
    """An image that was deleted or restored, with the updated counts."""

    dataset: Dataset
    summary: DatasetSummary
    image: Image
    tokens: CaptionTokens


@router.get("/datasets/{slug}/tiles")
def tiles(state: State, slug: Slug, shown: PageImages) -> Response:
    """The next images of a dataset, which the page adds to its own."""
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = read_tiles(session, dataset, shown)
        tokens = tokens_of(session, dataset.key)
    context = TilesFragment(dataset, found, shown.wanted.query, tokens)
    return templates.render_fragment("datasets/_tiles.html", context)


@router.get("/datasets/{slug}/filters")
def filters(state: State, slug: Slug, shown: PageImages) -> Response:
    """The filters above the images, with their counts as they are now."""
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        found = read_filter_bar(session, dataset, shown.wanted, now=True)
    return templates.render_fragment("datasets/_filters.html", filters=found)


@router.get("/datasets/{slug}/statistics")
def statistics(request: Request, state: State, slug: Slug, shown: PageImages) -> Response:
    """The words, tags, lengths and sizes of a dataset, which its page loads when asked for."""
    if not templates.wants_fragment(request):
        query = urlencode([*shown.wanted.pairs, ("statistics", "1")])
        return RedirectResponse(f"/datasets/{slug}?{query}#statistics", status_code=303)
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        panel = read_statistics_panel(session, dataset, shown.wanted, now=True)
    return templates.render_fragment("datasets/_figures.html", statistics=panel)


@router.post("/datasets/{slug}/images/{image_id}/caption")
def caption(
    request: Request,
    state: State,
    slug: Slug,
    image_id: Id,
    caption: Text = "",
    version: SeenVersion = None,
    typing: Text = "",
) -> Response:
    """Save a caption, unless it was changed elsewhere since `version`.

    `typing`: it continues what the same field saved a moment ago.
    """
    change = CaptionChange(caption, seen_version=version)
    found = save_typed(request, state, slug, image_id, change, is_typing=bool(typing))
    if isinstance(found, CaptionConflict):
        return dataset_page(request, state, slug, conflict=found, status=409)
    return found or redirect_to_image(state, slug, image_id)


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
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, image)
        return templates.render_fragment("datasets/_rules.html", context)
    return redirect_to_image(state, slug, image_id)


@router.post("/datasets/{slug}/images/{image_id}/delete")
def delete_image(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """Delete an image of a dataset; a message then offers to undo it."""
    with state.database.write() as session:
        dataset, image = image_of(session, slug, image_id)
        service.delete_image(session, image.key)
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, image)
        return _changed("datasets/_image_deleted.html", context)
    address = image_address(state, slug, image_id)
    undo = f"/datasets/{slug}/images/{image_id}/restore"
    return templates.redirect_with_notice(address, f"“{image.filename}” deleted.", undo=undo)


@router.post("/datasets/{slug}/images/{image_id}/restore")
def restore_image(request: Request, state: State, slug: Slug, image_id: Id) -> Response:
    """Restore a deleted image."""
    with state.database.write() as session:
        restore(session, Image, image_id)
        dataset, image = image_of(session, slug, image_id)
    if templates.wants_fragment(request):
        context = _image_fragment(state, dataset, image)
        return _changed("datasets/_image_restored.html", context)
    return redirect_to_image(state, slug, image_id)


def _changed(template: str, context: ImageFragment) -> Response:
    """A part of the page, after which the filters above the images count again."""
    answer = templates.render_fragment(template, context)
    answer.headers["hx-trigger"] = "images-changed"
    return answer


def _image_fragment(state: AppState, dataset: Dataset, image: Image) -> ImageFragment:
    with state.database.read() as session:
        summary = service.summary(session, dataset)
        return ImageFragment(dataset, summary, image, tokens_of(session, dataset.key))
