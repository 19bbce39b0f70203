"""Measures of pixels in the database: saved with an upload, ordered where they are missing.

The thresholds are figures of `bench/image_measures.py`, which measures drawn styles and what was
done to them: docs/benchmarks.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from PIL import Image as Pillow
from sqlmodel import Session, col

from app.registry.blobs.thumbnails import list_missing
from app.registry.db import upsert
from app.registry.images.decoding import measure_pixels, on_white
from app.registry.job_kinds.kinds import JobKind, MakeThumbnailsArgs
from app.registry.jobs.service import orders_if_due, was_ordered
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.datasets import Image, ImageMeasure

MEASURE_VERSION = 1  # images measured by an older version are measured again
BLURRY_BELOW = 0.35  # of the sharpness, 0 to 1
NEAR_DISTANCE = 6  # bits of 64 that differ between the hashes of near-duplicates, at most
# the same for a hash and that of a mirrored image, which is not stored and known only nearly
MIRRORED_DISTANCE = 10
# long side / short side; training crops to 2:1 at most, so a fifth of the image is lost here
ELONGATED_ABOVE = 2.5
MEASURED: sa.ColumnElement[bool] = (col(ImageMeasure.clean_sha256) == col(Image.clean_sha256)) & (
    col(ImageMeasure.measure_version) >= MEASURE_VERSION
)
"""The condition that joins images with their measures; always as an outer join."""
RETRY_INTERVAL = timedelta(hours=24)  # after a job that failed
BACKFILL_PRIORITY = 200  # after all other jobs, even sweeps


def save(session: Session, clean_sha256: str, measured: dict[str, Any]) -> None:
    """Store what was measured in an image; replaces an earlier measure."""
    values = {"measure_version": MEASURE_VERSION, **measured}
    upsert(session, ImageMeasure, [{"clean_sha256": clean_sha256, **values}], values)


def list_unmeasured(session: Session, *, limit: int) -> list[str]:
    """Up to `limit` clean images of datasets that were not measured yet, by their hash."""
    query = sa.select(col(Image.clean_sha256)).where(_is_unmeasured()).distinct().limit(limit)
    return list(session.connection().execute(query).scalars())


def count_unmeasured(session: Session) -> int:
    """Number of clean images that were not measured yet."""
    hashes = sa.func.count(sa.distinct(col(Image.clean_sha256)))
    return session.connection().execute(sa.select(hashes).where(_is_unmeasured())).scalar_one()


def measure_stored(store: BlobStore, clean_sha256: str) -> dict[str, Any]:
    """The measures of a stored clean image; empty if its file is missing or damaged.

    It was written by Brushwork, so it is decoded without the limits of uploads.
    """
    try:
        with store.open(clean_sha256) as file, Pillow.open(file, formats=("PNG",)) as image:
            has_transparency = image.has_transparency_data
            pixels = on_white(image.convert("RGBA" if has_transparency else "RGB"))
            return measure_pixels(pixels) | {"has_transparency": has_transparency}
    except (BlobNotFound, BlobDamaged):
        return {}
    except FileNotFoundError:
        raise
    except Exception:  # decoders raise SyntaxError, struct.error, OSError and others
        return {}


def _is_unmeasured() -> sa.ColumnElement[bool]:
    measured = sa.exists().where(MEASURED)
    return col(Image.deleted_at).is_(None) & ~measured


def is_due(session: Session) -> bool:
    """True if an image lacks thumbnails or measures, and no job is at it or has just failed."""
    if was_ordered(session, JobKind.MAKE_THUMBNAILS, retry_after=RETRY_INTERVAL):
        return False
    return bool(list_missing(session, limit=1) or list_unmeasured(session, limit=1))


order_if_due = orders_if_due(is_due, MakeThumbnailsArgs(), priority=BACKFILL_PRIORITY)
