"""One image of a dataset, as the commands about it name and print it."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import Session

from app.registry.datasets import service
from app.registry.datasets.caption_tokens import tokens_of
from app.registry.datasets.image_captions.history import caption_history
from app.registry.datasets.several_captions import OneCaption, captions_of_image
from app.registry.db import MAX_ID
from app.registry.errors import InvalidInput, NotFound
from app.registry.tables.datasets import Dataset, Image


def find_image(session: Session, dataset: Dataset, named: str) -> Image:
    """The image of this number or file name. Raises NotFound, and InvalidInput if several match."""
    images = service.list_images(session, dataset.key)
    if named.isascii() and named.isdigit() and int(named[:11]) <= MAX_ID:
        images_found = [image for image in images if image.key == int(named)]
    else:
        images_found = [image for image in images if image.filename == named]
    if len(images_found) > 1:
        numbers = ", ".join(str(image.key) for image in images_found)
        raise InvalidInput(f"Several images are named {named}. Use a number: {numbers}.")
    if not images_found:
        raise NotFound(f"{dataset.slug} has no image {named}; `show` lists names and numbers.")
    return images_found[0]


def caption_lines(session: Session, image: Image) -> Iterator[str]:
    """The captions of an image with shares and tokens, then their history."""
    tokens = tokens_of(session, image.dataset_id)
    yield f"{image.filename} (image {image.key})"
    for one in captions_of_image(session, image):
        long = ", too long" if tokens.is_too_long(one.caption) else ""
        counted = f"{tokens.count(one.caption)} of {tokens.limit} tokens{long}"
        yield f"  {one.kind:<6}{_share(one)}  {counted}  {one.caption or '(no caption)'}"
    yield "History:"
    for row in caption_history(session, image):
        now = " (now)" if row.is_current else ""
        yield (
            f"  {row.kind:<6}{row.version:<5}{row.written_at:%Y-%m-%d %H:%M}  {row.writer}{now}: "
            f"{row.caption or '(empty)'}"
        )


def _share(one: OneCaption) -> str:
    return f"share {one.share:<4}{one.used:.0%}"
