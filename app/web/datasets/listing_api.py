"""REST: the images of a dataset by filter, order and page, its statistics, what to look at."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.registry.datasets import service
from app.registry.datasets.checks.findings import Report
from app.registry.datasets.checks.service import check_dataset as checked
from app.registry.datasets.listing.image_search import count_filters, matching_ids
from app.registry.datasets.listing.pages import load_images
from app.registry.datasets.listing.statistics import CountedWord, SizeStep, read_statistics
from app.registry.datasets.training_side import training_side
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.datasets.api import ImageOut
from app.web.datasets.filter_parameters import RequestFilter
from app.web.rest.lists import Part
from app.web.state import DatasetId, Snapshot

router = Router(tags=["datasets"])


class LengthsOut(BaseModel):
    """The lengths of captions in words; images without a caption do not count."""

    shortest: int = Field(description="Of the shortest caption.")
    median: int = Field(description="Of the middle one.")
    longest: int = Field(description="Of the longest caption.")


class StatisticsOut(Answer):
    """Figures about the images and captions of a dataset."""

    image_count: int = Field(description="Number of images, deleted ones not counted.")
    captioned_count: int = Field(description="Number of images with a caption.")
    training_side: int
    """The size in pixels of the last run on it, else of the embedded base model."""
    filters: dict[str, int] = Field(examples=[{"uncaptioned": 2, "small": 0}])
    """Number of images with each property, by the values of `show`."""
    lengths: LengthsOut = Field(description="Lengths of the captions.")
    different_words: int = Field(description="Number of different words in all captions.")
    words: list[CountedWord]
    """The 50 words of the captions of most images, without words like “the”."""
    tags: list[CountedWord] = Field(description="The 50 most frequent parts between commas.")
    sizes: list[SizeStep] = Field(description="The images by their short side.")


@router.get("/datasets/{dataset_id}/images", Action.LOOK)
def list_images(
    dataset_id: DatasetId, session: Snapshot, wanted: RequestFilter, part: Part
) -> list[ImageOut]:
    """List the images of a dataset that match all filters, oldest first by default."""
    dataset = service.get_dataset(session, dataset_id)
    ids = matching_ids(session, dataset, wanted)
    found = load_images(session, part.of(ids, int))
    return [ImageOut.of_image(image) for image in found]


@router.get("/datasets/{dataset_id}/statistics", Action.LOOK)
def dataset_statistics(dataset_id: DatasetId, session: Snapshot) -> StatisticsOut:
    """Get figures about a dataset: words, tags, lengths, sizes."""
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


@router.get("/datasets/{dataset_id}/checks", Action.LOOK)
def check_dataset(dataset_id: DatasetId, session: Snapshot) -> Report:
    """Check a dataset before training.

    Captions that name the style, lack the trigger word or are the same; images that are alike, too
    small, blurry, elongated, transparent or cannot be read; what the set never shows. Images that
    are set aside are not checked. No finding stops a run, but one with an `error` fails.
    """
    return checked(session, service.get_dataset(session, dataset_id))
