"""Notes on the image that a form makes: its size, and how long it takes."""

from __future__ import annotations

from app.registry.base_models.sizes import USUAL_SIDE, size_note, size_problem
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.renders import drafts, sources
from app.registry.renders.plan import usual_of
from app.registry.renders.sources import SourceImage
from app.registry.runs.service import active_runs
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from app.registry.wording import duration
from app.web.form_reader import parse_number
from app.web.playground.forms import PlayForm
from app.web.playground.stack import CheckedStack
from worker.core.inference.config import MAX_SIDE, steps_to_run

SLOW_SECONDS = 4.0  # an image that takes longer does not follow a slider


def live_note(session: Session, form: PlayForm, base: BaseModel) -> str:
    """The reason why the image of a form does not follow a weight that moves, empty if it does."""
    side = base.resolution or USUAL_SIDE
    strength = parse_number(form.strength) if form.source else None
    if strength is not None:
        strength = min(1.0, max(0.0, strength))
    steps = steps_to_run(_number(form.steps) or usual_of(base).steps, strength)
    size = _number(form.width) or side, _number(form.height) or side
    return _slow_note(session, base, steps, size)


def note_after(session: Session, render: Render, base: BaseModel) -> str:
    """The note once this render is finished, for another image like it."""
    steps = steps_to_run(render.steps, render.strength)
    return _slow_note(session, base, steps, (render.width, render.height))


def _slow_note(session: Session, base: BaseModel, steps: int, size: tuple[int, int]) -> str:
    width, height = size
    seconds = drafts.expected_seconds(session, base, steps=steps, width=width, height=height)
    if seconds is None or seconds <= SLOW_SECONDS:
        return ""
    if active_runs(session, limit=1).running:
        return f"Slow while a run trains: drawn when you let go, in about {duration(seconds)}."
    return f"An image takes about {duration(seconds)} here: drawn when you let go."


def size_note_of(session: Session, form: PlayForm, base: BaseModel) -> str:
    """A warning for a size far from the base model's own; empty for one near it, or for none."""
    width, height = _number(form.width), _number(form.height)
    if (width is None and form.width) or (height is None and form.height):
        return ""  # what it should be is said when it is sent
    width, height = _fitted(session, form, base, width, height)
    return size_problem(base, width, height) or size_note(base, width, height)


def has_unusual(session: Session, form: PlayForm, stack: CheckedStack) -> bool:
    """True if size, CLIP skip or base model of the form are not those of empty fields."""
    width, height = _fitted(session, form, stack.base, None, None)
    typed = (form.width, form.height, form.clip_skip, form.base)
    usual = (str(width), str(height), str(stack.usual_clip_skip), stack.usual_base.slug)
    return any(text not in ("", value) for text, value in zip(typed, usual, strict=True))


def _fitted(
    session: Session, form: PlayForm, base: BaseModel, width: int | None, height: int | None
) -> tuple[int, int]:
    """The size that is generated; what is None is that of the base model or of the source."""
    side = base.resolution or USUAL_SIDE
    if form.source:
        try:
            found = sources.find_source(session, SourceImage.parse(form.source))
            return sources.size_like(found, side, width, height, step=base.options.side_step)
        except AppError:
            pass  # that it is gone is said beside it
    return width or side, height or side


def _number(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIDE))
    return int(text) if is_number and int(text) else None
