"""Facts about an image: its measures, the one most like it, and the runs that used it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import Field, computed_field
from sqlmodel import Session, col, select

from app.registry.api_records import api_record
from app.registry.datasets.listing import index
from app.registry.datasets.listing.image_search import read_state
from app.registry.datasets.measures import (
    BLURRY_BELOW,
    MEASURE_VERSION,
    MIRRORED_DISTANCE,
    NEAR_DISTANCE,
)
from app.registry.datasets.used_datasets import uses_versions
from app.registry.images.pixels import mirrored_hash
from app.registry.tables.datasets import Dataset, DatasetVersion, Image, ImageMeasure
from app.registry.tables.runs import Run

RUNS_SHOWN = 20


@api_record
class NearestImage:
    """The image of the dataset that is most like another one."""

    id: int = Field(description="Id of the image.")
    filename: str = Field(description="Its file.")
    bits: int = Field(description="Bits of 64 in which the perceptual hashes differ.")
    is_mirrored: bool = False
    """True if one is a mirrored copy of the other."""

    @computed_field(alias="near_duplicate")  # type: ignore[prop-decorator]
    @property
    def is_near_duplicate(self) -> bool:
        """True if the two are almost the same picture."""
        return self.is_mirrored or self.bits <= NEAR_DISTANCE


@dataclass(frozen=True)
class ImageFacts:
    """`sharpness` is None while the image is not measured, or if it cannot be."""

    is_measured: bool
    sharpness: float | None
    nearest: NearestImage | None
    runs: list[tuple[int, str]]  # id and name, newest first

    @property
    def is_blurry(self) -> bool:
        """True if its edges are as soft as in a blurry photo."""
        return self.sharpness is not None and self.sharpness < BLURRY_BELOW


def image_facts(session: Session, image: Image) -> ImageFacts:
    """The facts about an image of a dataset."""
    measure = session.get(ImageMeasure, image.clean_sha256)
    if measure is not None and measure.measure_version < MEASURE_VERSION:
        measure = None  # it is measured again
    return ImageFacts(
        is_measured=measure is not None,
        sharpness=measure.sharpness if measure else None,
        nearest=_find_nearest(session, image, measure.perceptual_hash) if measure else None,
        runs=_runs_with(session, image),
    )


def _find_nearest(session: Session, image: Image, hashed: str | None) -> NearestImage | None:
    if not hashed:
        return None
    own = int(hashed, 16)
    dataset = session.get_one(Dataset, image.dataset_id)
    hashes = index.hashes.find(session, dataset.key, read_state(session, dataset).images)
    others = {key: other for key, other in hashes.items() if key != image.id}
    if not others:
        return None
    bits, key = min(((own ^ other).bit_count(), key) for key, other in others.items())
    turned = mirrored_hash(own)
    mirrored = min(((turned ^ other).bit_count(), key) for key, other in others.items())
    is_mirrored = bits > NEAR_DISTANCE and mirrored[0] <= MIRRORED_DISTANCE
    if is_mirrored:
        bits, key = mirrored
    return NearestImage(key, session.get_one(Image, key).filename, bits, is_mirrored)


def _runs_with(session: Session, image: Image) -> list[tuple[int, str]]:
    """The runs that were or are trained on the image, newest first."""
    items = sa.cast(col(DatasetVersion.items), sa.Text)
    versions = select(DatasetVersion.id).where(
        DatasetVersion.dataset_id == image.dataset_id, items.contains(image.sha256)
    )
    newest = select(Run.id, Run.name).where(uses_versions(versions)).order_by(col(Run.id).desc())
    return [(key or 0, name) for key, name in session.exec(newest.limit(RUNS_SHOWN))]
