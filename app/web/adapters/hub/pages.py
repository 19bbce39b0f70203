"""Pages of an adapter's publications on the Hugging Face Hub, and of imports from it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry import hub_transfers as hub
from app.registry.adapters import service
from app.registry.errors import AppError, Conflict, InvalidInput
from app.registry.hub_source import is_allowed
from app.registry.hub_transfers import HubImport, Publication, PublishOptions
from app.registry.renders.adapter_images import AdapterImage
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.web.access.needs import Action, Router
from app.web.forms import SentForm
from app.web.state import Id, OptionalId, Reading, Slug, State, Writing
from app.web.templates import render, render_fragment, wants_fragment

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class HubPage:
    """The publications of an adapter, and the form to publish it."""

    adapter: Adapter
    version: AdapterVersion
    published: list[Publication]
    allowed: bool
    has_token: bool
    is_active: bool
    images: list[AdapterImage]
    chosen: set[str]
    values: dict[str, str]
    private: bool
    errors: dict[str, str]


@dataclass(frozen=True)
class FetchPage:
    """The progress of an import from the Hub; `fetching` is None if it was rejected."""

    fetching: HubImport | None
    source: str
    error: str


@router.get("/adapters/{slug}/hub", Action.LOOK)
def show(request: Request, slug: Slug, state: State, v: OptionalId = None) -> Response:
    """Show the publications of an adapter and the form, as a fragment or as a page."""
    return _hub_answer(request, state, slug, v)


@router.post("/adapters/{slug}/hub", Action.ADMIN)
def publish(
    request: Request, slug: Slug, state: State, sent: SentForm, v: OptionalId = None
) -> Response:
    """Publish a version; errors appear next to their fields."""
    options = PublishOptions(
        repo=str(sent.get("repo", "")),
        private=sent.get("private") == "true",
        version=v,
        base_model=str(sent.get("base_model", "")),
        pictures=[str(value) for value in sent.getlist("picture")],
    )
    try:
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            hub.order_publication(session, adapter, options, state.settings)
    except AppError as error:
        return _hub_answer(request, state, slug, v, options, error)
    if wants_fragment(request):
        return _hub_answer(request, state, slug, v)
    return RedirectResponse(f"/adapters/{slug}/hub{f'?v={v}' if v else ''}", status_code=303)


@router.post("/adapters/{slug}/hub/{job_id}/cancel", Action.ADMIN)
def cancel_publication(
    request: Request, slug: Slug, job_id: Id, state: State, v: OptionalId = None
) -> Response:
    """Cancel a publication; one that has already ended is shown unchanged."""
    with suppress(Conflict), state.database.write() as session:
        hub.cancel_publication(session, service.adapter_by_slug(session, slug), job_id)
    if wants_fragment(request):
        return _hub_answer(request, state, slug, v)
    return RedirectResponse(f"/adapters/{slug}/hub{f'?v={v}' if v else ''}", status_code=303)


def _hub_answer(
    request: Request,
    state: AppState,
    slug: str,
    number: int | None,
    options: PublishOptions | None = None,
    error: AppError | None = None,
) -> Response:
    """The publications; after a refusal the form has these options, with the error."""
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter, number)
        published = hub.publications(session, adapter)
        images = hub.publishable_images(session, adapter, version)
        usual = {image.sha256 for image in images[: hub.USUAL_IMAGES]}
        # for failed or canceled ones, the last typed values
        earlier = next((row for row in published if row.url), next(iter(published), None))
        own_base = hub.base_on_hub(session, version)
        if not own_base and earlier:
            own_base = earlier.args.base_model
        page = HubPage(
            adapter=adapter,
            version=version,
            published=published,
            allowed=is_allowed(state.settings),
            has_token=state.settings.hub_token is not None,
            is_active=any(row.job.state.is_active for row in published),
            images=images,
            chosen=set(options.pictures or ()) if options else usual,
            values={
                "repo": options.repo if options else earlier.repo if earlier else adapter.slug,
                "base_model": options.base_model if options else own_base,
            },
            private=options.private if options else earlier.private if earlier else True,
            errors=_field_errors(error),
        )
    status = error.status if error else 200
    if wants_fragment(request):
        return render_fragment("adapters/_hub_form.html", page, status=status)
    return render(request, "adapters/hub.html", page, status=status)


def _field_errors(error: AppError | None) -> dict[str, str]:
    if error is None:
        return {}
    return dict(error.fields) if isinstance(error, InvalidInput) else {"repo": error.detail}


@router.post("/hub-imports", Action.ADMIN)
def order_import(request: Request, state: State, sent: SentForm) -> Response:
    """Start an import of an adapter from the Hub."""
    source = str(sent.get("source", "")).strip()
    try:
        with state.database.write() as session:
            job = hub.order_fetch(session, source, state.settings)
            fetching = hub.get_hub_import(session, job.key)
    except AppError as error:
        return _fetch_answer(request, None, source, error)
    if wants_fragment(request):
        return _fetch_answer(request, fetching, source)
    return RedirectResponse(f"/hub-imports/{job.key}", status_code=303)


@router.get("/hub-imports/{job_id}", Action.LOOK)
def import_progress(request: Request, job_id: Id, session: Reading) -> Response:
    """Show the progress of an import from the Hub; polls until the file is downloaded."""
    fetching = hub.get_hub_import(session, job_id)
    return _fetch_answer(request, fetching, fetching.source)


@router.post("/hub-imports/{job_id}/cancel", Action.ADMIN)
def cancel_import(request: Request, job_id: Id, session: Writing) -> Response:
    """Cancel an import from the Hub; one that has already ended is shown unchanged."""
    with suppress(Conflict):
        hub.cancel_fetch(session, job_id)
    if wants_fragment(request):
        return import_progress(request, job_id, session)
    return RedirectResponse(f"/hub-imports/{job_id}", status_code=303)


def _fetch_answer(
    request: Request, fetching: HubImport | None, source: str, error: AppError | None = None
) -> Response:
    context = FetchPage(fetching, source, error.detail if error else "")
    status = error.status if error else 200
    if wants_fragment(request):
        return render_fragment("adapters/_hub_import.html", context, status=status)
    return render(request, "adapters/hub_import.html", context, status=status)
