"""The block weights of an adapter in the playground, saved as its next version."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.adapters import tools
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.job_kinds.kinds import ScaleAdapterArgs
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.web.access.needs import Action, Router
from app.web.forms import SentForm
from app.web.playground.forms import PlayForm, read_form
from app.web.state import State
from app.web.templates import render_fragment, wants_fragment

router = Router(include_in_schema=False)


@router.post("/play/blocks", Action.TRAIN)
def save_blocks(request: Request, state: State, sent: SentForm) -> Response:
    """Order a version of the adapter in row `place` with its block weights."""
    form = read_form(sent.multi_items())
    try:
        with state.database.write() as session:
            adapter, job = _order(session, form, str(sent.get("place", "")))
    except AppError as error:
        if not wants_fragment(request):
            raise
        return render_fragment(
            "playground/_blocks_saved.html", link="", name="", problem=error.detail
        )
    link = f"/adapters/{adapter.slug}/tools?job={job.key}"
    if not wants_fragment(request):
        return RedirectResponse(link, status_code=303)
    return render_fragment(
        "playground/_blocks_saved.html", link=link, name=adapter.name, problem=""
    )


def _order(session: Session, form: PlayForm, place: str) -> tuple[Adapter, IoJob]:
    rows = {str(index): row for index, row in enumerate(form.stack)}
    row = rows.get(place)
    if row is None:
        raise InvalidInput("This adapter is not in the stack any more. Reload the page.")
    if problem := next(iter(row.block_problems.values()), ""):
        raise InvalidInput(problem)
    adapter = adapters.adapter_by_slug(session, row.slug)
    order = ScaleAdapterArgs(blocks=row.block_weights)
    return adapter, tools.order_scale(session, adapter.key, order, row.version)
