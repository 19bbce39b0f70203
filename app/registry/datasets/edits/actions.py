"""The action of a bulk edit and its settings, checked and described in sentences."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.errors import invalid_field
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH
from app.registry.wording import plural
from worker.core.words import CaptionKind

MAX_PATTERN = 500  # characters of a regular expression
OF_DATASET = 0  # in place of the id of an image, in the row of a step that changed the dataset
SHOWN_TEXT = 40  # characters of a text that a sentence repeats


class EditAction(StrEnum):
    """The action of a bulk edit on the selected images."""

    ADD_TRIGGER = "add_trigger"
    PREPEND = "prepend"
    APPEND = "append"
    REPLACE = "replace"
    REMOVE_TAG = "remove_tag"
    REMOVE_WORDS = "remove_words"
    WRITE = "write"
    FILE_NAMES = "file_names"
    REPEATS = "repeats"
    NEVER_FLIP = "never_flip"
    SET_ASIDE = "set_aside"
    DELETE = "delete"
    MOVE = "move"
    COPY = "copy"
    AUTO_CAPTION = "auto_caption"
    READ_FILES = "read_files"


CAPTION_ACTIONS = frozenset(
    {
        EditAction.ADD_TRIGGER,
        EditAction.PREPEND,
        EditAction.APPEND,
        EditAction.REPLACE,
        EditAction.REMOVE_TAG,
        EditAction.REMOVE_WORDS,
        EditAction.WRITE,
        EditAction.FILE_NAMES,
        EditAction.AUTO_CAPTION,
        EditAction.READ_FILES,
    }
)
SETTINGS = {
    EditAction.ADD_TRIGGER: ("text", "at_end", "sets_trigger"),
    EditAction.PREPEND: ("text", "with_space"),
    EditAction.APPEND: ("text", "with_space"),
    EditAction.REPLACE: ("find", "replacement", "is_regex", "match_case", "whole_words"),
    EditAction.REMOVE_TAG: ("text",),
    EditAction.REMOVE_WORDS: ("text",),
    EditAction.WRITE: ("text",),
    EditAction.FILE_NAMES: (),
    EditAction.REPEATS: ("repeats",),
    EditAction.NEVER_FLIP: ("value",),
    EditAction.SET_ASIDE: ("value",),
    EditAction.DELETE: (),
    EditAction.MOVE: ("dataset_id",),
    EditAction.COPY: ("dataset_id",),
    EditAction.AUTO_CAPTION: ("text",),
    EditAction.READ_FILES: (),
}
"""The settings of each action; those that change captions also have `kind`."""
OF_FIRST_CAPTION = frozenset({EditAction.WRITE, EditAction.FILE_NAMES})
"""Actions that are for the first caption of each image, unless a kind is named."""
TO_DATASETS = frozenset({EditAction.MOVE, EditAction.COPY})
MADE_ELSEWHERE = frozenset({EditAction.AUTO_CAPTION, EditAction.READ_FILES})
"""Steps to undo that no bulk edit makes."""


@dataclass(frozen=True)
class Edit:
    """An action with its settings; those of other actions are ignored.

    `text`: the trigger word, the text to put before or after, the tag or words to remove, or the
    new caption; of AUTO_CAPTION, who wrote them. `find` is a regular expression if `is_regex`, and
    `replacement` may then name its groups (`\\1`, `\\g<name>`). `value`: of never flip and set
    aside, False takes it back. `kind`: only captions of this kind; None: all captions of an image,
    and the first one for WRITE and FILE_NAMES. `sets_trigger`: the text becomes the trigger word of
    the dataset, too.
    """

    action: EditAction
    text: str = ""
    find: str = ""
    replacement: str = ""
    is_regex: bool = False
    match_case: bool = False
    whole_words: bool = False
    at_end: bool = False
    sets_trigger: bool = False
    with_space: bool = False
    repeats: int = 1
    value: bool = True
    dataset_id: int | None = None
    kind: CaptionKind | None = None

    @property
    def changes_captions(self) -> bool:
        """True if the action changes captions, not the images themselves."""
        return self.action in CAPTION_ACTIONS

    def settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "action" and getattr(self, field.name) != field.default
        }


def check_edit(edit: Edit) -> Edit:
    """The edit without settings of other actions, if it can be carried out.

    Raises InvalidInput with the field that is wrong.
    """
    if edit.action in MADE_ELSEWHERE:
        raise invalid_field("action", "Captions of a model or of files are not edited in bulk.")
    needs = {
        EditAction.ADD_TRIGGER: "Enter the trigger word to add.",
        EditAction.PREPEND: "Enter the text to put before the captions.",
        EditAction.APPEND: "Enter the text to put after the captions.",
        EditAction.REMOVE_TAG: "Enter the tag to remove.",
        EditAction.REMOVE_WORDS: "Enter the words to remove.",
    }
    if edit.action in needs and not edit.text.strip(" ,"):
        raise invalid_field("text", needs[edit.action])
    if edit.action is EditAction.REMOVE_TAG and "," in edit.text.strip(" ,"):
        raise invalid_field("text", "Enter one tag; tags have no comma.")
    if edit.action is EditAction.REPLACE:
        _check_find(edit)
    if edit.action is EditAction.REPEATS and not 1 <= edit.repeats <= MAX_REPEATS:
        raise invalid_field("repeats", f"Enter a number of repeats from 1 to {MAX_REPEATS}.")
    if edit.action in TO_DATASETS and edit.dataset_id is None:
        raise invalid_field("dataset_id", "Choose the other dataset.")
    if edit.sets_trigger and (len(edit.text.strip()) > TRIGGER_LENGTH or "," in edit.text):
        rule = f"A trigger word has at most {TRIGGER_LENGTH} characters and no comma."
        raise invalid_field("text", f"{rule} Shorten it, or leave that of the dataset as it is.")
    if len(edit.text) > MAX_CHARACTERS:
        raise invalid_field("text", f"Enter at most {MAX_CHARACTERS:,} characters.")
    used = SETTINGS[edit.action] + (("kind",) if edit.changes_captions else ())
    return Edit(edit.action, **{name: getattr(edit, name) for name in used})


def _check_find(edit: Edit) -> None:
    if not edit.find:
        raise invalid_field("find", "Enter the text to find.")
    limit = MAX_PATTERN if edit.is_regex else MAX_CHARACTERS
    for field, text in (("find", edit.find), ("replacement", edit.replacement)):
        if len(text) > limit:
            raise invalid_field(field, f"Enter at most {limit:,} characters.")


def describe_edit(edit: Edit, changed: int, *, target: str = "") -> str:
    """The result of an edit as a sentence without a period: “Added “ink” to 41 captions”.

    `target`: the name of the other dataset of a move or a copy.
    """
    captions, images = plural(changed, "caption"), plural(changed, "image")
    text = _quote(edit.text)
    flips = "No more flips of" if edit.value else "Allowed flips of"
    aside = "Set aside" if edit.value else "Brought back"
    added = f"Added {text} to {captions}"
    if edit.sets_trigger:
        added = f"Made {text} the trigger word" + (f", added to {captions}" if changed else "")
    return {
        EditAction.ADD_TRIGGER: added,
        EditAction.PREPEND: f"Put {text} before {captions}",
        EditAction.APPEND: f"Put {text} after {captions}",
        EditAction.REPLACE: f"Replaced {_quote(edit.find)} in {captions}",
        EditAction.REMOVE_TAG: f"Removed {text} from {captions}",
        EditAction.REMOVE_WORDS: f"Removed {text} from {captions}",
        EditAction.WRITE: f"Replaced {captions}",
        EditAction.FILE_NAMES: f"Filled {captions} from file names",
        EditAction.REPEATS: f"Set {images} to {plural(edit.repeats, 'repeat')}",
        EditAction.NEVER_FLIP: f"{flips} {images}",
        EditAction.SET_ASIDE: f"{aside} {images}",
        EditAction.DELETE: f"Deleted {images}",
        EditAction.MOVE: f"Moved {images} to “{target}”",
        EditAction.COPY: f"Copied {images} to “{target}”",
        EditAction.AUTO_CAPTION: f"Wrote {captions} with {text}",
        EditAction.READ_FILES: f"Read {captions} from files",
    }[edit.action]


def describe_plan(edit: Edit, changed: int, *, target: str = "") -> str:
    """A heading that says what an edit will do: “Changes 41 captions”."""
    if edit.changes_captions:
        more = " and the trigger word of the dataset" if edit.sets_trigger else ""
        return f"Changes {plural(changed, 'caption')}{more}"
    images = plural(changed, "image")
    flips = "Never flips" if edit.value else "Allows flips of"
    return {
        EditAction.REPEATS: f"Sets {images} to {plural(edit.repeats, 'repeat')}",
        EditAction.NEVER_FLIP: f"{flips} {images}",
        EditAction.SET_ASIDE: f"{'Sets aside' if edit.value else 'Brings back'} {images}",
        EditAction.DELETE: f"Deletes {images}",
        EditAction.MOVE: f"Moves {images} to “{target}”",
        EditAction.COPY: f"Copies {images} to “{target}”",
    }[edit.action]


def _quote(text: str) -> str:
    text = text.strip()
    return f"“{text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + '…'}”"
