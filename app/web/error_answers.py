"""Answers for errors: a page for people, `application/problem+json` for programs."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.registry.blobs.report import report
from app.registry.errors import AppError
from app.registry.outages import OUTAGES, outage
from app.registry.storage.store import BlobDamaged, BlobNotFound, UnusableBlob
from app.web.addresses import logged_path
from app.web.problems import (
    MethodNotAllowed,
    error_headers,
    problem_response,
    status_error,
    unreadable_body,
    validation_error,
)
from app.web.state import app_state
from app.web.templates import error_page, wants_page

log = structlog.get_logger()


def answer(request: Request, error: AppError) -> Response:
    """The answer to a request that failed with this error."""
    if not wants_page(request):
        return problem_response(error)
    page = error_page(request, error)
    page.headers.update(error_headers(error))
    return page


def add_error_answers(app: FastAPI) -> None:
    """Answer what routes and their dependencies raise."""

    def on_outage(request: Request, error: Exception) -> Response:
        found = known_error(request.url.path, error)
        if found is None:
            raise error
        return answer(request, found)

    for kind in OUTAGES:
        app.add_exception_handler(kind, on_outage)

    @app.exception_handler(AppError)
    def on_app_error(request: Request, error: AppError) -> Response:
        return answer(request, error)

    @app.exception_handler(BlobNotFound)
    @app.exception_handler(BlobDamaged)
    def on_unusable_blob(request: Request, error: UnusableBlob) -> Response:
        error.detail = report(app_state(request).database, error)
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return answer(request, unreadable_body(request) or validation_error(error))

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        cause = error.__cause__  # such as a full disk while the files of a form came in
        found = known_error(request.url.path, cause) if cause else None
        if error.status_code == 405:  # of static files; `AllowedMethods` answers for the routes
            found = MethodNotAllowed(["GET"])
        return answer(request, found or status_error(error.status_code, error.detail))

    @app.exception_handler(ClientDisconnect)
    def on_client_left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # goes nowhere: browsers abort requests all the time

    @app.exception_handler(Exception)
    def on_unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected", path=logged_path(request.url.path), exc_info=error)
        return answer(request, status_error(500))


def known_error(path: str, error: BaseException) -> AppError | None:
    """The error for users; an outage is logged in one line. None for an unexpected error."""
    if isinstance(error, AppError):
        return error
    found = outage(error)
    if found is not None:
        reason = str(error).partition("\n")[0][:200]
        log.warning("outage", path=logged_path(path), code=found.code, reason=reason)
    return found


class ErrorAnswers:
    """Answers what a middleware raises: Starlette's own handlers know only those of routes."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            found = known_error(scope.get("path", ""), error)
            if found is None or started or scope["type"] != "http":
                raise
            await answer(Request(scope), found)(scope, receive, send)
