"""The page that says what deleting for good removes and frees, and asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from app.registry.blobs import deletion as freeing
from app.registry.blobs.deletion import FreedSpace, Removal
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.registry.wording import size_text
from app.web.templates import redirect_with_notice, render


@dataclass(frozen=True)
class Alternative:
    """Another way to delete the same, as a link in words."""

    href: str
    words: str


@dataclass(frozen=True)
class ConfirmPage:
    """What is deleted and what stays; None if it cannot be deleted now, with the reason."""

    freed: FreedSpace | None
    refused: str
    back: str
    alternative: Alternative | None


def ask(
    request: Request,
    state: AppState,
    removal: Removal,
    *,
    back: str,
    alternative: Alternative | None = None,
) -> Response:
    """The page that asks before this is deleted; its form posts to the same address."""
    try:
        freed = freeing.preview(state, removal)
    except Conflict as conflict:
        page = ConfirmPage(None, conflict.detail, back, None)
        return render(request, "deletion/confirm.html", page, status=conflict.status)
    return show(request, freed, back=back, alternative=alternative)


def show(
    request: Request, freed: FreedSpace, *, back: str, alternative: Alternative | None = None
) -> Response:
    """The page that asks before something of which all is known is deleted."""
    return render(request, "deletion/confirm.html", ConfirmPage(freed, "", back, alternative))


def delete(state: AppState, removal: Removal, *, to: str) -> Response:
    """Delete for good, then go to this page, which says so."""
    freed = freeing.delete(state, removal)
    return redirect_with_notice(to, sentence(freed))


def sentence(freed: FreedSpace) -> str:
    """What was deleted, in one sentence."""
    return f"Deleted {freed.title}: {size_text(freed.size_bytes)} freed."
