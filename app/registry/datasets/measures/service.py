"""Measures of pixels in the database: saved with an upload, listed where they are missing."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from PIL import Image as Pillow
from sqlmodel import Session, col

from app.registry.datasets.measures.thresholds import MEASURE_VERSION
from app.registry.db import upsert
from app.registry.images.decoding import measure_pixels, on_white
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.datasets import Image, ImageMeasure

MEASURED: sa.ColumnElement[bool] = (col(ImageMeasure.clean_sha256) == col(Image.clean_sha256)) & (
    col(ImageMeasure.measure_version) >= MEASURE_VERSION
)
"""The condition that joins images with their measures; always as an outer join."""


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
