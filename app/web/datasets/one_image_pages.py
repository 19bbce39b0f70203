"""The page of one image: large, with its captions, their history, its crop and its facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Path, Query
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.responses import Response

from app.registry.datasets import service
from app.registry.datasets.caption_writes import BY_HAND, STILL_TYPING
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.image_captions import changes
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    WrittenCaption,
    caption_history,
)
from app.registry.datasets.image_captions.completion import complete_tag
from app.registry.datasets.image_facts import ImageFacts, image_facts
from app.registry.datasets.listing.pages import Neighbors, find_neighbors
from app.registry.datasets.several_captions import OneCaption, captions_of_image
from app.registry.datasets.training_side import (
    CaptionTokens,
    TrainingSide,
    tokens_of,
    training_side,
)
from app.registry.db import MAX_ID
from app.registry.errors import Conflict, InvalidInput
from app.registry.runs.crops import Crop, crop_of
from app.registry.tables.datasets import Dataset, Image
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.datasets.page_requests import ImageRequest, OfDataset, OfImage
from app.web.datasets.page_view import CaptionConflict
from app.web.forms import Text
from worker.core.words import CaptionKind

router = Router(include_in_schema=False)

ADDRESS = "/datasets/{slug}/images/{image_id}"
Version = Annotated[int, Path(ge=1, le=MAX_ID)]
SeenVersion = Annotated[int | None, Form(ge=0, le=MAX_ID)]


@dataclass(frozen=True)
class ShownCaption:
    """A caption with its tokens, and what was typed if that is not saved."""

    row: OneCaption
    tokens: int
    contested: CaptionConflict | None = None


@dataclass(frozen=True)
class FocusPoint:
    """The point that crops keep, in percent from the left and the top, and in pixels."""

    left: float
    top: float
    x: float
    y: float

    @property
    def text(self) -> str:
        """Such as “40 % from the left, 50 % from the top”."""
        return f"{self.left:.0f} % from the left, {self.top:.0f} % from the top"


@dataclass(frozen=True)
class OneImage:
    """An image with all that its page shows; `query` is the filter that led to it."""

    dataset: Dataset
    image: Image
    query: str
    neighbors: Neighbors
    captions: list[ShownCaption]
    tokens: CaptionTokens
    history: list[WrittenCaption]
    crop: Crop
    side: TrainingSide
    focus: FocusPoint
    facts: ImageFacts

    @property
    def address(self) -> str:
        """The address of its page, without the query."""
        return f"/datasets/{self.dataset.slug}/images/{self.image.id}"

    @property
    def more(self) -> str:
        """The query with its question mark, or nothing."""
        return f"?{self.query}" if self.query else ""

    @property
    def free_kinds(self) -> list[tuple[str, str]]:
        """The kinds of captions that the image does not have, with their labels."""
        taken = {one.row.kind for one in self.captions}
        return [(kind.value, kind.label) for kind in CaptionKind if kind not in taken]


@dataclass(frozen=True)
class OneImagePage:
    """The page of an image, or a part of it that changed."""

    view: OneImage


def _focus_point(image: Image) -> FocusPoint:
    x, y = image.focus or (0.5, 0.5)
    return FocusPoint(
        round(x * 100, 1), round(y * 100, 1), round(x * image.width, 1), round(y * image.height, 1)
    )


@router.get("/datasets/{slug}/tags", Action.LOOK)
def complete(asked: OfDataset, q: Annotated[str, Query(max_length=200)] = "") -> JSONResponse:
    """The tags of the dataset that complete what was typed."""
    with asked.reading() as (session, dataset):
        return JSONResponse(complete_tag(session, dataset, q))


def _page(
    asked: ImageRequest, conflict: tuple[CaptionKind, CaptionConflict] | None = None
) -> Response:
    """The whole page, and a conflict of a caption that was not saved."""
    page = OneImagePage(_view(asked, conflict))
    status = 409 if conflict else 200
    return templates.render(asked.request, "datasets/image.html", page, status=status)


def _view(
    asked: ImageRequest, conflict: tuple[CaptionKind, CaptionConflict] | None = None
) -> OneImage:
    """What the page shows; `conflict`: a caption that could not be saved."""
    with asked.reading() as (session, dataset):
        image = asked.image_of(session, dataset)
        wanted = ImageFilter.from_query(asked.request.url.query)
        tokens = tokens_of(session, dataset.key)
        side = training_side(session, dataset.key)
        return OneImage(
            dataset=dataset,
            image=image,
            query=wanted.query,
            neighbors=find_neighbors(session, dataset, image.key, wanted),
            captions=[
                ShownCaption(
                    row,
                    tokens.count(row.caption),
                    conflict[1] if conflict and conflict[0] == row.kind else None,
                )
                for row in captions_of_image(session, image)
            ],
            tokens=tokens,
            history=caption_history(session, image),
            crop=crop_of(image, side.pixels, squares=side.squares),
            side=side,
            focus=_focus_point(image),
            facts=image_facts(session, image),
        )


def _changed(asked: ImageRequest, part: str, anchor: str = "") -> Response:
    """The part of the page that changed; without scripts, the page."""
    if asked.wants_fragment:
        return templates.render_fragment(part, OneImagePage(_view(asked)))
    query = f"?{asked.request.url.query}" if asked.request.url.query else ""
    address = f"/datasets/{asked.slug}/images/{asked.image_id}{query}{anchor}"
    return RedirectResponse(address, status_code=303)


@router.get(ADDRESS, Action.LOOK)
def show(asked: OfImage) -> Response:
    """Show an image with its captions; the query is the filter of the page that led to it."""
    return _page(asked)


@router.get(ADDRESS + "/history", Action.LOOK)
def show_history(asked: OfImage) -> Response:
    """The history of the captions, which the page reads again after a change."""
    return _changed(asked, "datasets/_image_history.html")


@router.post(ADDRESS + "/captions", Action.EDIT)
def add_caption(
    asked: OfImage, kind: Annotated[CaptionKind, Form()], caption: Text = ""
) -> Response:
    """Add a caption of another kind."""
    if not caption.strip():
        raise InvalidInput("Write the caption, then add it.", fields={"caption": "It is empty."})
    with asked.changing() as (session, _):
        changes.change_caption(
            session, asked.image_id, kind, CaptionChange(caption, seen_version=0)
        )
    return _changed(asked, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/captions/{kind}", Action.EDIT)
def save_caption(
    asked: OfImage,
    kind: CaptionKind,
    caption: Text = "",
    version: SeenVersion = None,
    typing: Text = "",
) -> Response:
    """Save a caption; `typing`: it continues what the same field saved a moment ago."""
    change = CaptionChange(caption, seen_version=version)
    found = save_typed(asked, change, kind, is_typing=bool(typing))
    if isinstance(found, CaptionConflict):
        return _page(asked, (kind, found))
    return found or _changed(asked, "", f"#caption-{kind}")


def save_typed(
    asked: ImageRequest,
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
        with asked.writing() as (session, dataset):
            of = kind or CaptionKind(asked.image_of(session, dataset).caption_kind)
            saved = changes.change_caption(session, asked.image_id, of, change, origin=origin)
            summary = service.summary(session, dataset)
            tokens = tokens_of(session, dataset.key)
    except Conflict as conflict:
        if not templates.wants_page(asked.request):
            raise
        theirs, newer = conflict.fields["caption"], conflict.fields["caption_version"]
        return CaptionConflict(asked.image_id, change.caption or "", theirs, newer)
    if templates.wants_page(asked.request):
        return None
    return JSONResponse(
        {
            "caption": saved.caption,
            "version": saved.version,
            "uncaptioned": summary.image_count - summary.captioned_count,
            "tokens": tokens.count(saved.caption),
        }
    )


@router.post(ADDRESS + "/captions/{kind}/share", Action.EDIT)
def change_share(asked: OfImage, kind: CaptionKind, share: Text = "") -> Response:
    """Change how often a caption is used."""
    number = int(share) if share.isascii() and share.isdigit() and len(share) < 10 else 0
    with asked.changing() as (session, _):
        changes.change_caption(session, asked.image_id, kind, CaptionChange(share=number))
    return _changed(asked, "datasets/_image_shares.html")


@router.post(ADDRESS + "/captions/{kind}/remove", Action.EDIT)
def remove_caption(asked: OfImage, kind: CaptionKind) -> Response:
    """Remove a caption; its history keeps it."""
    with asked.changing() as (session, _):
        changes.remove_caption(session, asked.image_id, kind)
    return _changed(asked, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/captions/{kind}/{version}/restore", Action.EDIT)
def restore_caption(asked: OfImage, kind: CaptionKind, version: Version) -> Response:
    """Let a caption say again what it said in a version."""
    with asked.changing() as (session, _):
        changes.restore_caption(session, asked.image_id, kind, version)
    return _changed(asked, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/kind", Action.EDIT)
def change_kind(asked: OfImage, kind: Annotated[CaptionKind, Form()]) -> Response:
    """Say what the first caption is."""
    with asked.changing() as (session, _):
        changes.change_first_kind(session, asked.image_id, kind)
    return _changed(asked, "datasets/_image_captions_changed.html")


@router.post(ADDRESS + "/focus", Action.EDIT)
def change_focus(asked: OfImage, left: Text = "", top: Text = "") -> Response:
    """Save the point that crops keep, in percent from the left and the top; empty: the center."""
    focus = None if not left.strip() and not top.strip() else (_percent(left), _percent(top))
    with asked.changing() as (session, _):
        service.set_focus(session, asked.image_id, focus)
    if templates.wants_page(asked.request):
        return _changed(asked, "", "#image-crop")
    view = _view(asked)
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


@router.post(ADDRESS + "/use", Action.EDIT)
def change_use(asked: OfImage, repeats: Text = "", never_flip: Text = "") -> Response:
    """Save how runs use the image: repeats and horizontal flip."""
    number = int(repeats) if repeats.isascii() and repeats.isdigit() and len(repeats) < 10 else 0
    with asked.changing() as (session, _):
        service.change_image(session, asked.image_id, repeats=number, never_flip=bool(never_flip))
    return _changed(asked, "datasets/_image_use.html")


@router.post(ADDRESS + "/set-aside", Action.EDIT)
def set_aside(asked: OfImage, aside: Text = "") -> Response:
    """Keep an image, but do not train on it; or take it back."""
    with asked.changing() as (session, _):
        service.change_image(session, asked.image_id, set_aside=bool(aside))
    return _changed(asked, "datasets/_image_head.html")
