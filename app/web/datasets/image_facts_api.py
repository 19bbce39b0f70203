"""REST: what is known of an image, and how it is cropped."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from app.registry.datasets import service
from app.registry.datasets.image_facts import image_facts
from app.registry.datasets.training_side import training_side
from app.registry.runs.crops import crop_of
from app.web.answers import Answer
from app.web.state import Id, Reading, SessionRoute

router = APIRouter(route_class=SessionRoute)


class ImageCropOut(Answer):
    """The part of an image that training keeps, in pixels of the image."""

    left: float = Field(description="Left edge.")
    top: float = Field(description="Top edge.")
    width: float = Field(description="Width of the part.")
    height: float = Field(description="Height of the part.")
    kept: float = Field(description="Share of the image that is kept, 0 to 1.")
    trained_width: int = Field(description="Width to which the part is scaled.")
    trained_height: int = Field(description="Height to which the part is scaled.")
    base_model: str = Field(
        description="Base model of the dataset's last run, else the embedded one."
    )


class NearestImageOut(Answer):
    """The image of the dataset that is most like another one."""

    id: int = Field(description="Id of the image.")
    filename: str = Field(description="Its file.")
    bits: int = Field(description="Bits of 64 in which the perceptual hashes differ.")
    is_near_duplicate: bool = Field(description="True if they are almost the same picture.")
    is_mirrored: bool = Field(description="True if one is a mirrored copy of the other.")


class ImageFactsOut(Answer):
    """The measurements and the runs of an image."""

    is_measured: bool = Field(description="False while it waits to be measured.")
    sharpness: float | None = Field(description="0 to 1, greater is sharper; null: not known.")
    is_blurry: bool = Field(description="True if its edges are soft.")
    nearest: NearestImageOut | None = Field(description="The image that is most like it.")
    run_ids: list[int] = Field(description="Runs that were trained on it, newest first.")
    crop: ImageCropOut = Field(description="How training crops it.")


@router.get("/images/{image_id}/facts")
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
