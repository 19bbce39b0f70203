"""What a person may say about a dataset, and the sentences when it is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.registry.datasets.models import NAME_LENGTH, TRIGGER_LENGTH


@dataclass(frozen=True)
class DatasetForm:
    """Name and trigger word as they were typed, with a sentence for each that is wrong."""

    name: str = ""
    trigger_word: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """True when both can be stored."""
        return not self.errors


def read_dataset_form(name: str, trigger_word: str) -> DatasetForm:
    """The form with blanks trimmed and checked."""
    name, trigger_word = " ".join(name.split()), " ".join(trigger_word.split())
    errors = {}
    if not name:
        errors["name"] = "Give the dataset a name, so that you find it again."
    elif len(name) > NAME_LENGTH:
        errors["name"] = f"This name has {len(name):,} characters; at most {NAME_LENGTH} fit."
    if len(trigger_word) > TRIGGER_LENGTH:
        errors["trigger_word"] = (
            f"This has {len(trigger_word):,} characters; at most {TRIGGER_LENGTH} fit."
        )
    elif "," in trigger_word:
        errors["trigger_word"] = "Leave the comma out: prompts are split at commas."
    return DatasetForm(name, trigger_word, errors)


def name_from_file(filename: str | None) -> str:
    """A name for a dataset that began with a file: the archive's, else a plain one."""
    stem = (filename or "").replace("\\", "/").rpartition("/")[2]
    if stem.lower().endswith(".zip"):
        stem = " ".join(stem[:-4].replace("_", " ").replace("-", " ").split())
        if stem:
            return stem[:1].upper() + stem[1:NAME_LENGTH]
    return "New dataset"
