"""What the tests of the worker runtime share: a tiny config, a room at work, waiting."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image as Picture
from PIL import ImageDraw
from sqlmodel import SQLModel

from app.config import Settings
from app.db import Database
from app.jobs.models import Job
from worker.runtime.room import Room, Work

PATIENCE_SECONDS = 90.0
CONFIG: dict[str, Any] = {
    "steps": 8,
    "batch_size": 2,
    "rank": 2,
    "alpha": 2.0,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,
    "sample_every": 0,
    "sample_prompts": ["a red apple"],
    "sample_steps": 2,
    "precision": "fp32",
}


def picture(number: int) -> bytes:
    """A small PNG with a shape that tells it from the others."""
    image = Picture.new("RGB", (64, 64), (30, 60, 50))
    ImageDraw.Draw(image).ellipse((8, 8, 24 + 8 * number, 40), fill=(230, 40 * number, 90))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@contextmanager
def working(database: Database, work: Work, settings: Settings) -> Iterator[Room]:
    """A room at work."""
    room = Room(database, work, lease_seconds=settings.lease_seconds)
    room.start()
    try:
        yield room
    finally:
        room.request_stop()
        assert room.join(PATIENCE_SECONDS)


def row(database: Database, table: type[Any], key: int) -> Any:
    """The row as it is now."""
    with database.read() as session:
        return session.get_one(table, key)


def wait_for(what: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true answer of `what`; fails when none came in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    pytest.fail("it did not happen in time")


def wait_until_final(database: Database, table: type[Job], key: int) -> Any:
    """The row once it has ended."""

    def ended() -> SQLModel | None:
        found: Job = row(database, table, key)
        return found if found.state.is_final else None

    return wait_for(ended)
