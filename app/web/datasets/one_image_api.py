"""REST: one image: its captions with their history, what is known of it, how it is cropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path
from pydantic import Field

from app.registry.api_records import api_record
from app.registry.datasets import service
from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.datasets.image_captions import changes
from app.registry.datasets.image_captions.changes import CaptionChange, WrittenCaption
from app.registry.datasets.image_facts import NearestImage, image_facts
from app.registry.datasets.several_captions import OneCaption, captions_of_image
from app.registry.datasets.training_side import tokens_of, training_side
from app.registry.db import MAX_ID, Session
from app.registry.runs.crops import crop_of
from app.registry.slugs import Number
from app.registry.tables.datasets import MAX_SHARE
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, Writing
from worker.core.documented import DocumentedModel
from worker.core.words import CaptionKind

router = Router()

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


@api_record
class CaptionOut(OneCaption):
    """A caption of an image."""

    tokens: int = Field(description="Its tokens; a base model reads `token_limit` of them.")


class CaptionsOut(DocumentedModel):
    """The captions of an image and their last changes."""

    captions: list[CaptionOut] = Field(description="All captions, the first one first.")
    history: list[WrittenCaption] = Field(
        description=f"The last {changes.SHOWN} changes of all of them, newest first; "
        "`/captions/history` lists all."
    )
    token_limit: int
    """Tokens that the base model of the dataset's last run reads."""


def _captions_out(session: Session, image_id: int) -> CaptionsOut:
    image = service.get_image(session, image_id)
    tokens = tokens_of(session, image.dataset_id)
    return CaptionsOut(
        captions=[
            CaptionOut(**vars(one), tokens=tokens.count(one.caption))
            for one in captions_of_image(session, image)
        ],
        history=changes.caption_history(session, image),
        token_limit=tokens.limit,
    )


@router.get("/images/{image_id}/captions", Action.LOOK)
def get_captions(image_id: Id, session: Reading) -> CaptionsOut:
    """Get all captions of an image with their history."""
    return _captions_out(session, image_id)


@router.get("/images/{image_id}/captions/history", Action.LOOK)
def list_caption_history(image_id: Id, session: Reading, part: Part) -> Sequence[WrittenCaption]:
    """List all changes of the captions of an image, newest first."""
    found = changes.caption_history(session, service.get_image(session, image_id), most=None)
    return part.of(found, lambda one: (one.written_at.isoformat(), one.kind, one.version))


@router.put(
    "/images/{image_id}/captions/{kind}",
    Action.EDIT,
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
    Action.EDIT,
    responses=problems({409: "It is the first one: empty it instead."}),
)
def delete_caption(image_id: Id, kind: CaptionKind, session: Writing) -> CaptionsOut:
    """Remove one of several captions; it can be restored from the history."""
    changes.remove_caption(session, image_id, kind)
    return _captions_out(session, image_id)


@router.post("/images/{image_id}/captions/{kind}/{version}/restore", Action.EDIT)
def restore_caption(
    image_id: Id, kind: CaptionKind, version: Version, session: Writing
) -> CaptionsOut:
    """Let a caption say again what it said in this version."""
    changes.restore_caption(session, image_id, kind, version)
    return _captions_out(session, image_id)


class ImageCropOut(Answer):
    """The part of an image that training keeps, in pixels of the image."""

    left: float = Field(description="Left edge.")
    top: float = Field(description="Top edge.")
    width: float = Field(description="Width of the part.")
    height: float = Field(description="Height of the part.")
    kept: float = Field(description="Share of the image that is kept, 0 to 1.")
    trained_width: int = Field(description="Width to which the part is scaled.")
    trained_height: int = Field(description="Height to which the part is scaled.")
    base_model: str
    """Base model of the dataset's last run, else the embedded one."""


class ImageFactsOut(Answer):
    """The measurements and the runs of an image."""

    is_measured: bool = Field(description="False while it waits to be measured.")
    sharpness: float | None = Field(description="0 to 1, greater is sharper; null: not known.")
    is_blurry: bool = Field(description="True if its edges are soft.")
    nearest: NearestImage | None = Field(description="The image that is most like it.")
    run_ids: list[int] = Field(description="Runs that were trained on it, newest first.")
    crop: ImageCropOut = Field(description="How training crops it.")


@router.get("/images/{image_id}/facts", Action.LOOK)
def get_image_facts(image_id: Id, session: Reading) -> ImageFactsOut:
    """Get what is known of an image, and how it is cropped."""
    image = service.get_image(session, image_id)
    facts = image_facts(session, image)
    side = training_side(session, image.dataset_id)
    crop = crop_of(image, side.pixels, squares=side.squares)
    return ImageFactsOut.of(
        facts,
        run_ids=[key for key, _ in facts.runs],
        crop=ImageCropOut.of(
            crop,
            trained_width=crop.bucket.width,
            trained_height=crop.bucket.height,
            base_model=side.base_name,
        ),
    )
