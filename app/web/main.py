"""`create_app(settings)`: the web front end with its pages, its API and its error answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.registry.base_models import service as base_models
from app.registry.code_version import release
from app.registry.config import Settings
from app.registry.errors import AppError
from app.registry.logs import configure_logs
from app.registry.paths import STATIC
from app.registry.state import AppState, make_state
from app.web import health, media
from app.web.adapters import api as adapters_api
from app.web.adapters import pages as adapters_pages
from app.web.adapters.deleted import api as deleted_api
from app.web.adapters.downloads import api as downloads_api
from app.web.adapters.downloads import originals_api, proof_api
from app.web.adapters.hub import api as hub_api
from app.web.adapters.hub import pages as hub_pages
from app.web.adapters.imports import api as imports_api
from app.web.adapters.tools import api as tools_api
from app.web.adapters.tools import pages as tools_pages
from app.web.adapters.versions import api as versions_api
from app.web.api_reference import pages as api_reference_pages
from app.web.base_models import api as base_models_api
from app.web.base_models import pages as base_models_pages
from app.web.compression import Compression
from app.web.datasets import api as datasets_api
from app.web.datasets import pages as datasets_pages
from app.web.home import pages as home_pages
from app.web.openapi import DescribedApp, operation_id
from app.web.playground import api as playground_api
from app.web.playground import pages as playground_pages
from app.web.problems import problem_response, status_error, validation_error
from app.web.runs import api as runs_api
from app.web.runs import pages as runs_pages
from app.web.security import BodyLimit, PasswordGate, SameSite, SecurityHeaders
from app.web.static_files import StaticWithLongCache
from app.web.system import pages as system_pages
from app.web.templates import error_page, wants_page

API_PREFIX = "/api/v1"
UPLOAD_BYTES = 2_200_000_000
OTHER_BYTES = 2_000_000
MAX_FILES = 500

log = structlog.get_logger()


def create_app(settings: Settings) -> FastAPI:
    """The web app on the database, storage and broker these settings name."""
    configure_logs(settings.log_level)
    app = DescribedApp(
        title="Brushwork",
        version=release(),
        summary="Train, try and keep image-style LoRAs.",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        lifespan=_lifespan,
        form_limits={"max_files": MAX_FILES, "max_fields": MAX_FILES},
    )
    app.state.brushwork = make_state(settings)
    for router in _all_routers():
        app.include_router(router)
    app.mount("/static", StaticWithLongCache(directory=STATIC), name="static")
    _add_error_answers(app)
    _add_middleware(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.brushwork
    with state.database.write() as session:
        base_models.inspect_embedded(session)
    yield
    state.decoder.close()
    state.wakeups.close()
    state.database.dispose()


def _all_routers() -> Iterator[APIRouter]:
    api = APIRouter(prefix=API_PREFIX)
    apis = (
        datasets_api,
        base_models_api,
        runs_api,
        deleted_api,  # before the adapters: `deleted` is no id
        adapters_api,
        versions_api,
        downloads_api,
        proof_api,
        originals_api,
        imports_api,
        hub_api,
        tools_api,
        playground_api,
    )
    for domain in apis:
        api.include_router(domain.router)
    yield api
    yield health.router
    yield media.router
    for pages in (
        home_pages,
        datasets_pages,
        base_models_pages,
        runs_pages,
        adapters_pages,
        hub_pages,
        tools_pages,
        playground_pages,
        system_pages,
        api_reference_pages,
    ):
        yield pages.router


def _add_error_answers(app: FastAPI) -> None:
    def answer(request: Request, error: AppError) -> Response:
        if wants_page(request):
            return error_page(request, error)
        return problem_response(error)

    @app.exception_handler(AppError)
    def on_app_error(request: Request, error: AppError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return answer(request, validation_error(error))

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        return answer(request, status_error(error.status_code, error.detail))

    @app.exception_handler(ClientDisconnect)
    def on_client_left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # goes nowhere: browsers abort requests all the time

    @app.exception_handler(Exception)
    def on_unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected", path=request.url.path, exc_info=error)
        return answer(request, status_error(500))


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added sees a request first."""
    app.add_middleware(Compression, static="/static/")
    app.add_middleware(BodyLimit, upload_bytes=UPLOAD_BYTES, other_bytes=OTHER_BYTES)
    app.add_middleware(SameSite)
    if settings.password is not None:
        app.add_middleware(PasswordGate, password=settings.password.get_secret_value())
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.allowed_host_list)
    app.add_middleware(SecurityHeaders)
