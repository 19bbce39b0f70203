"""Bulk edits in forms and addresses: which images, what to do, and what the preview showed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import ImmutableMultiDict

from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.selection import Seen, Selection, read_ids, read_seen
from app.registry.datasets.filters import ImageFilter
from app.registry.errors import InvalidInput
from worker.core.words import CaptionKind

Sent = ImmutableMultiDict[str, Any]


@dataclass(frozen=True)
class Choice:
    """An action as the page offers it."""

    key: str
    label: str
    action: EditAction
    value: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """The settings that its form asks for."""
        return tuple(name for name in self.action.settings if name != "value")


CHOICES = (
    Choice("add_trigger", "Add trigger word", EditAction.ADD_TRIGGER),
    Choice("replace", "Find and replace", EditAction.REPLACE),
    Choice("remove_words", "Remove words", EditAction.REMOVE_WORDS),
    Choice("remove_tag", "Remove a tag", EditAction.REMOVE_TAG),
    Choice("prepend", "Put text before", EditAction.PREPEND),
    Choice("append", "Put text after", EditAction.APPEND),
    Choice("write", "Replace the whole caption", EditAction.WRITE),
    Choice("file_names", "From file names", EditAction.FILE_NAMES),
    Choice("repeats", "Repeats", EditAction.REPEATS),
    Choice("never_flip", "Never flip", EditAction.NEVER_FLIP),
    Choice("may_flip", "Allow flips", EditAction.NEVER_FLIP, value=False),
    Choice("set_aside", "Set aside", EditAction.SET_ASIDE),
    Choice("bring_back", "Bring back", EditAction.SET_ASIDE, value=False),
    Choice("copy", "Copy to a dataset", EditAction.COPY),
    Choice("move", "Move to a dataset", EditAction.MOVE),
    Choice("delete", "Delete", EditAction.DELETE),
)
CHOICE = {choice.key: choice for choice in CHOICES}
ON_THE_BAR = 3  # the first ones; the others are in its menu
FIRST_ROWS = 6  # of a preview, which fit into the panel; a button shows more of them


@dataclass(frozen=True)
class EditForm:
    """A bulk edit as it was sent.

    `seen` is None before a preview, `shown` are the images on the page. `rows`: of the preview.
    `is_new`: the form is opened, nobody has typed into it yet.
    """

    choice: Choice
    edit: Edit
    selection: Selection
    filter_query: str = ""
    seen: Seen | None = None
    shown: frozenset[int] = frozenset()
    rows: int = FIRST_ROWS
    is_new: bool = False


def read_edit_form(sent: Sent) -> EditForm:
    """The edit in a form. Raises InvalidInput for an action or a selection that is none.

    `open` is the action of a button that opens its form; settings of another one are ignored.
    """
    opened = _text(sent, "open")
    choice = CHOICE.get(opened or _text(sent, "do"))
    if choice is None:
        raise InvalidInput("Choose what to do with the images.", fields={"do": "Unknown."})
    seen, filter_query = _text(sent, "seen"), _text(sent, "filter")
    return EditForm(
        choice,
        _read_edit(ImmutableMultiDict() if opened else sent, choice),
        _read_selection(sent, filter_query),
        filter_query,
        read_seen(seen) if seen and not opened else None,
        _read_shown_ids(sent),
        max(FIRST_ROWS, _number(sent, "rows", FIRST_ROWS)),
        bool(opened),
    )


def _read_selection(sent: Sent, filter_query: str) -> Selection:
    """The images in a form; with `all`, `images` are those left out.

    Boxes are sent without scripts only, with the images that are `here`, on the page.
    """
    all_matching = bool(_text(sent, "all"))
    images, checked = read_ids(_text(sent, "images")), read_ids(" ".join(_texts(sent, "image")))
    boxes = read_ids(_text(sent, "here")) - checked if all_matching else checked
    return Selection(images | boxes, all_matching, ImageFilter.from_text(filter_query))


def asked_selection(asked: Sent) -> Selection:
    """The selection that an address asks for: all that match its filter, or nothing."""
    if _text(asked, "select") != "all":
        return Selection()
    wanted, _ = ImageFilter.parse(asked.multi_items())
    return Selection(all_matching=True, wanted=wanted)


def asked_edit(asked: Sent) -> EditForm | None:
    """The form that an address asks for by `edit`, an action, and its settings; None: no form.

    Without `images`, it is for all images that match the filter.
    """
    choice = CHOICE.get(_text(asked, "edit"))
    if choice is None:
        return None
    wanted, _ = ImageFilter.parse(asked.multi_items())
    try:
        images = read_ids(_text(asked, "images"))
    except InvalidInput:
        images = frozenset()
    selection = Selection(images, all_matching=not images, wanted=wanted)
    return EditForm(choice, _read_edit(asked, choice), selection, wanted.query, is_new=True)


def _read_edit(sent: Sent, choice: Choice) -> Edit:
    kind, dataset_id = _text(sent, "kind"), _number(sent, "dataset_id", 0)
    return Edit(
        choice.action,
        text=_text(sent, "text"),
        find=_text(sent, "find"),
        replacement=_text(sent, "replacement"),
        is_regex=bool(_text(sent, "is_regex")),
        match_case=bool(_text(sent, "match_case")),
        whole_words=bool(_text(sent, "whole_words")),
        at_end=_text(sent, "at_end") == "1",
        sets_trigger=bool(_text(sent, "sets_trigger")),
        with_space=_text(sent, "with_space") == "1",
        repeats=_number(sent, "repeats", 0 if "repeats" in sent else 2),
        value=choice.value,
        dataset_id=dataset_id or None,
        kind=CaptionKind(kind) if kind in set(CaptionKind) else None,
    )


def _read_shown_ids(sent: Sent) -> frozenset[int]:
    with contextlib.suppress(InvalidInput):
        return read_ids(_text(sent, "shown"))
    return frozenset()


def _texts(sent: Sent, name: str) -> Iterable[str]:
    return (value for value in sent.getlist(name) if isinstance(value, str))


def _text(sent: Sent, name: str) -> str:
    return next(iter(_texts(sent, name)), "")


def _number(sent: Sent, name: str, default: int) -> int:
    text = _text(sent, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
