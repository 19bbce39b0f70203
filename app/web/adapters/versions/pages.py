"""Pages of the versions of an adapter: aliases, more images, comparison, training again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service
from app.registry.adapters.images import AdapterImages, list_adapter_images
from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.compare import Comparison, compare
from app.registry.db import MAX_ID
from app.registry.runs.rerun import train_again
from app.web.forms import SentForm
from app.web.state import State
from app.web.templates import render, render_fragment

router = APIRouter(include_in_schema=False)

Reference = Annotated[str | None, Query(max_length=60)]
CHOICES = 200


@dataclass(frozen=True)
class ComparePage:
    """Two versions of an adapter side by side, and all versions to choose from."""

    found: Comparison
    versions: list[AdapterVersion]


@dataclass(frozen=True)
class GalleryFragment:
    """Older images of an adapter, and the cursor of the next page."""

    adapter: Adapter
    gallery: AdapterImages


@router.get("/adapters/{slug}/pictures")
def pictures(slug: str, state: State, before: Annotated[int, Query(ge=1, le=MAX_ID)]) -> Response:
    """Images generated before this render, to append to the gallery."""
    with state.database.read() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter)
        summary = service.summary(session, adapter)
        found = list_adapter_images(session, summary, version, before=before)
    return render_fragment("adapters/_pictures.html", GalleryFragment(adapter, found))


@router.get("/adapters/{slug}/compare")
def compare_versions(
    request: Request, slug: str, state: State, a: Reference = None, b: Reference = None
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
    return render(request, "adapters/compare.html", ComparePage(found, versions))


@router.post("/adapters/{slug}/aliases/remove")
def remove_alias(slug: str, state: State, sent: SentForm) -> Response:
    """Remove an alias; its version stays."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        aliases.delete_alias(session, adapter.key, str(sent.get("alias", "")))
    return _back_to_adapter(slug, str(sent.get("v", "")))


@router.post("/adapters/{slug}/again")
def again(slug: str, state: State, sent: SentForm) -> Response:
    """Train a version again; the page of the run lists the differences from the first run."""
    with state.database.write() as session:
        adapter = service.adapter_by_slug(session, slug)
        version = service.get_version(session, adapter, str(sent.get("version", "")) or None)
        run_id = service.require_run(adapter, version)
        run, _ = train_again(session, run_id, adapter_id=adapter.key)
    return RedirectResponse(f"/runs/{run.key}", status_code=303)


def _back_to_adapter(slug: str, shown: str) -> Response:
    query = f"?v={shown}" if shown.isascii() and shown.isdigit() else ""
    return RedirectResponse(f"/adapters/{slug}{query}#versions", status_code=303)
