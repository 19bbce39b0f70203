"""The arguments of `brushwork datasets …`, apart from the work: parsing them loads no database."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from pathlib import Path

from worker.core.captioning.words import CaptionMode, ProviderKind

ACTIONS = {
    "list": "List the datasets.",
    "show": "Show one dataset: its images, captions and versions.",
    "export": "Write a dataset as a ZIP archive with its captions.",
    "import": "Import images with captions, folders, or ZIP archives as from export.",
    "caption": "Have a model caption the images; --apply writes the captions.",
    "check": "Check a dataset before training; exit with 3 if something should be changed.",
    "captions": "Show the captions of one image, and what they said before.",
    "write": "Write a caption of one image, or set its share.",
    "restore": "Let a caption say again what it said in an earlier version.",
    "focus": "Show or set the point of an image that training keeps when it crops.",
    "edit": "Change many images at once; shows the changes, and makes them with --apply.",
    "undo": "Undo the last edit of a dataset, or the one with this number.",
    "duplicate": "Copy a dataset with its images and captions.",
    "compare": "Show what differs between two versions, or from a version to now.",
}
MODULES = {
    **dict.fromkeys(("list", "show", "check", "compare"), "listing"),
    **dict.fromkeys(("export", "import", "duplicate"), "transfer"),
    **dict.fromkeys(("captions", "write", "restore", "focus"), "one_image"),
    **dict.fromkeys(("edit", "undo"), "edits"),
    "caption": "captioning",
}
"""The module of `app.cli.datasets` in which each action is a function."""


EDITS = (
    *("add-trigger", "prepend", "append", "replace", "remove-tag", "remove-words", "write"),
    "file-names",
    *("repeats", "never-flip", "set-aside", "delete", "move", "copy"),
)
"""The actions of `brushwork datasets edit`: the members of `EditAction`."""


KINDS = ("long", "short", "tags")
"""The members of `CaptionKind`."""


def add_actions(command: ArgumentParser) -> None:
    """Add the actions of `brushwork datasets` to its parser."""
    actions = command.add_subparsers(
        dest="action", title="actions", metavar="ACTION", required=True
    )
    for name, help_text in ACTIONS.items():
        action = actions.add_parser(name, help=help_text, description=help_text)
        ADD_ARGUMENTS[name](action)
        add_data_dir(action)


def add_data_dir(action: ArgumentParser) -> None:
    """Let the data folder also be named after an action."""
    action.add_argument(
        "--data-dir",
        type=Path,
        default=SUPPRESS,  # keeps the value that was given before the action
        metavar="FOLDER",
        help="folder for database, images, logs",
    )


def _add_json(action: ArgumentParser) -> None:
    action.add_argument("--json", action="store_true", help="print JSON, for other programs")


def _add_slug(action: ArgumentParser) -> None:
    action.add_argument("slug", help="which dataset; `brushwork datasets list` lists them")


def _add_list(action: ArgumentParser) -> None:
    action.add_argument("words", nargs="?", help="only datasets with these words")
    _add_json(action)


def _add_show(action: ArgumentParser) -> None:
    _add_slug(action)
    _add_json(action)


def _add_export(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("--version", type=int, help="a pinned version; `show` lists them")
    action.add_argument("-o", "--output", type=Path, metavar="PATH", help="file or folder")


def _add_import(action: ArgumentParser) -> None:
    action.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")
    action.add_argument("--into", metavar="SLUG", help="add to this dataset, not to a new one")
    action.add_argument("--name", help="name of the new dataset")
    action.add_argument("--trigger-word", metavar="WORD", help="its trigger word")


def _add_caption(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument(
        "--provider",
        choices=[kind.value for kind in ProviderKind],
        default=ProviderKind.BUILTIN.value,
        help="who writes the captions (builtin)",
    )
    action.add_argument("--model", default="", help="of a server (the configured one), or local")
    action.add_argument("--address", default="", metavar="URL", help="another, allowed address")
    action.add_argument("--prompt", default="", help="what captions should describe")
    action.add_argument("--do-not-name", metavar="WORDS", help="words to take out, by commas")
    action.add_argument(
        "--mode",
        choices=[mode.value for mode in CaptionMode],
        default=CaptionMode.FILL.value,
        help="what happens to captions that are there (fill: they stay)",
    )
    _add_kind(action)
    action.add_argument("--images", metavar="IDS", help="only these, such as '3 5 8-12'")
    action.add_argument("--above", type=share, help="take guesses too: the least confidence, 0.5")
    action.add_argument("--preview", type=int, metavar="ID", help="try one image, keep nothing")
    action.add_argument("--apply", action="store_true", help="write the captions, in one step")


def share(text: str) -> float:
    """A number from 0 to 1. Raises ValueError for another text, which argparse reports."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


def _add_edit(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("do", choices=EDITS, metavar="ACTION", help=", ".join(EDITS))
    action.add_argument("text", nargs="?", help="its text or number; default: the trigger word")
    add = action.add_argument
    add("--replacement", default="", metavar="TEXT", help="what replaces the text")
    add("--regex", action="store_true", help="the text to replace is a regular expression")
    add("--match-case", action="store_true", help="“Fox” is not “fox”")
    add("--whole-words", action="store_true", help="“fox” is not found in “foxglove”")
    add("--at-end", action="store_true", help="add the trigger word at the end")
    add("--set-trigger", action="store_true", help="also make it the dataset's trigger word")
    add("--with-space", action="store_true", help="join text by a space, not by a comma")
    add("--off", action="store_true", help="take never-flip or set-aside back")
    add("--to", metavar="SLUG", help="the dataset to move or copy to")
    add("--filter", default="", metavar="QUERY", help="only images that match, as in the address")
    add("--kind", choices=KINDS, help="only captions of this kind (all of an image)")
    add("--images", default="", metavar="IDS", help="only these images, such as “3 5 8-12”")
    add("--apply", action="store_true", help="make the changes")


def _add_undo(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("step", nargs="?", type=int, help="number of the edit")


def _add_image(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("image", help="its number or file name; `show` lists them")


def _add_captions(action: ArgumentParser) -> None:
    _add_image(action)
    _add_json(action)


def _add_kind(action: ArgumentParser) -> None:
    action.add_argument("--kind", choices=KINDS, help="which caption (the first one)")


def _add_write(action: ArgumentParser) -> None:
    _add_image(action)
    action.add_argument("text", nargs="?", help="the caption")
    _add_kind(action)
    action.add_argument("--share", type=int, help="how often it is used among the others (1)")


def _add_restore(action: ArgumentParser) -> None:
    _add_image(action)
    action.add_argument("version", type=int, help="the version; `captions` lists them")
    _add_kind(action)


def _add_focus(action: ArgumentParser) -> None:
    _add_image(action)
    action.add_argument(
        "point", nargs="*", type=float, help="from the left and from the top, each 0 to 1"
    )
    action.add_argument("--center", action="store_true", help="take the focus point away")


def _add_duplicate(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("--name", help="name of the copy")


def _add_compare(action: ArgumentParser) -> None:
    _add_slug(action)
    action.add_argument("before", type=int, help="the earlier version; `show` lists them")
    action.add_argument(
        "after", nargs="?", type=int, help="the later one; without it, as it is now"
    )
    _add_json(action)


ADD_ARGUMENTS = {
    "list": _add_list,
    "show": _add_show,
    "export": _add_export,
    "import": _add_import,
    "caption": _add_caption,
    "check": _add_show,
    "captions": _add_captions,
    "write": _add_write,
    "restore": _add_restore,
    "focus": _add_focus,
    "edit": _add_edit,
    "undo": _add_undo,
    "duplicate": _add_duplicate,
    "compare": _add_compare,
}
