"""Parse and validate the form of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.registry.datasets.service import NAMELESS
from app.registry.tables.datasets import NAME_LENGTH, TRIGGER_LENGTH
from app.registry.wording import capitalized, shortened
from app.web.form_reader import FormReader


@dataclass(frozen=True)
class DatasetForm:
    """Name and trigger word as typed, with an error message for each invalid one."""

    name: str = ""
    trigger_word: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """True when both are valid."""
        return not self.errors


def read_dataset_form(sent: Mapping[str, Any]) -> DatasetForm:
    """Trim and validate the fields."""
    form = FormReader(sent)
    name = form.name("name", most=NAME_LENGTH, empty=NAMELESS)
    trigger_word = form.name("trigger_word", most=TRIGGER_LENGTH)
    if "," in trigger_word:
        form.refuse("trigger_word", "Leave the comma out: prompts are split at commas.")
    return DatasetForm(name, trigger_word, form.errors)


def name_from_file(filename: str | None) -> str:
    """A name for a dataset made from an upload: that of the archive, else “New dataset”."""
    stem = (filename or "").replace("\\", "/").rpartition("/")[2]
    if stem.lower().endswith(".zip"):
        stem = " ".join(stem[:-4].replace("_", " ").replace("-", " ").split())
        if stem:
            return shortened(capitalized(stem), NAME_LENGTH)
    return "New dataset"
