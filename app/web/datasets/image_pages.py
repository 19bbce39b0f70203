"""The images on the page of a dataset: more of them, their captions, rules, deletion and undo."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi.responses import RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.image_captions.changes import CaptionChange
from app.registry.datasets.listing.pages import page_of_image
from app.registry.datasets.service import DatasetSummary
from app.registry.datasets.training_side import CaptionTokens, tokens_of
from app.registry.db import Session
from app.registry.deletion.lists import restore
from app.registry.tables.datasets import Dataset, Image
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.filter_parameters import PageImages
from app.web.datasets.listing_view import read_filter_bar, read_tiles
from app.web.datasets.one_image_pages import SeenVersion, save_typed
from app.web.datasets.page_requests import ImageRequest, OfDataset, OfImage
from app.web.datasets.page_view import CaptionConflict, dataset_page
from app.web.datasets.statistics_view import read_statistics_panel
from app.web.forms import Text

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class ImageFragment:
    """An image that was deleted or restored, with the updated counts."""

    dataset: Dataset
    summary: DatasetSummary
    image: Image
    tokens: CaptionTokens


@router.get("/datasets/{slug}/tiles", Action.LOOK)
def tiles(asked: OfDataset, shown: PageImages) -> Response:
    """The next images of a dataset, which the page adds to its own."""
    with asked.reading() as (session, dataset):
        found = read_tiles(session, dataset, shown)
        tokens = tokens_of(session, dataset.key)
    return templates.render_fragment(
        "datasets/_tiles.html",
        dataset=dataset,
        tiles=found,
        filter_query=shown.wanted.query,
        tokens=tokens,
        conflict=None,
    )


@router.get("/datasets/{slug}/filters", Action.LOOK)
def filters(asked: OfDataset, shown: PageImages) -> Response:
    """The filters above the images, with their counts as they are now."""
    with asked.reading() as (session, dataset):
        found = read_filter_bar(session, dataset, shown.wanted, now=True)
    return templates.render_fragment("datasets/_filters.html", filters=found)


@router.get("/datasets/{slug}/statistics", Action.LOOK)
def statistics(asked: OfDataset, shown: PageImages) -> Response:
    """The words, tags, lengths and sizes of a dataset, which its page loads when asked for."""
    if not asked.wants_fragment:
        query = urlencode([*shown.wanted.pairs, ("statistics", "1")])
        return RedirectResponse(f"/datasets/{asked.slug}?{query}#statistics", status_code=303)
    with asked.reading() as (session, dataset):
        panel = read_statistics_panel(session, dataset, shown.wanted, now=True)
    return templates.render_fragment("datasets/_figures.html", statistics=panel)


@router.post("/datasets/{slug}/images/{image_id}/caption", Action.EDIT)
def caption(
    asked: OfImage, caption: Text = "", version: SeenVersion = None, typing: Text = ""
) -> Response:
    """Save a caption, unless it was changed elsewhere since `version`.

    `typing`: it continues what the same field saved a moment ago.
    """
    change = CaptionChange(caption, seen_version=version)
    found = save_typed(asked, change, is_typing=bool(typing))
    if isinstance(found, CaptionConflict):
        return dataset_page(asked, conflict=found, status=409)
    return found or _redirect_to_image(asked)


@router.post("/datasets/{slug}/images/{image_id}/rules", Action.EDIT)
def change_rules(asked: OfImage, repeats: Text = "", never_flip: Text = "") -> Response:
    """Save the training rules of an image: repeats and horizontal flip."""
    number = int(repeats) if repeats.isascii() and repeats.isdigit() else 0
    with asked.changing() as (session, _):
        image = service.change_image(
            session, asked.image_id, repeats=number, never_flip=bool(never_flip)
        )
        context = _image_fragment(session, image)
    if asked.wants_fragment:
        return templates.render_fragment("datasets/_rules.html", context)
    return _redirect_to_image(asked)


@router.post("/datasets/{slug}/images/{image_id}/delete", Action.OWN)
def delete_image(asked: OfImage) -> Response:
    """Delete an image of a dataset; a message then offers to undo it."""
    with asked.changing() as (session, _):
        image = service.delete_image(session, asked.image_id)
        context = _image_fragment(session, image)
    if asked.wants_fragment:
        return _changed("datasets/_image_deleted.html", context)
    address = _address_of(asked)
    undo = f"/datasets/{asked.slug}/images/{asked.image_id}/restore"
    return templates.redirect_with_notice(address, f"“{image.filename}” deleted.", undo=undo)


@router.post("/datasets/{slug}/images/{image_id}/restore", Action.OWN)
def restore_image(asked: OfImage) -> Response:
    """Restore a deleted image."""
    with asked.writing() as (session, dataset):
        restore(session, Image, asked.image_id)
        context = _image_fragment(session, asked.image_of(session, dataset))
    if asked.wants_fragment:
        return _changed("datasets/_image_restored.html", context)
    return _redirect_to_image(asked)


def _changed(template: str, context: ImageFragment) -> Response:
    """A part of the page, after which the filters above the images count again."""
    answer = templates.render_fragment(template, context)
    answer.headers["hx-trigger"] = "images-changed"
    return answer


def _image_fragment(session: Session, image: Image) -> ImageFragment:
    dataset = service.get_dataset(session, image.dataset_id)
    summary = service.summary(session, dataset)
    return ImageFragment(dataset, summary, image, tokens_of(session, dataset.key))


def _redirect_to_image(asked: ImageRequest) -> Response:
    return RedirectResponse(_address_of(asked), status_code=303)


def _address_of(asked: ImageRequest) -> str:
    """The page of the dataset that shows the image, or did until it was deleted."""
    with asked.reading() as (session, dataset):
        page = page_of_image(session, dataset, asked.image_id)
    query = f"?page={page}" if page > 1 else ""
    return f"/datasets/{dataset.slug}{query}#image-{asked.image_id}"
