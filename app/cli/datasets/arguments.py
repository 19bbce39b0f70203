"""The arguments of `brushwork datasets …`, apart from the work: parsing them loads no database."""

from __future__ import annotations

from pathlib import Path

from app.cli.arguments import JSON, Command, argument, flag
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind, values

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


def share(text: str) -> float:
    """A number from 0 to 1. Raises ValueError for another text, which argparse reports."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


SLUG = argument("slug", help="which dataset; `brushwork datasets list` lists them")
IMAGE = argument("image", help="its number or file name; `show` lists them")
KIND = argument("--kind", choices=values(CaptionKind), help="which caption (the first one)")
ACTIONS = {
    "list": Command(
        "List the datasets.",
        argument("words", nargs="?", help="only datasets with these words"),
        JSON,
    ),
    "show": Command("Show one dataset: its images, captions and versions.", SLUG, JSON),
    "export": Command(
        "Write a dataset as a ZIP archive with its captions.",
        SLUG,
        argument("--version", type=int, help="a pinned version; `show` lists them"),
        argument("-o", "--output", type=Path, metavar="PATH", help="file or folder"),
    ),
    "import": Command(
        "Import images with captions, folders, or ZIP archives as from export.",
        argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders"),
        argument("--into", metavar="SLUG", help="add to this dataset, not to a new one"),
        argument("--name", help="name of the new dataset"),
        argument("--trigger-word", metavar="WORD", help="its trigger word"),
    ),
    "caption": Command(
        "Have a model caption the images; --apply writes the captions.",
        SLUG,
        argument(
            "--provider",
            choices=values(ProviderKind),
            default=ProviderKind.BUILTIN.value,
            help="who writes the captions (builtin)",
        ),
        argument("--model", default="", help="of a server (the configured one), or local"),
        argument("--address", default="", metavar="URL", help="another, allowed address"),
        argument("--prompt", default="", help="what captions should describe"),
        argument("--do-not-name", metavar="WORDS", help="words to take out, by commas"),
        argument(
            "--mode",
            choices=values(CaptionMode),
            default=CaptionMode.FILL.value,
            help="what happens to captions that are there (fill: they stay)",
        ),
        KIND,
        argument("--images", metavar="IDS", help="only these, such as '3 5 8-12'"),
        argument("--above", type=share, help="take guesses too: the least confidence, 0.5"),
        argument("--preview", type=int, metavar="ID", help="try one image, keep nothing"),
        flag("--apply", "write the captions, in one step"),
    ),
    "check": Command(
        "Check a dataset before training; exit with 3 if something should be changed.", SLUG, JSON
    ),
    "captions": Command(
        "Show the captions of one image, and what they said before.", SLUG, IMAGE, JSON
    ),
    "write": Command(
        "Write a caption of one image, or set its share.",
        SLUG,
        IMAGE,
        argument("text", nargs="?", help="the caption"),
        KIND,
        argument("--share", type=int, help="how often it is used among the others (1)"),
    ),
    "restore": Command(
        "Let a caption say again what it said in an earlier version.",
        SLUG,
        IMAGE,
        argument("version", type=int, help="the version; `captions` lists them"),
        KIND,
    ),
    "focus": Command(
        "Show or set the point of an image that training keeps when it crops.",
        SLUG,
        IMAGE,
        argument(
            "point", nargs="*", type=float, help="from the left and from the top, each 0 to 1"
        ),
        flag("--center", "take the focus point away"),
    ),
    "edit": Command(
        "Change many images at once; shows the changes, and makes them with --apply.",
        SLUG,
        argument("do", choices=EDITS, metavar="ACTION", help=", ".join(EDITS)),
        argument("text", nargs="?", help="its text or number; default: the trigger word"),
        argument("--replacement", default="", metavar="TEXT", help="what replaces the text"),
        flag("--regex", "the text to replace is a regular expression"),
        flag("--match-case", "“Fox” is not “fox”"),
        flag("--whole-words", "“fox” is not found in “foxglove”"),
        flag("--at-end", "add the trigger word at the end"),
        flag("--set-trigger", "also make it the dataset's trigger word"),
        flag("--with-space", "join text by a space, not by a comma"),
        flag("--off", "take never-flip or set-aside back"),
        argument("--to", metavar="SLUG", help="the dataset to move or copy to"),
        argument(
            "--filter",
            default="",
            metavar="QUERY",
            help="only images that match, as in the address",
        ),
        argument(
            "--kind",
            choices=values(CaptionKind),
            help="only captions of this kind (all of an image)",
        ),
        argument(
            "--images", default="", metavar="IDS", help="only these images, such as “3 5 8-12”"
        ),
        flag("--apply", "make the changes"),
    ),
    "undo": Command(
        "Undo the last edit of a dataset, or the one with this number.",
        SLUG,
        argument("step", nargs="?", type=int, help="number of the edit"),
    ),
    "duplicate": Command(
        "Copy a dataset with its images and captions.",
        SLUG,
        argument("--name", help="name of the copy"),
    ),
    "compare": Command(
        "Show what differs between two versions, or from a version to now.",
        SLUG,
        argument("before", type=int, help="the earlier version; `show` lists them"),
        argument("after", nargs="?", type=int, help="the later one; without it, as it is now"),
        JSON,
    ),
}
