"""The first page: three steps for a new person, else where they were; and the strip in the bar."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app import web

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Running:
    """The strip in the bar."""

    running: web.RunningStrip | None


@router.get("/running")
def running(request: Request) -> HTMLResponse:
    """The strip in the bar, asked for again and again."""
    return web.render_fragment("_running.html", Running(web.running_strip(request)))
