"""The size in the form of the playground, beside that of the base model."""

from __future__ import annotations

from app.registry.base_models.models import BaseModel
from app.registry.base_models.sizes import USUAL_SIDE, size_note, size_problem
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.renders import sources
from app.registry.renders.sources import SourceImage
from app.web.playground.forms import PlayForm
from worker.core.inference.config import MAX_SIDE


def size_note_of(session: Session, form: PlayForm, base: BaseModel) -> str:
    """A warning for a size far from the base model's own; empty for one near it, or for none."""
    side = base.resolution or USUAL_SIDE
    width, height = _pixels(form.width), _pixels(form.height)
    if (width is None and form.width) or (height is None and form.height):
        return ""  # what it should be is said when it is sent
    if form.source:
        try:
            found = sources.find_source(session, SourceImage.parse(form.source))
            width, height = sources.size_like(found, side, width, height)
        except AppError:
            pass  # that it is gone is said beside it
    width, height = width or side, height or side
    return size_problem(base, width, height) or size_note(base, width, height)


def _pixels(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIDE))
    return int(text) if is_number and int(text) else None
