"""REST: the images of a dataset by filter, order and page, and its statistics."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.registry.datasets import service
from app.registry.datasets.listing.image_search import count_filters, matching_ids
from app.registry.datasets.listing.pages import load_images
from app.registry.datasets.listing.statistics import read_statistics
from app.registry.datasets.training_side import training_side
from app.web.answers import Answer
from app.web.datasets.api import ImageOut
from app.web.datasets.filter_parameters import RequestFilter
from app.web.rest.lists import Part
from app.web.state import DatasetId, State

router = APIRouter(tags=["datasets"])


class WordOut(Answer):
    """A word or tag of captions."""

    word: str = Field(description="In lower case, for the parameters `with` and `without`.")
    images: int = Field(
        description="Number of images with a caption that contains it as whole words."
    )


class LengthsOut(BaseModel):
    """The lengths of captions in words; images without a caption do not count."""

    shortest: int = Field(description="Of the shortest caption.")
    median: int = Field(description="Of the middle one.")
    longest: int = Field(description="Of the longest caption.")


class SizeOut(Answer):
    """Images of about the same size."""

    at_least: int = Field(description="The short side in pixels, at least.")
    below: int | None = Field(description="And below this; null: no limit.")
    images: int = Field(description="Number of images.")


class StatisticsOut(Answer):
    """Figures about the images and captions of a dataset."""

    image_count: int = Field(description="Number of images, deleted ones not counted.")
    captioned_count: int = Field(description="Number of images with a caption.")
    training_side: int = Field(
        description="The size in pixels of the last run on it, else of the embedded base model."
    )
    filters: dict[str, int] = Field(
        description="Number of images with each property, by the values of `show`.",
        examples=[{"uncaptioned": 2, "small": 0}],
    )
    lengths: LengthsOut = Field(description="Lengths of the captions.")
    different_words: int = Field(description="Number of different words in all captions.")
    words: list[WordOut] = Field(
        description="The 50 words of the captions of most images, without words like “the”."
    )
    tags: list[WordOut] = Field(description="The 50 most frequent parts between commas.")
    sizes: list[SizeOut] = Field(description="The images by their short side.")


@router.get("/datasets/{dataset_id}/images")
def list_images(
    dataset_id: DatasetId, state: State, wanted: RequestFilter, part: Part
) -> list[ImageOut]:
    """List the images of a dataset that match all filters, oldest first by default."""
    with state.database.snapshot() as session:
        dataset = service.get_dataset(session, dataset_id)
        ids = matching_ids(session, dataset, wanted)
        found = load_images(session, part.of(ids, int))
    return [ImageOut.of_image(image) for image in found]


@router.get("/datasets/{dataset_id}/statistics")
def dataset_statistics(dataset_id: DatasetId, state: State) -> StatisticsOut:
    """Get figures about a dataset: words, tags, lengths, sizes."""
    with state.database.snapshot() as session:
        dataset = service.get_dataset(session, dataset_id)
        found = read_statistics(session, dataset)
        filters, _ = count_filters(session, dataset)
        side = training_side(session, dataset_id)
    return StatisticsOut.of(
        found,
        image_count=found.images,
        captioned_count=found.captioned,
        training_side=side.pixels,
        filters={kind.value: count for kind, count in filters.items()},
        lengths=LengthsOut(
            shortest=found.shortest, median=found.median_length, longest=found.longest
        ),
    )
