"""REST: several captions of an image, and their history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.registry.datasets import service
from app.registry.datasets.caption_tokens import tokens_of
from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.datasets.image_captions import changes, history
from app.registry.datasets.image_captions.changes import CaptionChange
from app.registry.datasets.several_captions import captions_of_image
from app.registry.db import MAX_ID, Session
from app.registry.slugs import Number
from app.registry.tables.datasets import MAX_SHARE, CaptionSource
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, SessionRoute, Writing
from worker.core.words import CaptionKind

router = APIRouter(route_class=SessionRoute)

Version = Annotated[int, Path(ge=1, le=MAX_ID)]


class CaptionIn(Patch):
    """A caption of one kind, or changes to it; absent fields stay."""

    model_config = example(caption="fox, snow, ink", share=2)
    aids = frozenset({"caption_version"})
    caption: Annotated[str, Field(max_length=MAX_CHARACTERS)] = change("What the image shows.")
    share: Annotated[int, Field(ge=1, le=MAX_SHARE)] = change(
        "How often it is used, relative to the other captions."
    )
    caption_version: Number = change("The version you saw; a caption changed since is a 409.")


class CaptionOut(Answer):
    """A caption of an image."""

    kind: CaptionKind = Field(description="`long`, `short` or `tags`.")
    caption: str = Field(description="What it says.")
    share: int = Field(description="How often it is used, relative to the other captions.")
    used: float = Field(description="The part of the times that training uses it, 0 to 1.")
    version: int = Field(description="Counts its changes.")
    is_first: bool = Field(description="True for the one that `caption` of the image names.")
    tokens: int = Field(description="Its tokens; a base model reads `token_limit` of them.")


class WrittenCaptionOut(Answer):
    """A version of a caption."""

    kind: CaptionKind = Field(description="Which of the captions it is.")
    version: int = Field(description="Its version, to restore it.")
    caption: str = Field(description="What it said.")
    source: CaptionSource | None = Field(description="Who wrote it; null: not known.")
    source_name: str | None = Field(description="The file or the provider, if any.")
    written_at: datetime = Field(description="When it was written.")
    is_current: bool = Field(description="True if the caption still says this.")
    restored_from: datetime | None = Field(
        description="When the version was written that it restored; null: it is no such one, or "
        "that version is not kept."
    )


class CaptionsOut(BaseModel):
    """The captions of an image and their last changes."""

    captions: list[CaptionOut] = Field(description="All captions, the first one first.")
    history: list[WrittenCaptionOut] = Field(
        description=f"The last {history.SHOWN} changes of all of them, newest first; "
        "`/captions/history` lists all."
    )
    token_limit: int = Field(
        description="Tokens that the base model of the dataset's last run reads."
    )


def _captions_out(session: Session, image_id: int) -> CaptionsOut:
    image = service.get_image(session, image_id)
    tokens = tokens_of(session, image.dataset_id)
    return CaptionsOut(
        captions=[
            CaptionOut.of(one, tokens=tokens.count(one.caption))
            for one in captions_of_image(session, image)
        ],
        history=[WrittenCaptionOut.of(one) for one in history.caption_history(session, image)],
        token_limit=tokens.limit,
    )


@router.get("/images/{image_id}/captions")
def get_captions(image_id: Id, session: Reading) -> CaptionsOut:
    """Get all captions of an image with their history."""
    return _captions_out(session, image_id)


@router.get("/images/{image_id}/captions/history")
def list_caption_history(image_id: Id, session: Reading, part: Part) -> list[WrittenCaptionOut]:
    """List all changes of the captions of an image, newest first."""
    found = history.caption_history(session, service.get_image(session, image_id), most=None)
    shown = part.of(found, lambda one: (one.written_at.isoformat(), one.kind, one.version))
    return [WrittenCaptionOut.of(one) for one in shown]


@router.put(
    "/images/{image_id}/captions/{kind}",
    responses=problems({409: "The caption was changed since `caption_version`."}),
)
def put_caption(image_id: Id, kind: CaptionKind, body: CaptionIn, session: Writing) -> CaptionsOut:
    """Write the caption of one kind, or change its share.

    A kind that the image does not have is added. Training draws one of the captions at each use of
    the image, by their shares.
    """
    change = CaptionChange(body.caption, body.share, body.caption_version)
    changes.change_caption(session, image_id, kind, change)
    return _captions_out(session, image_id)


@router.delete(
    "/images/{image_id}/captions/{kind}",
    responses=problems({409: "It is the first one: empty it instead."}),
)
def delete_caption(image_id: Id, kind: CaptionKind, session: Writing) -> CaptionsOut:
    """Remove one of several captions; it can be restored from the history."""
    changes.remove_caption(session, image_id, kind)
    return _captions_out(session, image_id)


@router.post("/images/{image_id}/captions/{kind}/{version}/restore")
def restore_caption(
    image_id: Id, kind: CaptionKind, version: Version, session: Writing
) -> CaptionsOut:
    """Let a caption say again what it said in this version."""
    history.restore_caption(session, image_id, kind, version)
    return _captions_out(session, image_id)
