"""`create_app(settings)`: the web front end with its pages, its API and its error answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import Route

from app.registry.access.start_token import read_start_token
from app.registry.base_models.service import inspect_embedded
from app.registry.code_version import release
from app.registry.config import Settings
from app.registry.errors import Conflict
from app.registry.logs import configure_logs
from app.registry.paths import STATIC
from app.registry.people.service import require_accounts
from app.registry.state import AppState, make_state
from app.web import health, media
from app.web.access import (
    account_pages,
    log_pages,
    people_api,
    people_pages,
    share_api,
    share_pages,
)
from app.web.access import api as access_api
from app.web.access import pages as access_pages
from app.web.access.gate import Gate, TrustedProxies
from app.web.access.login import Login
from app.web.access.needs import Action, make_rules, needs
from app.web.adapters import api as adapters_api
from app.web.adapters import pages as adapters_pages
from app.web.adapters.downloads import api as downloads_api
from app.web.adapters.folders import api as folders_api
from app.web.adapters.hub import api as hub_api
from app.web.adapters.hub import pages as hub_pages
from app.web.adapters.imports import api as imports_api
from app.web.adapters.renders import api as adapter_renders_api
from app.web.adapters.tools import api as tools_api
from app.web.adapters.tools import pages as tools_pages
from app.web.adapters.versions import api as versions_api
from app.web.api_reference import pages as api_reference_pages
from app.web.base_models import api as base_models_api
from app.web.base_models import pages as base_models_pages
from app.web.blind_tests import api as blind_tests_api
from app.web.blind_tests import pages as blind_pages
from app.web.caption_models import api as caption_models_api
from app.web.caption_models import pages as caption_models_pages
from app.web.clock import BrowserClock
from app.web.datasets import api as datasets_api
from app.web.datasets import edit_api as dataset_edits_api
from app.web.datasets import listing_api as dataset_listing_api
from app.web.datasets import pages as datasets_pages
from app.web.datasets.auto_caption import api as auto_caption_api
from app.web.datasets.auto_caption import pages as auto_caption_pages
from app.web.datasets.transfer import api as transfer_api
from app.web.datasets.transfer import pages as transfer_pages
from app.web.deletion import api as deletion_api
from app.web.deletion import pages as deletion_pages
from app.web.deletion import storage_pages
from app.web.error_answers import ErrorAnswers, add_error_answers
from app.web.forms import MAX_FIELD_BYTES, MAX_FILES
from app.web.home import pages as home_pages
from app.web.idempotency import IdempotencyKeys
from app.web.jobs import api as jobs_api
from app.web.likeness import api as likeness_api
from app.web.likeness import pages as likeness_pages
from app.web.methods import AllowedMethods
from app.web.nul import refuse_nul
from app.web.openapi import DescribedApp, operation_id
from app.web.playground import api as playground_api
from app.web.playground import gallery_pages, render_pages, source_pages
from app.web.playground import pages as playground_pages
from app.web.playground import save_blocks as block_pages
from app.web.playground import strip as strip_pages
from app.web.playground.grids import api as grids_api
from app.web.playground.grids import pages as grids_pages
from app.web.playground.recipes import api as recipes_api
from app.web.playground.recipes import pages as recipe_pages
from app.web.rest.operations import AnswerHeaders, refuse_unknown
from app.web.runs import api as runs_api
from app.web.runs import pages as runs_pages
from app.web.runs import prompt_sets_api, sweeps_api
from app.web.runs.evaluations import api as evaluations_api
from app.web.security import AddressLimit, BodyLimit, CommonHeaders, HeadAsGet, KnownHosts, SameSite
from app.web.space import SpaceLender, UploadQuota
from app.web.static_files import Compression, StaticWithLongCache
from app.web.system import pages as system_pages

API_PREFIX = "/api/v1"
UPLOAD_BYTES = 12_000_000_000  # an export of 5,000 images
OTHER_BYTES = 2_000_000


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
        dependencies=[Depends(refuse_nul)],
        form_limits={
            "max_files": MAX_FILES,
            "max_fields": MAX_FILES,
            "max_part_size": MAX_FIELD_BYTES,
        },
    )
    _add_files(app)
    for router in _all_routers():
        app.include_router(router)
    add_error_answers(app)
    use_settings(app, settings)
    return app


def use_settings(app: FastAPI, settings: Settings) -> None:
    """Give an app with its routes the state, the login and the middleware of these settings.

    Raises Conflict if they would open what belongs to people with accounts.
    """
    if settings.login_conflict:
        raise Conflict(settings.login_conflict)
    app.state.brushwork = make_state(settings)
    with app.state.brushwork.database.read() as session:
        require_accounts(session, accounts=settings.accounts)
    app.state.login = Login(
        password=settings.password.get_secret_value() if settings.password else None,
        start_token=read_start_token(settings),
        accounts=settings.accounts,
    )
    _add_middleware(app, settings)


def _add_files(app: FastAPI) -> None:
    """Add what the routers lack: the OpenAPI document, and files that are the same for all.

    They come before the routers: a page needs two dozen of them, and routes are tried in order.
    """
    for route in app.routes:
        if isinstance(route, Route) and route.path == app.openapi_url:
            needs(Action.LOOK)(route.endpoint)
    # the login page is styled by them, and they are not secret
    static = needs(Action.OPEN)(StaticWithLongCache(directory=STATIC))
    app.mount("/static", static, name="static")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.brushwork
    with state.database.write() as session:
        inspect_embedded(session)
    login: Login = app.state.login
    login.end_sessions_of_other_secrets(state.database)
    yield
    state.close()


def _all_routers() -> Iterator[APIRouter]:
    api = APIRouter(prefix=API_PREFIX, dependencies=[Depends(refuse_unknown)])
    apis = (
        deletion_api,  # before the others: `deleted` and `deletion` are not ids
        datasets_api,
        dataset_listing_api,
        auto_caption_api,
        transfer_api,
        dataset_edits_api,
        base_models_api,
        caption_models_api,
        runs_api,
        access_api,
        people_api,
        share_api,
        adapters_api,
        versions_api,
        adapter_renders_api,
        downloads_api,
        folders_api,
        imports_api,
        hub_api,
        tools_api,
        grids_api,
        evaluations_api,
        blind_tests_api,
        prompt_sets_api,
        sweeps_api,
        likeness_api,
        recipes_api,
        jobs_api,
        playground_api,
    )
    for domain in apis:
        api.include_router(domain.router)
    yield api
    yield health.router
    yield media.router
    for pages in (
        access_pages,
        share_pages,
        account_pages,
        log_pages,
        people_pages,
        home_pages,
        deletion_pages,  # before the others: their addresses would match, too
        blind_pages,
        storage_pages,
        auto_caption_pages,
        datasets_pages,
        transfer_pages,
        base_models_pages,
        caption_models_pages,
        runs_pages,
        likeness_pages,
        adapters_pages,
        hub_pages,
        tools_pages,
        gallery_pages,  # before the images: `zip` is not an id
        grids_pages,
        playground_pages,
        source_pages,
        block_pages,
        recipe_pages,
        strip_pages,
        render_pages,
        system_pages,
        api_reference_pages,
    ):
        yield pages.router


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added sees a request first."""
    app.add_middleware(AnswerHeaders)
    app.add_middleware(SpaceLender, folder=settings.data_dir)
    app.add_middleware(BrowserClock)
    app.add_middleware(IdempotencyKeys, prefix=f"{API_PREFIX}/")
    app.add_middleware(Compression)
    rules = make_rules(app.routes)
    app.add_middleware(UploadQuota, rules=rules)
    app.add_middleware(BodyLimit, upload_bytes=UPLOAD_BYTES, other_bytes=OTHER_BYTES)
    app.add_middleware(SameSite)
    app.add_middleware(AllowedMethods, rules=rules)
    app.add_middleware(Gate, rules=rules)
    app.add_middleware(AddressLimit)
    app.add_middleware(KnownHosts, allowed_hosts=settings.allowed_host_list)
    app.add_middleware(ErrorAnswers)
    app.add_middleware(HeadAsGet)
    app.add_middleware(CommonHeaders)
    app.add_middleware(TrustedProxies, trusted=settings.trusted_proxy_list)
