"""Parse and validate the form of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.registry.adapters.service import AdapterChange
from app.registry.errors import InvalidInput

MAX_NAME = 120
MAX_NOTES = 20_000
MAX_LICENCE = 80
MAX_TRIGGERS = 20
MAX_TRIGGER = 60
LICENCES = (
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
    fields: dict[str, str] = {}
    texts = {name: str(value).replace("\r\n", "\n").strip() for name, value in sent.items()}
    name = texts.get("name")
    if name == "":
        fields["name"] = "An adapter needs a name."
    elif name and len(name) > MAX_NAME:
        fields["name"] = f"This name has {len(name)} characters; at most {MAX_NAME} fit."
    notes = texts.get("notes")
    if notes and len(notes) > MAX_NOTES:
        fields["notes"] = f"These notes have {len(notes):,} characters; at most {MAX_NOTES:,} fit."
    licence = texts.get("licence")
    if licence and len(licence) > MAX_LICENCE:
        fields["licence"] = (
            f"This has {len(licence)} characters; at most {MAX_LICENCE} fit. Enter the name of the "
            "license; its text belongs in the notes."
        )
    triggers = split_words(texts["trigger_words"]) if "trigger_words" in texts else None
    if triggers and (len(triggers) > MAX_TRIGGERS or max(map(len, triggers)) > MAX_TRIGGER):
        fields["trigger_words"] = (
            f"At most {MAX_TRIGGERS} trigger words of at most {MAX_TRIGGER} characters each."
        )
    if fields:
        raise InvalidInput(" ".join(fields.values()), fields=fields)
    return AdapterChange(
        name=name,
        notes=notes,
        licence=licence,
        trigger_words=triggers,
        tags=split_words(texts["tags"]) if "tags" in texts else None,
    )


def split_words(text: str) -> list[str]:
    """The words of a comma-separated list, in order and without duplicates."""
    words = (word.strip() for word in text.replace("\n", ",").split(","))
    return list(dict.fromkeys(word for word in words if word))
