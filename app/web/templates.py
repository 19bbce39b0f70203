"""Render HTML pages: templates, the page shell and error pages."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from app.registry import wording
from app.registry.actor import ROLE_WORDS, current_principal
from app.registry.code_version import release
from app.registry.errors import AppError
from app.registry.job_kinds.states import Queue
from app.registry.jobs.presence import present_workers
from app.registry.paths import TEMPLATES
from app.registry.runs.service import ActiveRuns, active_runs
from app.registry.tables.runs import Run
from app.web import clock
from app.web.addresses import host_of, own_address
from app.web.build import fingerprint
from app.web.owners import owner_name
from app.web.shortcuts import SHORTCUTS
from app.web.state import session_of
from app.web.static_files import static_url

THEME_COOKIE = "theme"
CAN_LOG_OUT = "brushwork_can_log_out"  # key in the scope: the caller has a session
NOTICE_COOKIE = "notice"  # what the next page says once
NOTICE_SECONDS = 60
NOTICE_LENGTH = 300
MACHINE_PATHS = ("/api/", "/media/", "/static/", "/healthz", "/readyz", "/metrics")
PLACES = {
    "/datasets": "datasets",
    "/train": "training",
    "/prompt-sets": "training",
    "/runs": "training",
    "/blind-tests": "training",
    "/sweeps": "training",
    "/base-models": "training",
    "/caption-models": "datasets",
    "/adapters": "adapters",
    "/folders": "adapters",
    "/style-searches": "adapters",
    "/play": "playground",
    "/renders": "playground",
    "/grids": "playground",
    "/recipes": "playground",
}


class Theme(StrEnum):
    """Color theme of the pages; `system` follows the device."""

    LIGHT = "light"
    DARK = "dark"
    SYSTEM = "system"


@dataclasses.dataclass(frozen=True)
class RunningStrip:
    """Status of running and queued runs, in the top bar of every page; `more`: on wide ones."""

    text: str
    href: str
    is_training: bool
    more: str = ""


@dataclasses.dataclass(frozen=True)
class Shell:
    """Variables of the page shell."""

    place: str
    path: str
    theme: Theme
    running: RunningStrip | None
    device: str | None
    can_log_out: bool = False
    notice: str = ""
    undo: str = ""


def crop_place(focus: tuple[float, float] | None, width: int, height: int) -> int:
    """The place along an image's longer side of its square crop, in percent.

    Of a panorama, 0 shows the left end, 100 the right one. As in training, the focus point is in
    the middle of the square unless an edge of the image is nearer.
    """
    short, long = sorted((width, height))
    if focus is None or short == long:
        return 50  # the center
    part = short / long
    start = min(max((focus[0] if width > height else focus[1]) - part / 2, 0), 1 - part)
    return round(100 * start / (1 - part))


def make_environment() -> jinja2.Environment:
    """The Jinja environment of all pages: escapes HTML and rejects unknown names.

    Each template is read once per process: a page with 48 tiles would look 160 times whether a file
    was changed, and half of an update would show before the restart.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        auto_reload=False,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "static": static_url,
        "plural": wording.plural,
        "shortcuts": SHORTCUTS,
        "release": release(),
        "build": fingerprint,
        "person": current_principal,
        "role_words": ROLE_WORDS,
        "owner_name": owner_name,
    }
    environment.filters |= {
        "plural": wording.plural,
        "count": wording.count_text,
        "size": wording.size_text,
        "duration": wording.duration,
        "epochs": wording.epochs_text,
        "about": wording.about,
        "ago": wording.ago,
        "clock": clock.clock,
        "full_time": clock.full_time,
        "aware": wording.aware,
        "crop_place": crop_place,
        "percent": wording.percent,
        "rate": wording.rate_text,
    }
    for name, template in {"ui": "_ui.html", "compare": "_comparison.html"}.items():
        environment.globals[name] = environment.get_template(template).module
    return environment


environment = make_environment()


def render(
    request: Request,
    template: str,
    context: object = None,
    *,
    status: int = 200,
    **variables: object,
) -> HTMLResponse:
    """Render a full page.

    It reads the fields of a context dataclass, or `variables`.
    """
    shell = make_shell(request)
    variables |= as_variables(context) | {"shell": shell}
    response = _html_response(template, variables, status)
    if shell.notice:
        response.delete_cookie(NOTICE_COOKIE)
    return response


def redirect_with_notice(
    address: str, text: str, *, undo: str = "", request: Request | None = None
) -> Response:
    """Redirect to a page that shows this text once, with a button that posts to `undo`.

    `request`: of a form that htmx may have sent.
    """
    response = go_to(request, address) if request else RedirectResponse(address, status_code=303)
    response.set_cookie(
        NOTICE_COOKIE,
        f"{quote(text[:NOTICE_LENGTH])}|{quote(undo)}",
        max_age=NOTICE_SECONDS,
        httponly=True,
        samesite="lax",
    )
    return response


def render_outside(
    request: Request,
    template: str,
    context: object = None,
    *,
    status: int = 200,
    **variables: object,
) -> HTMLResponse:
    """Render a full page that tells nothing of the registry: before the login, and of an error."""
    variables |= as_variables(context) | {"shell": bare_shell(request)}
    return _html_response(template, variables, status)


def render_fragment(
    template: str, context: object = None, *, status: int = 200, **variables: object
) -> HTMLResponse:
    """Render a part of a page as `render` does, without the shell."""
    return _html_response(template, variables | as_variables(context), status)


def as_variables(context: object) -> dict[str, Any]:
    """The fields of a context dataclass by name, not copied; of None there are none."""
    if context is None:
        return {}
    assert dataclasses.is_dataclass(context)
    return {field.name: getattr(context, field.name) for field in dataclasses.fields(context)}


def _html_response(template: str, variables: dict[str, Any], status: int) -> HTMLResponse:
    body = environment.get_template(template).render(variables)
    # pages show the current state: the Back button must reload, and no proxy may cache them
    return HTMLResponse(body, status_code=status, headers={"cache-control": "no-store"})


def wants_fragment(request: Request) -> bool:
    """True if htmx or a script requests a part of a page."""
    return request.headers.get("hx-request") == "true"


def go_to(request: Request, address: str) -> Response:
    """Lead to another page, from a form or from htmx."""
    if wants_fragment(request):
        return Response(status_code=204, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


def wants_page(request: Request) -> bool:
    """True if the answer, including an error, is shown to a person as HTML."""
    if request.url.path.startswith(MACHINE_PATHS):
        return False
    return wants_fragment(request) or "text/html" in request.headers.get("accept", "")


def make_shell(request: Request) -> Shell:
    """The page shell for this request."""
    with session_of(request) as session:
        workers = present_workers(session, queue=Queue.TRAIN)
        running = strip_of(active_runs(session, limit=1), has_worker=bool(workers))
    device = next((worker.device for worker in workers if worker.device), None)
    text, _, undo = request.cookies.get(NOTICE_COOKIE, "").partition("|")
    notice = unquote(text)[:NOTICE_LENGTH]
    undo = own_address(unquote(undo)) if undo else ""
    shell = dataclasses.replace(bare_shell(request), running=running, device=device)
    return dataclasses.replace(shell, notice=notice, undo=undo)


def bare_shell(request: Request) -> Shell:
    """The page shell without data from the registry, for error pages."""
    path = request.url.path
    place = next((name for prefix, name in PLACES.items() if _is_under(path, prefix)), "")
    query = f"?{request.url.query}" if request.url.query else ""
    return Shell(
        place=place,
        path=path + query if request.method == "GET" else path,
        theme=theme_of(request),
        running=None,
        device=None,
        can_log_out=request.scope.get(CAN_LOG_OUT, False),
    )


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def theme_of(request: Request) -> Theme:
    """The theme chosen in this browser."""
    try:
        return Theme(request.cookies.get(THEME_COOKIE, Theme.SYSTEM))
    except ValueError:
        return Theme.SYSTEM


def running_strip(request: Request) -> RunningStrip | None:
    """The current status strip; None when no run is active."""
    with session_of(request) as session:
        active = active_runs(session, limit=1)
        has_worker = active.running or present_workers(session, queue=Queue.TRAIN)
        return strip_of(active, has_worker=bool(has_worker))


def strip_of(active: ActiveRuns, *, has_worker: bool = True) -> RunningStrip | None:
    """The status strip for these runs."""
    if not active.shown:
        text = f"{active.private:,} private training"
        return RunningStrip(text, "/runs", is_training=True) if active.private else None
    first = active.shown[0]
    if not active.running:
        href = f"/runs/{first.key}" if active.queued == 1 else "/runs"
        text = f"{active.queued:,} waiting{'' if has_worker else ' · no worker'}"
        return RunningStrip(text, href, is_training=False)
    text = f"{active.running} training · {wording.percent(progress_of(first))}"
    more = f" · {active.queued:,} waiting" if active.queued else ""
    return RunningStrip(text, f"/runs/{first.key}", is_training=True, more=more)


def progress_of(run: Run) -> float:
    """Share of the steps that a run has done, 0 to 1."""
    return min(1.0, run.step / run.total_steps) if run.total_steps else 0.0


@dataclasses.dataclass(frozen=True)
class ErrorPage:
    """An error and what the user can do next."""

    status: int
    title: str
    detail: str
    retry: bool
    run_id: int | str | None
    back: str


def _page_of_form(request: Request) -> str:
    """The address on this server that a form was sent from; empty if the browser does not say."""
    came_from = request.headers.get("referer", "")
    if host_of(came_from) != request.url.netloc:
        return ""
    return own_address(urlsplit(came_from)._replace(scheme="", netloc="").geturl())


def error_page(request: Request, error: AppError) -> Response:
    """Render an error as a page, or as a notice for a fragment request."""
    context = ErrorPage(
        status=error.status,
        title=error.title,
        detail=error.detail,
        retry=request.method == "GET" and error.status >= 500,
        run_id=error.about.get("run_id"),
        back=_page_of_form(request) if request.method == "POST" else "",
    )
    if wants_fragment(request):
        return render_fragment("errors/_notice.html", context, status=error.status)
    return render_outside(request, "errors/error.html", context, status=error.status)
