"""The theme, what runs where, and the page that shows every component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app import web

router = APIRouter(include_in_schema=False)
YEAR_SECONDS = 365 * 86_400


@router.post("/theme")
def theme(
    theme: Annotated[web.Theme, Form()], back: Annotated[str, Form()] = "/"
) -> RedirectResponse:
    """Remember the theme in this browser and go back to the page."""
    response = RedirectResponse(own_address(back), status_code=303)
    response.set_cookie(
        web.THEME_COOKIE, theme, max_age=YEAR_SECONDS, httponly=True, samesite="lax"
    )
    return response


def own_address(address: str) -> str:
    """The address when it lies on this server, else the first page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_own and address.isprintable() else "/"


@dataclass(frozen=True)
class Patterns:
    """The page of all components has nothing of its own."""


@router.get("/patterns")
def patterns(request: Request) -> HTMLResponse:
    """Every component of the pages, for people who build them."""
    return web.render(request, "patterns/patterns.html", Patterns())
