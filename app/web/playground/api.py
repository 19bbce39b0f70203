"""REST: renders, and the images of several as a ZIP archive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from fastapi import File, Form, Query, Response, UploadFile
from pydantic import BaseModel, Field, StrictBool

from app.registry.db import MAX_ID, Session
from app.registry.errors import InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.people.whose import only
from app.registry.renders import drafts, gallery, listing, recall, selection, service, sources
from app.registry.renders.gallery import GalleryFilter
from app.registry.renders.requests import RenderRequest
from app.registry.renders.selection import MAX_CHOSEN
from app.registry.renders.sources import SourceImage
from app.registry.tables.renders import MAX_SLOT, Render
from app.web.access.needs import Action, Router
from app.web.answers import Answer, JobAnswer, OwnedAnswer, image_urls
from app.web.openapi import file_docs
from app.web.playground.gallery_pages import zip_response
from app.web.problems import CANCEL, OF_BLIND_TEST, problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part, Whose
from app.web.state import Id, Reading, State, Writing
from worker.core.inference.infotext import (
    MAX_INFOTEXT,
    InfotextError,
    parse_infotext,
    read_image_infotext,
)
from worker.core.words import RenderPrecision, SamplerName

router = Router(tags=["renders"])


class RenderIn(RenderRequest):
    """A request for images."""

    model_config = example(prompt="castle, ink", seed=7, adapters=[{"id": 1, "weight": 0.8}])
    draft_slot: str | None = Field(None, max_length=MAX_SLOT, pattern=r"^[0-9A-Za-z_-]+$")
    """Makes it a draft: it cancels the unfinished drafts of this slot, is in no list, and is
    deleted an hour after its end unless it is kept."""

    @classmethod
    def of(cls, request: RenderRequest) -> RenderIn:
        """A request as it can be sent."""
        return cls.model_construct(**dict(request))


class RecallOut(BaseModel):
    """The request in the settings of a text or an image."""

    request: RenderIn = Field(description="Send it to `POST /renders`.")
    missing: list[str] = Field(description="What of it is not here or not possible, as sentences.")


class RenderImageOut(Answer):
    """One image of a render."""

    url: str = Field(description="Address of the PNG.")
    thumbnail_url: str = Field(description="Address of a small WebP of it.")
    seed: int = Field(description="Its seed.")


class RenderCreated(Answer):
    """The render that was queued; one whose images were cached has succeeded."""

    address: ClassVar[str] = "/api/v1/renders/{id}"
    id: int = Field(description="Id of the render: poll `/renders/{id}`.")
    status: JobStatus = Field(description="`queued`, or `succeeded` if the images exist already.")
    twin_id: int | None = Field(description="The render without adapters, if it was requested.")
    images: list[RenderImageOut] = Field(description="Its images; empty unless it has succeeded.")
    note: str | None
    """A warning about the request, such as for a size far from the base model's own."""


class RenderOut(OwnedAnswer, JobAnswer):
    """A render."""

    address: ClassVar[str] = "/api/v1/renders/{id}"
    progress: int = Field(description="Denoising steps done.")
    steps: int = Field(description="Denoising steps in all.")
    images: list[RenderImageOut] = Field(description="Its images, once it has succeeded.")
    waits_for: str | None
    """What it waits for during an outage or on a full disk, as a sentence."""
    note: str | None = Field(description="A hint about the result.")
    prompt: str = Field(description="The prompt.")
    negative_prompt: str = Field(description="The negative prompt.")
    seed: int = Field(description="Seed of the first image.")
    sampler: SamplerName = Field(description="How each step removes noise.")
    guidance: float = Field(description="How strictly it follows the prompt (CFG scale).")
    base_model: int = Field(description="Id of the base model.")
    adapters: list[WeightedAdapter] = Field(description="The adapters, as they were then.")
    weights: list[list[float | None]] | None
    """Of a strip: the weights of all adapters for each image, null for one that is left out; else
    null."""
    clip_skip: int = Field(description="Layer of the text encoder, from the last.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    source_sha256: str | None
    """Hash of the image it starts from, at `/media/{sha256}`; null without one."""
    strength: float | None = Field(description="How much of that image changes, from 0 to 1.")
    seconds: float | None = Field(description="Time it took.")
    from_cache: bool = Field(description="True if the images existed already.")
    precision: RenderPrecision | None
    """Number type of the UNet; null until it is known."""
    twin_id: int | None = Field(description="The render without adapters, if it was requested.")
    draft: bool = Field(description="True for a draft: in no list, deleted after an hour.")
    deleted_at: datetime | None
    """When it was deleted; it is in no list then, and can be restored."""
    starred: bool = Field(description="True if it was marked, to be found again.")
    request: RenderIn = Field(description="What `POST /renders` makes it again with.")


class RenderPatch(Patch):
    """The change of a render; what is absent stays."""

    model_config = example(starred=True)
    starred: StrictBool = change("True: it is marked, to be found again.")


def render_out(session: Session, render: Render) -> RenderOut:
    """Convert a render for the API."""
    return renders_out(session, [render])[0]


def renders_out(session: Session, renders: Sequence[Render]) -> list[RenderOut]:
    """Convert renders for the API."""
    images = listing.images_of(session, renders)
    return [
        RenderOut.of(
            row,
            base_model=row.base_model_id,
            request=_request_of(row),
            draft=row.draft_slot is not None,
            images=[RenderImageOut.of(one, **image_urls(one.sha256)) for one in images[row.key]],
            adapters=[used.named for used in row.stack],
        )
        for row in renders
    ]


def images_out(session: Session, render: Render) -> list[RenderImageOut]:
    """Convert the images of a render for the API."""
    found = service.render_images(session, render.key)
    return [RenderImageOut.of(image, **image_urls(image.sha256)) for image in found]


def _request_of(render: Render) -> RenderIn:
    """The request that makes a render again, which is no draft."""
    own = set(RenderIn.model_fields) & set(Render.model_fields) - {"draft_slot"}
    return RenderIn(
        **render.model_dump(include=own - {"adapters"}),
        base_model=render.base_model_id,
        adapters=[used.named for used in render.stack],
        source=SourceImage(sha256=render.source_sha256) if render.source_sha256 else None,
        twin=render.twin_id is not None,
    )


class SourceOut(BaseModel):
    """An image to start from."""

    address: ClassVar[str] = "/media/{sha256}"
    sha256: str = Field(description="Its hash: send it as `source.sha256` of a render.")
    url: str = Field(description="Address of the image: upright, in sRGB.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")


@router.post(
    "/renders/sources",
    Action.DRAW,
    status_code=201,
    responses=problems(
        {413: "More than 12 GB in one request.", 422: "The file is no image that can be used."}
    ),
)
def upload_source(
    file: Annotated[UploadFile, File(description="A PNG, JPEG or WebP image of at most 60 MB.")],
    state: State,
) -> SourceOut:
    """Upload an image to start from.

    The same file again gives the same hash. An image that no render starts from is deleted six
    hours after its last use.
    """
    found = sources.receive(state, file.file)
    url = f"/media/{found.sha256}"
    return SourceOut(sha256=found.sha256, url=url, width=found.width, height=found.height)


@router.post(
    "/renders",
    Action.DRAW,
    status_code=202,
    responses=problems(
        {
            404: "There is no such base model, adapter or version.",
            503: "The base model is still being downloaded or inspected.",
        }
    ),
)
def create_render(body: RenderIn, state: State, session: Writing) -> RenderCreated:
    """Generate images.

    The answer comes at once. A request that was rendered before has its images already.
    """
    if body.draft_slot is None:
        render = service.create_render(session, body, state.store)
    else:
        render = drafts.create_draft(session, body, state.store, slot=body.draft_slot)
    images = images_out(session, render)
    return RenderCreated.of(render, images=images)


@router.post("/renders/recall", Action.LOOK)
def recall_settings(
    session: Reading,
    infotext: Annotated[str, Form(max_length=MAX_INFOTEXT, description="A text to read.")] = "",
    image: Annotated[
        UploadFile | None, File(description="A PNG, JPEG or WebP image with such a text inside.")
    ] = None,
) -> RecallOut:
    """Read the settings that an image was made with.

    The text is that of AUTOMATIC1111, Forge, Civitai and Brushwork. LoRA tags become adapters.
    Nothing is generated or stored.
    """
    try:
        found = parse_infotext(read_image_infotext(image.file) if image else infotext)
    except InfotextError as error:
        field = "image" if image else "infotext"
        raise InvalidInput(str(error), fields={field: str(error)}) from error
    recalled = recall.recall(session, found)
    recall.add_problems(session, recalled)
    return RecallOut(request=RenderIn.of(recalled.request), missing=recalled.missing)


RenderIds = Annotated[
    list[Annotated[int, Query(ge=1, le=MAX_ID)]],
    Query(alias="id", min_length=1, max_length=MAX_CHOSEN, description="Ids of renders."),
]


@router.get("/renders", Action.LOOK)
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
    whose: Whose = None,
) -> list[RenderOut]:
    """List or search finished renders, newest first.

    Images without adapters that were made only for comparison (`twin`) and drafts are left out, and
    of renders with the same image only the newest is listed.
    """
    filters = GalleryFilter(q, adapter, starred, deleted)
    with only(session, Render, whose):
        found = gallery.list_renders(session, filters, size=part.size, before=part.after)
    rows = part.cut(found.items, lambda render: render.key, total=found.total)
    return renders_out(session, rows)


@router.get(
    "/renders/zip",
    Action.DOWNLOAD,
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


@router.get("/renders/{render_id}", Action.LOOK, responses=OF_BLIND_TEST)
def get_render(render_id: Id, session: Reading) -> RenderOut:
    """Get a render, with its images once it has succeeded."""
    return render_out(session, service.get_render(session, render_id))


@router.patch("/renders/{render_id}", Action.DRAW, responses=OF_BLIND_TEST)
def change_render(render_id: Id, body: RenderPatch, session: Writing) -> RenderOut:
    """Star a render, or take the star away.

    Renders with the same image are changed with it.
    """
    if body.starred is not None:
        selection.star_chosen(session, [render_id], starred=body.starred)
    return render_out(session, service.get_render(session, render_id))


@router.post("/renders/{render_id}/keep", Action.DRAW)
def keep_render(render_id: Id, session: Writing) -> RenderOut:
    """Keep a draft.

    It is listed like any other render, and not deleted. Keeping a render that is no draft is no
    error.
    """
    return render_out(session, drafts.keep_draft(session, render_id))


@router.post("/renders/{render_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_render(render_id: Id, session: Writing) -> RenderOut:
    """Cancel a render.

    Canceling twice is no error.
    """
    return render_out(session, service.cancel_render(session, render_id))
