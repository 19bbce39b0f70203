"""The page of one adapter: its form, read as a change, and shown again if that was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.registry.adapters.service import AdapterChange
from app.registry.errors import InvalidInput
from app.registry.validation import too_long
from app.web.adapters.page_view import AdapterView, adapter_view
from app.web.form_reader import FormReader, split_words
from app.web.forms import SentForm
from app.web.state import session_of
from app.web.templates import render
from worker.core.old_names import rename_old

MAX_NAME = 120
MAX_NOTES = 20_000
MAX_LICENSE = 80
MAX_TRIGGERS = 20
MAX_TRIGGER = 60
LICENSE_NAME = "Enter the name of the license; its text belongs in the notes."
LICENSES = (
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CreativeML-OpenRAIL-M",
    "Apache-2.0",
    "MIT",
    "All rights reserved",
)


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


def read_change(sent: Mapping[str, Any]) -> AdapterChange:
    """Parse a form into a change; absent fields stay unchanged. Raises InvalidInput."""
    form = FormReader(rename_old(sent))
    name = form.text("name", most=MAX_NAME) if "name" in form else None
    if name == "":
        form.refuse("name", "An adapter needs a name.")
    notes = form.text("notes", most=MAX_NOTES) if "notes" in form else None
    license = form.text("license") if "license" in form else None
    if license and len(license) > MAX_LICENSE:
        form.refuse("license", f"{too_long(license, MAX_LICENSE)} {LICENSE_NAME}")
    triggers = split_words(form.text("trigger_words")) if "trigger_words" in form else None
    if triggers and (len(triggers) > MAX_TRIGGERS or max(map(len, triggers)) > MAX_TRIGGER):
        form.refuse(
            "trigger_words",
            f"At most {MAX_TRIGGERS} trigger words of at most {MAX_TRIGGER} characters each.",
        )
    form.check()
    return AdapterChange(
        name=name,
        notes=notes,
        license=license,
        trigger_words=triggers,
        tags=split_words(form.text("tags")) if "tags" in form else None,
    )


def refuse_change(request: Request, slug: str, sent: SentForm, error: InvalidInput) -> Response:
    """The page at the version of the form, with what was typed and the error beside it."""
    with session_of(request) as session:
        view = adapter_view(session, slug, str(sent.get("version", "")) or None)
    values = form_values(view) | {name: str(value)[:200] for name, value in sent.items()}
    context = AdapterDetailPage(view, values, error.fields)
    return render(request, "adapters/show.html", context, status=422)
