"""The size in the form of the playground, beside that of the base model."""

from __future__ import annotations

from app.registry.base_models.sizes import USUAL_SIDE, size_note, size_problem
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.renders import sources
from app.registry.renders.sources import SourceImage
from app.registry.tables.base_models import BaseModel
from app.web.playground.forms import PlayForm
from app.web.playground.stack import CheckedStack
from worker.core.inference.config import MAX_SIDE


def size_note_of(session: Session, form: PlayForm, base: BaseModel) -> str:
    """A warning for a size far from the base model's own; empty for one near it, or for none."""
    side = base.resolution or USUAL_SIDE
    width, height = _pixels(form.width), _pixels(form.height)
    if (width is None and form.width) or (height is None and form.height):
        return ""  # what it should be is said when it is sent
    width, height = _fitted(session, form, side, width, height)
    return size_problem(base, width, height) or size_note(base, width, height)


def has_unusual(session: Session, form: PlayForm, stack: CheckedStack) -> bool:
    """True if size, CLIP skip or base model of the form are not those of empty fields."""
    side = stack.base.resolution or USUAL_SIDE
    width, height = _fitted(session, form, side, None, None)
    typed = (form.width, form.height, form.clip_skip, form.base)
    usual = (str(width), str(height), str(stack.usual_clip_skip), stack.usual_base.slug)
    return any(text not in ("", value) for text, value in zip(typed, usual, strict=True))


def _fitted(
    session: Session, form: PlayForm, side: int, width: int | None, height: int | None
) -> tuple[int, int]:
    """The size that is generated; what is None is that of the base model or of the source."""
    if form.source:
        try:
            found = sources.find_source(session, SourceImage.parse(form.source))
            return sources.size_like(found, side, width, height)
        except AppError:
            pass  # that it is gone is said beside it
    return width or side, height or side


def _pixels(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIDE))
    return int(text) if is_number and int(text) else None
