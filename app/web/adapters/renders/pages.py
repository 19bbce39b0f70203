"""The playground images on the page of an adapter: more of them, hide, delete and undo."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service
from app.registry.db import MAX_ID, Session
from app.registry.renders import removal
from app.registry.renders.adapter_images import list_renders, render_image
from app.registry.tables.adapters import Adapter
from app.web.access.needs import Action, Router
from app.web.adapters.page_view import adapter_view
from app.web.forms import SentForm
from app.web.state import Id, Reading, Slug, State
from app.web.templates import redirect_with_notice, render, render_fragment, wants_fragment

router = Router(include_in_schema=False)


class ImageAction(StrEnum):
    """An action on an image; each of the first two is undone by one of the others."""

    HIDE = "hide"
    DELETE = "delete"
    SHOW = "show"
    RESTORE = "restore"


UNDO = {ImageAction.HIDE: ImageAction.SHOW, ImageAction.DELETE: ImageAction.RESTORE}


@dataclass(frozen=True)
class RemovedImage:
    """An image that was just hidden or deleted."""

    render_id: int
    act: ImageAction

    @property
    def sentence(self) -> str:
        """What happened to it."""
        return f"The image {'is hidden' if self.act is ImageAction.HIDE else 'was deleted'}."

    def undo(self, slug: str) -> str:
        """The address of the action that undoes it, on the page of an adapter."""
        return f"/adapters/{slug}/renders/{self.render_id}/{UNDO[self.act]}"


@router.get("/adapters/{slug}/pictures", Action.LOOK)
def older(slug: Slug, session: Reading, before: Annotated[int, Query(ge=1, le=MAX_ID)]) -> Response:
    """Images generated before this render, to append to the others."""
    adapter = service.adapter_by_slug(session, slug)
    found = list_renders(session, service.summary(session, adapter), before=before)
    return render_fragment("adapters/_render_tiles.html", adapter=adapter, gallery=found)


@router.get("/adapters/{slug}/hidden", Action.LOOK)
def hidden(request: Request, slug: Slug, session: Reading) -> Response:
    """List the hidden and the deleted images of an adapter."""
    adapter = service.adapter_by_slug(session, slug)
    hidden = removal.list_hidden(session, adapter.key)
    deleted = removal.list_deleted(session, adapter.key)
    return render(request, "adapters/hidden.html", adapter=adapter, hidden=hidden, deleted=deleted)


@router.post("/adapters/{slug}/renders/{render_id}/{act}", Action.OWN)
def change(
    request: Request, slug: Slug, render_id: Id, act: ImageAction, state: State, sent: SentForm
) -> Response:
    """Hide or delete an image, or undo that."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        cover = adapter.cover_sha256
        _do(session, adapter, render_id, act)
        has_other_cover = adapter.cover_sha256 != cover
    removed = RemovedImage(render_id, act)
    if not wants_fragment(request):
        if act in UNDO:
            return redirect_with_notice(
                f"/adapters/{slug}#renders", removed.sentence, undo=removed.undo(slug)
            )
        place = "/hidden" if sent.get("back") else "#renders"
        return RedirectResponse(f"/adapters/{slug}{place}", status_code=303)
    with state.database.read() as session:
        view = adapter_view(session, slug) if has_other_cover else None
        if act in UNDO:
            return render_fragment(
                "adapters/_render_removed.html", adapter=adapter, removed=removed, view=view
            )
        image = render_image(session, service.summary(session, adapter), render_id)
    return render_fragment("adapters/_render_back.html", adapter=adapter, image=image, view=view)


def _do(session: Session, adapter: Adapter, render_id: int, act: ImageAction) -> None:
    service.require_listed(adapter)
    removal.require_render_of(session, adapter.key, render_id)
    match act:
        case ImageAction.HIDE | ImageAction.SHOW:
            removal.hide_render(session, adapter.key, render_id, hidden=act is ImageAction.HIDE)
        case ImageAction.DELETE:
            removal.delete_render(session, render_id)
        case ImageAction.RESTORE:
            removal.restore_render(session, render_id)
