"""Pages of the versions of an adapter: aliases, usual weight, comparison, training again."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import in_use, service
from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.adapters.versions import aliases
from app.registry.comparison.versions import compare
from app.registry.errors import InvalidInput
from app.registry.runs.rerun import require_run, train_again
from app.web.adapters.detail import refuse_change
from app.web.adapters.versions import weight_pages
from app.web.addresses import own_address
from app.web.comparison import ComparePage, compared_prompts
from app.web.form_reader import FormReader
from app.web.forms import SentForm
from app.web.state import Back, Slug, State
from app.web.templates import redirect_with_notice, render
from app.web.used_version import redirect_to_used

router = APIRouter(include_in_schema=False)
router.include_router(weight_pages.router)

Reference = Annotated[str | None, Query(max_length=60)]
Used = Annotated[str, Path(max_length=60)]
CHOICES = 200


@router.get("/adapters/{slug}/compare")
def compare_versions(
    request: Request, slug: Slug, state: State, a: Reference = None, b: Reference = None
) -> Response:
    """Compare two versions; by default the current one and the one before it."""
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, slug)
        found = compare(session, adapter, a or None, b or None)
        versions = service.list_versions(session, adapter.key, limit=CHOICES)
    shown = {row.version for row in versions}
    for row in (found.a, found.b):
        if row.version not in shown:
            versions.append(row)
    options = [(row.version, f"Version {row.version}") for row in versions]
    return render(
        request, "adapters/compare.html", ComparePage(found, options, compared_prompts(found))
    )


@router.post("/adapters/{slug}/aliases")
def set_alias(request: Request, slug: Slug, state: State, sent: SentForm) -> Response:
    """Set an alias of a version, moving it if needed; errors appear next to the field."""
    shown = str(sent.get("version", ""))
    try:
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            version = service.get_version(session, adapter, shown or None)
            service.require_listed(adapter)
            in_use.set_alias(session, version, str(sent.get("alias", "")))
    except InvalidInput as error:
        return refuse_change(request, state, slug, sent, error)
    return RedirectResponse(f"/adapters/{slug}?v={version.version}#versions", status_code=303)


@router.post("/adapters/{slug}/versions/{version}/use")
def use_version(slug: Slug, version: Used, state: State, back: Back = "") -> Response:
    """Make a version the one in use, then go back to the page it was asked on."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        used = in_use.use_version(session, adapter.key, version)
    page = f"/adapters/{slug}?v={used.version.version}#versions"
    return redirect_to_used(used, own_address(back) if back else page)


@router.post("/adapters/{slug}/usual-weight")
def set_weight(request: Request, slug: Slug, state: State, sent: SentForm) -> Response:
    """Set the usual weight of a version; an error appears next to the field.

    The address may have the fields in place of the form, as that which undoes it does.
    """
    form = FormReader({**request.query_params, **sent})
    weight = form.number("usual_weight", 0.0)
    try:
        form.check()
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            version = service.get_version(session, adapter, form.text("version") or None)
            before = version.usual_weight
            set_usual_weight(session, adapter.key, version.version, weight)
            what = adapter.version_label(version.version)
    except InvalidInput as error:
        return refuse_change(request, state, slug, sent, error)
    text = f"The usual weight of {what} is now {weight:g}."
    values = urlencode({"version": version.version, "usual_weight": before})
    undo = "" if before == weight else f"/adapters/{slug}/usual-weight?{values}"
    page = f"/adapters/{slug}?v={version.version}#usual-weight"
    return redirect_with_notice(page, text, undo=undo)


@router.post("/adapters/{slug}/aliases/remove")
def remove_alias(slug: Slug, state: State, sent: SentForm) -> Response:
    """Remove an alias; its version stays."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        aliases.delete_alias(session, adapter.key, str(sent.get("alias", "")))
    return _back_to_adapter(slug, str(sent.get("v", "")))


@router.post("/adapters/{slug}/again")
def again(slug: Slug, state: State, sent: SentForm) -> Response:
    """Train a version again; the page of the run lists the differences from the first run."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter, str(sent.get("version", "")) or None)
        run_id = require_run(adapter, version)
        into = adapter.key if adapter.is_listed else None
        run, _ = train_again(session, run_id, adapter_id=into)
    return RedirectResponse(f"/runs/{run.key}", status_code=303)


def _back_to_adapter(slug: str, shown: str) -> Response:
    query = f"?v={shown}" if shown.isascii() and shown.isdigit() else ""
    return RedirectResponse(f"/adapters/{slug}{query}#versions", status_code=303)
