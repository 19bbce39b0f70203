"""Fills an empty database with datasets of many images: rows only, no files, fast.

Captions name subjects that `starter` knows, as sentences or as tags; some are empty, too long, the
same twice or written by a model; some images are small, blurry, elongated, transparent, set aside,
not measured or near-duplicates. Every value follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from app.registry.datasets.pinned import fingerprint_of
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.added_models import EMBEDDED, BaseModel, ModelStatus
from app.registry.tables.blobs import BlobCheck
from app.registry.tables.datasets import (
    CaptionRevision,
    CaptionSource,
    Dataset,
    DatasetVersion,
    Image,
    ImageMeasure,
)
from app.registry.tables.runs import Run
from bench.registry_rows import BATCH, START, insert, row, sha
from worker.core.starter.subjects import known_subjects
from worker.core.training.config import TrainConfig

TRIGGER_WORD = "inkwash"
SIDES = (256, 384, 512, 640, 768, 1024, 1536, 2048)
GROUNDS = ("#ffffff", "#f4f1ea", "#20242c", None, None, None)
PLACES = ("forest", "harbor", "city street", "meadow", "kitchen", "desert", "night sky", "garden")
LOOKS = ("small", "old", "red", "blue", "sleepy", "wooden", "running", "large", "broken", "shiny")
TRAINED_AT = 512  # pixels
NEAR_SHARE = 0.03  # images that are nearly the one before
BASE_ID = 1


@dataclass(frozen=True)
class FilledDataset:
    """A dataset that was filled, with the ids of its images."""

    id: int
    slug: str
    images: range


def fill_datasets(
    engine: sa.Engine, sizes: Mapping[str, int], *, seed: int = 0
) -> list[FilledDataset]:
    """Fill datasets of these sizes, each with a finished run on a version of its images."""
    dice = random.Random(seed)
    made: list[FilledDataset] = []
    with engine.begin() as connection:
        insert(connection, "base_model", [_base()])
        for slug, size in sizes.items():
            first = made[-1].images.stop if made else 1
            made.append(FilledDataset(len(made) + 1, slug, range(first, first + size)))
            _fill_dataset(connection, dice, made[-1])
        if connection.dialect.name == "postgresql":  # rows with ids of their own
            for table in ("base_model", "dataset", "image", "dataset_version", "run"):
                find = (
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                )
                connection.exec_driver_sql(find)
    return made


def _base() -> dict[str, Any]:
    return row(
        BaseModel, id=BASE_ID, slug=EMBEDDED, name=EMBEDDED, source=EMBEDDED, family="sd1",
        resolution=128, status=ModelStatus.READY,
    )  # fmt: skip


def _fill_dataset(connection: sa.Connection, dice: random.Random, made: FilledDataset) -> None:
    dataset_id, slug = made.id, made.slug
    own = row(Dataset, id=dataset_id, slug=slug, name=slug, trigger_word=TRIGGER_WORD)
    insert(connection, "dataset", [own])
    patterns = {
        "image": row(Image, dataset_id=dataset_id, sha256="", clean_sha256="", thumbnail_sha256="",
                     filename="", width=1, height=1, size_bytes=1),
        "measure": row(ImageMeasure, clean_sha256="", measure_version=1),
        "revision": row(CaptionRevision, image_id=0, version=1, caption=""),
    }  # fmt: skip
    images, measures, revisions, items = [], [], [], []
    for image, measure in _images(dice, dataset_id, made.images):
        images.append(patterns["image"] | image)
        if measure:
            measures.append(patterns["measure"] | measure)
        if image["caption"]:
            source = dice.choices(list(CaptionSource), (5, 3, 1, 1, 0, 0))[0]
            text = {"image_id": image["id"], "caption": image["caption"], "source": source.value}
            revisions.append(patterns["revision"] | text | {"created_at": image["created_at"]})
        if not image.get("set_aside"):
            names = ("sha256", "clean_sha256", "filename", "caption", "width", "height")
            items.append({name: image[name] for name in names})
    checked = row(BlobCheck, sha256="")
    for revision in revisions:
        del revision["id"]
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        insert(connection, "image", images[part])
        insert(connection, "image_measure", measures[part])
        insert(connection, "caption_revision", revisions[part])
        checks = [checked | {"sha256": image["clean_sha256"]} for image in images[part]]
        insert(connection, "blob_check", checks)  # as after the monthly check of files
    version = row(
        DatasetVersion, id=dataset_id, dataset_id=dataset_id, fingerprint=fingerprint_of(items),
        image_count=len(items), items=items,
    )  # fmt: skip
    insert(connection, "dataset_version", [version])
    config = TrainConfig(resolution=TRAINED_AT).model_dump(mode="json")
    run = row(
        Run, id=dataset_id, name=slug, dataset_id=dataset_id, dataset_version_id=dataset_id,
        base_model_id=BASE_ID, config=config, total_steps=100, status=JobStatus.SUCCEEDED, step=100,
    )  # fmt: skip
    insert(connection, "run", [run])


def _images(
    dice: random.Random, dataset_id: int, keys: range
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    hashed, caption = 0, ""
    for key in keys:
        near = dice.random() < NEAR_SHARE
        hashed = hashed ^ (1 << dice.randrange(64)) if near else dice.getrandbits(64)
        caption = caption if dice.random() < 0.01 else _caption(dice)
        width, height = dice.choice(SIDES), dice.choice(SIDES)
        if dice.random() < 0.9:
            height = width
        clean = sha("clean", dataset_id, key)
        image = {
            "id": key,
            "sha256": sha("image", dataset_id, key),
            "clean_sha256": clean,
            "thumbnail_sha256": sha("thumbnail", dataset_id, key),
            "filename": f"{dice.choice(('scan', 'IMG', 'drawing'))}_{key % 9_973}.png",
            "width": width,
            "height": height,
            "size_bytes": width * height,
            "caption": caption,
            "caption_version": int(bool(caption)),
            "set_aside": dice.random() < 0.02,
            "created_at": START + timedelta(seconds=key),
        }
        measure = {
            "clean_sha256": clean,
            "sharpness": round(dice.uniform(0.3, 0.9), 4),
            "perceptual_hash": f"{hashed:016x}",
            "has_transparency": dice.random() < 0.02,
            "ground": dice.choice(GROUNDS),
            "ground_share": 0.9,
        }
        yield image, measure if dice.random() < 0.99 else {}


def _caption(dice: random.Random) -> str:
    """A caption of 3 to 40 words; every 20th is empty, every 50th too long for a base model."""
    chance = dice.random()
    if chance < 0.05:
        return ""
    subjects = [dice.choice(known_subjects()).name for _ in range(2 if chance < 0.98 else 60)]
    look, place = dice.choice(LOOKS), dice.choice(PLACES)
    trigger = TRIGGER_WORD if dice.random() < 0.8 else "drawing"
    if chance < 0.5:
        return ", ".join([trigger, look, *subjects, place, *dice.sample(LOOKS, 2)])
    return f"{trigger}, a {look} {' and a '.join(subjects)} in a {place}, seen from the side"
