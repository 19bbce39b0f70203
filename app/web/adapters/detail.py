"""The page of one adapter, and how it comes back with a change that was refused."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from app.registry.errors import InvalidInput
from app.registry.state import AppState
from app.web.adapters.forms import LICENSES
from app.web.adapters.page_view import AdapterView, adapter_view
from app.web.forms import SentForm
from app.web.templates import render


@dataclass(frozen=True)
class AdapterDetailPage:
    """One adapter; after an invalid change, `errors` and the typed `values`.

    `is_editing`: its text can be edited; `is_done`: it just was, so that the focus goes back.
    """

    view: AdapterView
    values: dict[str, str]
    errors: dict[str, str]
    is_editing: bool = False
    is_done: bool = False
    licenses: tuple[str, ...] = LICENSES


def form_values(view: AdapterView) -> dict[str, str]:
    """The stored values of the form."""
    return {
        "name": view.adapter.name,
        "trigger_words": ", ".join(view.adapter.trigger_words),
        "tags": ", ".join(view.summary.tags),
        "license": view.adapter.license,
        "notes": view.adapter.notes,
    }


def refuse_change(
    request: Request, state: AppState, slug: str, sent: SentForm, error: InvalidInput
) -> Response:
    """The page at the version of the form, with what was typed and the error beside it."""
    with state.database.read() as session:
        view = adapter_view(session, slug, str(sent.get("version", "")) or None)
    values = form_values(view) | {name: str(value)[:200] for name, value in sent.items()}
    context = AdapterDetailPage(view, values, error.fields)
    return render(request, "adapters/show.html", context, status=422)
