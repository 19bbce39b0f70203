"""The page of caption models: the list, and a form to add one from a folder or from the Hub."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from app.registry.added_models import service as added_models
from app.registry.added_models.removal import file_removal
from app.registry.caption_models import service
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.state import AppState
from app.web.access.needs import Action, Router
from app.web.added_models import ModelPages, SentModel, models_page
from app.web.state import Id, State
from app.web.templates import render

router = Router(include_in_schema=False)


def _show(request: Request, state: AppState, sent: SentModel, status: int) -> Response:
    with state.database.read() as session:
        rows = added_models.list_with_progress(session, CAPTION_MODELS)
        fates = {
            row.model.key: file_removal(session, CAPTION_MODELS, row.model, state.settings)[0]
            for row in rows
            if row.download is None
        }
    page = models_page(state, CAPTION_MODELS, rows, fates, sent)
    return render(request, "caption_models/index.html", status=status, page=page)


PAGES = ModelPages(CAPTION_MODELS, _show, service.remove)
PAGES.add_routes(router)


@router.post(f"{CAPTION_MODELS.address}/{{model_id}}/check", Action.ADMIN)
def check(request: Request, model_id: Id, state: State) -> Response:
    """Check a caption model again, or resume its download."""
    return PAGES.carry_out(
        request, state, lambda session: service.check_again(session, model_id, state.settings)
    )
