"""The page that compares two images of the playground, or chooses the second one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.comparison.renders import (
    TwoRenders,
    compare_renders,
    find_render,
    stack_words,
)
from app.registry.db import MAX_ID, Session
from app.registry.errors import NotFound
from app.registry.renders.gallery import GalleryFilter, GalleryItem, gallery_page
from app.registry.renders.listing import first_images
from app.registry.tables.renders import Render, RenderImage
from app.web.comparison import ComparedImage
from app.web.state import State
from app.web.templates import render

router = APIRouter(include_in_schema=False)
Chosen = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class ImageChoice:
    """An image to compare with; `title`: its adapters and weights."""

    render: Render
    image: RenderImage
    title: str


@dataclass(frozen=True)
class CompareImagesPage:
    """Two images side by side, or one and what it can be compared with.

    `problem` says why there are not two; `images` is empty then, or if one has no image.
    """

    found: TwoRenders | None
    images: list[ComparedImage]
    is_same_size: bool
    first: GalleryItem | None
    choices: list[ImageChoice]
    problem: str


@router.get("/renders/compare")
def compare(request: Request, state: State, a: Chosen = None, b: Chosen = None) -> Response:
    """Compare two images; with one of them, choose the other."""
    found, problem, first, choices = None, "", None, list[ImageChoice]()
    known = a or b
    with state.database.read() as session:
        try:
            if a is not None and b is not None and a != b:
                found = compare_renders(session, a, b)
            elif known is not None:
                first, choices = _to_choose(session, known)
        except NotFound as error:
            problem = error.detail
    if a is not None and a == b and first:
        problem = "Both are the same image. Choose another one."
    images = _sides(found) if found else []
    if found and not images:
        problem = "One of these has no image, so there is nothing to compare yet."
    elif known and not found and not first and not problem:
        problem = f"Image {known} has not been generated. Choose another one."
    context = CompareImagesPage(
        found=found,
        images=images,
        is_same_size=found is not None and _size(found.a) == _size(found.b),
        first=first,
        choices=choices,
        problem=problem,
    )
    is_missing = known is not None and not found and not first
    return render(request, "playground/compare.html", context, status=404 if is_missing else 200)


def _size(row: Render) -> tuple[int, int]:
    return row.width, row.height


def _to_choose(session: Session, render_id: int) -> tuple[GalleryItem | None, list[ImageChoice]]:
    """The render, None without an image, and the newest others. Raises NotFound."""
    row = find_render(session, render_id)
    image = first_images(session, [row]).get(row.key)
    if image is None:
        return None, []
    others = gallery_page(session, GalleryFilter()).items
    choices = [
        ImageChoice(item.render, item.image, stack_words(item.render))
        for item in others
        if item.render.key != row.key
    ]
    return GalleryItem(row, image), choices


def _sides(found: TwoRenders) -> list[ComparedImage]:
    if found.a_image is None or found.b_image is None:
        return []
    return [
        ComparedImage(found.a_image.sha256, found.a_label, f"{found.a.prompt}, {found.a_label}"),
        ComparedImage(found.b_image.sha256, found.b_label, f"{found.b.prompt}, {found.b_label}"),
    ]
