"""Live redraws of the playground: a weight that moves has its image generated again, as a draft."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.responses import Response

from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.renders import drafts
from app.registry.renders.plan import plan_render
from app.registry.tables.base_models import BaseModel
from app.registry.wording import duration
from app.web.form_reader import parse_number
from app.web.forms import SentForm
from app.web.playground.forms import PlayForm, read_form, read_shown
from app.web.playground.result_view import instead_of_result, result_fragment
from app.web.state import State
from app.web.templates import render_fragment
from worker.core.inference.config import steps_to_run

router = APIRouter(include_in_schema=False)

SLOW_SECONDS = 4.0  # an image that takes longer does not follow a slider
SLOT = re.compile(r"[0-9a-f]{16,64}", re.ASCII)
DEFAULT_STEPS = 20


@dataclass(frozen=True)
class LiveState:
    """The switch: weights redraw the image; `reason`: they cannot, empty if they can."""

    is_on: bool
    reason: str


@dataclass(frozen=True)
class LiveFragment:
    """The switch of the live redraws."""

    live: LiveState


@dataclass(frozen=True)
class LiveProblem:
    """The reason why a redraw was refused, as a sentence."""

    problem: str


def live_state(session: Session, form: PlayForm, base: BaseModel) -> LiveState:
    """The switch for this form: off if an image takes too long to follow a weight that moves."""
    side = base.resolution or USUAL_SIDE
    seconds = drafts.expected_seconds(
        session,
        base,
        steps=steps_to_run(_number(form.steps, DEFAULT_STEPS), _strength(form)),
        width=_number(form.width, side),
        height=_number(form.height, side),
    )
    if seconds is None or seconds <= SLOW_SECONDS:
        return LiveState(form.live, "")
    reason = (
        f"An image takes about {duration(seconds)} here, too long to follow a weight that "
        "moves. Press Generate to see a change."
    )
    return LiveState(is_on=False, reason=reason)


def _strength(form: PlayForm) -> float | None:
    strength = parse_number(form.strength) if form.source else None
    return None if strength is None else min(1.0, max(0.0, strength))


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else default


@router.post("/play/live")
def redraw(state: State, sent: SentForm) -> Response:
    """Queue a draft with the weights of the form; it replaces the one before of the same tab.

    `slot` names the tab, `shown` is the render whose image stays in view until then.
    """
    form = read_form(sent.multi_items())
    slot = str(sent.get("slot", ""))
    if not SLOT.fullmatch(slot):
        raise InvalidInput("The tab has no valid name. Reload the page.")
    same_seed = replace(form, keep_seed=True, count="1")  # the first image, with its seed
    try:
        with state.database.read() as session:  # no other writer waits for these queries
            plan = plan_render(session, same_seed.request(session))
            live = live_state(session, form, plan.base)
        if live.reason:
            return _put("playground/_live_switch.html", LiveFragment(live), "#live-switch")
        with state.database.write() as session:
            draft = drafts.store_draft(session, plan, state.store, slot=slot)
            drawn = replace(form, seed=str(draft.seed))
            context = result_fragment(session, draft, drawn, shown=read_shown(sent))
    except AppError as error:
        problem = LiveProblem(error.detail)
        response = _put("playground/_live_problem.html", problem, "#live-told")
        response.headers["HX-Reswap"] = "innerHTML"  # the next one is said there, too
        return response
    response = instead_of_result(render_fragment("playground/_result_update.html", context))
    response.headers["HX-Replace-Url"] = drawn.link
    return response


def _put(template: str, context: object, target: str) -> Response:
    """A fragment that goes to another place than the result."""
    response = render_fragment(template, context)
    response.headers["HX-Retarget"] = target
    return response
