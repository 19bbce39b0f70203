"""The switch of the live redraws: an image that takes long is drawn when the weight is let go."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.db import Session
from app.registry.renders import drafts
from app.registry.runs.active import active_runs
from app.registry.tables.base_models import BaseModel
from app.registry.tables.renders import Render
from app.registry.wording import duration
from app.web.form_reader import parse_number
from app.web.playground.forms import PlayForm
from worker.core.inference.config import steps_to_run

SLOW_SECONDS = 4.0  # an image that takes longer does not follow a slider
DEFAULT_STEPS = 20


@dataclass(frozen=True)
class LiveState:
    """The switch; `note`: why the image does not follow a weight that moves, empty if it does."""

    is_on: bool
    note: str


def live_state(session: Session, form: PlayForm, base: BaseModel) -> LiveState:
    """The switch for this form."""
    side = base.resolution or USUAL_SIDE
    steps = steps_to_run(_number(form.steps, DEFAULT_STEPS), _strength(form))
    size = _number(form.width, side), _number(form.height, side)
    return LiveState(form.live, _slow_note(session, base, steps, size))


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


def _strength(form: PlayForm) -> float | None:
    strength = parse_number(form.strength) if form.source else None
    return None if strength is None else min(1.0, max(0.0, strength))


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else default
