"""REST: lists of renders, and the images of several as a ZIP archive."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.registry.db import MAX_ID
from app.registry.renders import gallery
from app.registry.renders.gallery import GalleryFilter
from app.registry.renders.selection import MAX_CHOSEN
from app.web.openapi import file_docs
from app.web.playground.api import RenderOut, renders_out
from app.web.playground.gallery_pages import zip_response
from app.web.problems import problems
from app.web.rest.lists import Part
from app.web.state import Reading, SessionRoute, State

router = APIRouter(tags=["renders"], route_class=SessionRoute)

RenderIds = Annotated[
    list[Annotated[int, Query(ge=1, le=MAX_ID)]],
    Query(alias="id", min_length=1, max_length=MAX_CHOSEN, description="Ids of renders."),
]


@router.get("/renders")
def list_renders(
    session: Reading,
    part: Part,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="Words in the prompt or in names, slugs and trigger words of the adapters;"
            ' `"two words"` as a phrase.',
        ),
    ] = "",
    adapter: Annotated[
        str, Query(max_length=200, description="Only renders with this adapter: its id or slug.")
    ] = "",
    starred: Annotated[bool, Query(description="Only starred ones.")] = False,
    deleted: Annotated[bool, Query(description="Those that were deleted, not the others.")] = False,
) -> list[RenderOut]:
    """List or search finished renders, newest first.

    Images without adapters that were made only for comparison (`twin`) and drafts are left out, and
    of renders with the same image only the newest is listed.
    """
    filters = GalleryFilter(q, adapter, starred, deleted)
    found = gallery.list_renders(session, filters, size=part.size, before=part.after)
    rows = part.cut(found.items, lambda render: render.key, total=found.total)
    return renders_out(session, rows)


@router.get(
    "/renders/zip",
    response_class=Response,
    responses={
        **file_docs("application/zip"),
        **problems(
            {
                404: "A render does not exist or its file is gone.",
                409: "A render is deleted or has no image yet.",
                413: "The images are too large for one archive.",
            }
        ),
    },
)
def download_renders(state: State, ids: RenderIds) -> Response:
    """Download the images of several renders as a ZIP archive.

    The files are called `brushwork-<id>.png`, further images of one render `brushwork-<id>-2.png`.
    """
    return zip_response(state, ids)
