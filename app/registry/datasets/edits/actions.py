"""The action of a bulk edit and its settings, checked and described in sentences."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.errors import invalid_field
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH
from app.registry.wording import plural
from worker.core.words import CaptionKind

MAX_PATTERN = 500  # characters of a regular expression
OF_DATASET = 0  # in place of the id of an image, in the row of a step that changed the dataset
SHOWN_TEXT = 40  # characters of a text that a sentence repeats


class EditAction(StrEnum):
    """The action of a bulk edit on the selected images.

    `settings`: those of an `Edit` that it uses; if it changes captions, also `kind`. `done` and
    `plan`: sentences without a period on what it did, and on what it will do.
    """

    settings: tuple[str, ...]
    done: str
    plan: str

    def __new__(
        cls,
        word: str,
        settings: tuple[str, ...] = (),
        done: str = "",
        plan: str = "Changes {captions}",
    ) -> Self:
        """A member with its facts."""
        member = str.__new__(cls, word)
        member._value_, member.settings, member.done, member.plan = word, settings, done, plan
        return member

    ADD_TRIGGER = "add_trigger", ("text", "at_end", "sets_trigger"), "Added {text} to {captions}"
    PREPEND = "prepend", ("text", "with_space"), "Put {text} before {captions}"
    APPEND = "append", ("text", "with_space"), "Put {text} after {captions}"
    REPLACE = (
        "replace",
        ("find", "replacement", "is_regex", "match_case", "whole_words"),
        "Replaced {find} in {captions}",
    )
    REMOVE_TAG = "remove_tag", ("text",), "Removed {text} from {captions}"
    REMOVE_WORDS = "remove_words", ("text",), "Removed {text} from {captions}"
    WRITE = "write", ("text",), "Replaced {captions}"
    FILE_NAMES = "file_names", (), "Filled {captions} from file names"
    REPEATS = "repeats", ("repeats",), "Set {images} to {repeats}", "Sets {images} to {repeats}"
    NEVER_FLIP = "never_flip", ("value",), "{stopped_flips} {images}", "{stops_flips} {images}"
    SET_ASIDE = "set_aside", ("value",), "{took_aside} {images}", "{takes_aside} {images}"
    DELETE = "delete", (), "Deleted {images}", "Deletes {images}"
    MOVE = "move", ("dataset_id",), "Moved {images} to {target}", "Moves {images} to {target}"
    COPY = "copy", ("dataset_id",), "Copied {images} to {target}", "Copies {images} to {target}"
    AUTO_CAPTION = "auto_caption", ("text",), "Wrote {captions} with {text}"
    READ_FILES = "read_files", (), "Read {captions} from files"

    @property
    def changes_captions(self) -> bool:
        """True if it changes captions, not the images themselves."""
        return "{captions}" in self.done


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
        return self.action.changes_captions

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
    used = edit.action.settings + (("kind",) if edit.changes_captions else ())
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
    if edit.sets_trigger:
        added = f", added to {plural(changed, 'caption')}" if changed else ""
        return f"Made {_quote(edit.text)} the trigger word{added}"
    return _filled(edit.action.done, edit, changed, target)


def describe_plan(edit: Edit, changed: int, *, target: str = "") -> str:
    """A heading that says what an edit will do: “Changes 41 captions”."""
    more = " and the trigger word of the dataset" if edit.sets_trigger else ""
    return _filled(edit.action.plan, edit, changed, target) + more


def _filled(sentence: str, edit: Edit, changed: int, target: str) -> str:
    return sentence.format(
        captions=plural(changed, "caption"),
        images=plural(changed, "image"),
        repeats=plural(edit.repeats, "repeat"),
        text=_quote(edit.text),
        find=_quote(edit.find),
        target=f"“{target}”",
        stopped_flips="No more flips of" if edit.value else "Allowed flips of",
        stops_flips="Never flips" if edit.value else "Allows flips of",
        took_aside="Set aside" if edit.value else "Brought back",
        takes_aside="Sets aside" if edit.value else "Brings back",
    )


def _quote(text: str) -> str:
    text = text.strip()
    return f"“{text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + '…'}”"
