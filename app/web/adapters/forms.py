"""Parse and validate the form of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.registry.adapters.service import AdapterChange
from app.registry.validation import too_long
from app.web.form_reader import FormReader, split_words
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
