"""The commands about one image of a dataset: its captions, and the point that crops keep."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from sqlmodel import Session

from app.registry.datasets import service
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    caption_history,
    change_caption,
    restore_caption,
)
from app.registry.datasets.several_captions import captions_of_image
from app.registry.datasets.training_side import tokens_of, training_side
from app.registry.db import MAX_ID
from app.registry.errors import InvalidInput, NotFound
from app.registry.runs.crops import crop_of
from app.registry.state import AppState
from app.registry.tables.datasets import Image
from worker.core.words import CaptionKind


def run_captions(arguments: Namespace, state: AppState) -> int:
    """Print the captions of an image. Raises NotFound and InvalidInput."""
    with state.database.read() as session:
        image = _find_image(session, arguments)
        if not arguments.json:
            print("\n".join(_caption_lines(session, image)))
            return 0
        captions = [asdict(one) for one in captions_of_image(session, image)]
        history = [asdict(row) for row in caption_history(session, image)]
    found = {"image_id": image.key, "captions": captions, "history": history}
    print(json.dumps(found, indent=2, ensure_ascii=False, default=datetime.isoformat))
    return 0


def run_write(arguments: Namespace, state: AppState) -> int:
    """Change a caption and print all of the image. Raises NotFound and InvalidInput."""
    if arguments.text is None and arguments.share is None:
        raise InvalidInput("Say what to write, or a share with --share.")
    with state.database.write() as session:
        image = _find_image(session, arguments)
        kind = CaptionKind(arguments.kind or image.caption_kind)
        change_caption(session, image.key, kind, CaptionChange(arguments.text, arguments.share))
        print("\n".join(_caption_lines(session, image)))
    return 0


def run_restore(arguments: Namespace, state: AppState) -> int:
    """Restore a caption and print all of the image. Raises NotFound and InvalidInput."""
    with state.database.write() as session:
        image = _find_image(session, arguments)
        kind = CaptionKind(arguments.kind or image.caption_kind)
        restore_caption(session, image.key, kind, arguments.version)
        print("\n".join(_caption_lines(session, image)))
    return 0


def run_focus(arguments: Namespace, state: AppState) -> int:
    """Set the focus point, if one is given, and print the crop. Raises NotFound, InvalidInput."""
    point = arguments.point
    if point and (len(point) != 2 or arguments.center):
        raise InvalidInput("Give two numbers from 0 to 1, from the left and the top, or --center.")
    with state.database.write() as session:
        image = _find_image(session, arguments)
        if point or arguments.center:
            image = service.set_focus(session, image.key, (point[0], point[1]) if point else None)
        side = training_side(session, image.dataset_id)
    crop = crop_of(image, side.pixels, squares=side.squares)
    print(f"{image.filename}: {_focus(image)}")
    print(
        f"At {crop.bucket.width}x{crop.bucket.height}, training keeps {crop.kept:.0%}: "
        f"{crop.width:.0f}x{crop.height:.0f} pixels from {crop.left:.0f}, {crop.top:.0f}."
    )
    return 0


def _focus(image: Image) -> str:
    if image.focus is None:
        return "focus in the center"
    return f"focus at {image.focus[0]:g} from the left, {image.focus[1]:g} from the top"


def _find_image(session: Session, arguments: Namespace) -> Image:
    """The image of this number or file name. Raises NotFound, and InvalidInput if several match."""
    dataset, named = service.dataset_by_slug(session, arguments.slug), arguments.image
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


def _caption_lines(session: Session, image: Image) -> Iterator[str]:
    """The captions of an image with shares and tokens, then their history."""
    tokens = tokens_of(session, image.dataset_id)
    yield f"{image.filename} (image {image.key})"
    for one in captions_of_image(session, image):
        long = ", too long" if tokens.is_too_long(one.caption) else ""
        counted = f"{tokens.count(one.caption)} of {tokens.limit} tokens{long}"
        share = f"share {one.share:<4}{one.used:.0%}"
        yield f"  {one.kind:<6}{share}  {counted}  {one.caption or '(no caption)'}"
    yield "History:"
    for row in caption_history(session, image):
        now = " (now)" if row.is_current else ""
        yield (
            f"  {row.kind:<6}{row.version:<5}{row.written_at:%Y-%m-%d %H:%M}  {row.writer}{now}: "
            f"{row.caption or '(empty)'}"
        )
