"""Live redraws of the playground: a weight that moves has its image generated again, as a draft."""

from __future__ import annotations

import re
from dataclasses import replace

from fastapi import APIRouter
from starlette.responses import Response

from app.registry.errors import AppError, InvalidInput
from app.registry.renders import drafts
from app.registry.renders.plan import plan_render
from app.web.forms import SentForm
from app.web.playground.forms import read_form, read_shown
from app.web.playground.result_view import instead_of_result, result_fragment
from app.web.state import State
from app.web.templates import render_fragment

router = APIRouter(include_in_schema=False)

SLOT = re.compile(r"[0-9a-f]{16,64}", re.ASCII)


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
        with state.database.write() as session:
            draft = drafts.store_draft(session, plan, state.store, slot=slot)
            drawn = replace(form, seed=str(draft.seed))
            context = result_fragment(session, draft, drawn, shown=read_shown(sent))
    except AppError as error:
        refused = render_fragment("playground/_live_problem.html", problem=error.detail)
        refused.headers["HX-Retarget"] = "#live-told"
        refused.headers["HX-Reswap"] = "innerHTML"  # the next one is said there, too
        return refused
    response = instead_of_result(render_fragment("playground/_result_update.html", context))
    response.headers["HX-Replace-Url"] = drawn.link
    return response
