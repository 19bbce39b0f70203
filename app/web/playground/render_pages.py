"""Pages of single renders: their state while they are generated, keep, restore, cancel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.base_models.subjects import prompt_note
from app.registry.blobs.report import bad_files_of
from app.registry.blobs.subjects import Subject
from app.registry.db import MAX_ID
from app.registry.renders import drafts, removal, service
from app.web.playground.result_view import (
    EarlierRender,
    ResultView,
    earlier_renders,
    result_fragment,
    result_view,
)
from app.web.state import Id, State
from app.web.templates import render as render_page
from app.web.templates import render_fragment, wants_fragment
from worker.core.inference.prompt_syntax import parse_prompt
from worker.core.words import SamplerName

router = APIRouter(include_in_schema=False)

Shown = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class RenderPage:
    """One result on its own page."""

    result: ResultView
    earlier: list[EarlierRender]
    address: str
    bad_files: list[str]
    prompt_note: str
    sampler: str
    is_own_page: bool = True


@router.get("/renders/{render_id}")
def show(request: Request, render_id: Id, state: State) -> Response:
    """Show one result: the image, its twin and its settings."""
    with state.database.read() as session:
        result = result_view(session, service.get_render(session, render_id))
        earlier = earlier_renders(session)
        bad = bad_files_of(session, Subject.RENDER, render_id)
        taught = adapters.trigger_words_of(session, result.here)
    address = f"{urlsplit(str(request.url))._replace(query='').geturl()}"
    note = prompt_note(result.base, parse_prompt(result.render.prompt).text, taught=taught)
    sampler = SamplerName(result.render.sampler).label
    context = RenderPage(result, earlier, address, bad, note, sampler)
    return render_page(request, "playground/render.html", context)


@router.get("/renders/{render_id}/live")
def live(render_id: Id, state: State, own: bool = False, shown: Shown = None) -> Response:
    """Show the progress of an image; polls until it is finished.

    `shown`: the render whose image stays in view until then. No content for a draft that was
    replaced: the page gets the newer one from the request that replaced it.
    """
    with state.database.read() as session:
        render = service.get_render(session, render_id)
        if drafts.is_replaced(session, render):
            return Response(status_code=204)
        context = result_fragment(session, render, shown=shown, is_own_page=own)
    return render_fragment("playground/_live.html", context)


@router.post("/renders/{render_id}/restore")
def restore(render_id: Id, state: State) -> Response:
    """Restore a deleted render."""
    with state.database.write() as session:
        removal.restore_render(session, render_id)
    return RedirectResponse(f"/renders/{render_id}", status_code=303)


@router.post("/renders/{render_id}/cancel")
def cancel(request: Request, render_id: Id, state: State, own: bool = False) -> Response:
    """Cancel an image and its twin; a finished one is kept."""
    with state.database.write() as session:
        service.cancel_with_twin(session, render_id)
    return _render_response(request, render_id, state, own)


@router.post("/renders/{render_id}/keep")
def keep(request: Request, render_id: Id, state: State, own: bool = False) -> Response:
    """Keep a draft: it is listed like any other result."""
    with state.database.write() as session:
        drafts.keep_draft(session, render_id)
    return _render_response(request, render_id, state, own)


def _render_response(request: Request, render_id: int, state: State, own: bool) -> Response:
    """The render as it is now: as a fragment, or on its page without scripts."""
    if wants_fragment(request):
        return live(render_id, state, own)
    return RedirectResponse(f"/renders/{render_id}", status_code=303)
