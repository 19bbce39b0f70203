"""The arguments of `brushwork datasets …`, apart from the work: parsing them loads no database."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from pathlib import Path

ACTIONS = {
    "list": "List the datasets.",
    "show": "Show one dataset: its images, captions and versions.",
    "export": "Write a dataset as a ZIP archive with its captions.",
    "check": "Check a dataset before training; exit with 3 if something should be changed.",
}
"""Each is a module of `app.cli.datasets`, named `<action>_command`."""


def add_actions(command: ArgumentParser) -> None:
    """Add the actions of `brushwork datasets` to its parser."""
    actions = command.add_subparsers(
        dest="action", title="actions", metavar="ACTION", required=True
    )
    for name, help_text in ACTIONS.items():
        action = actions.add_parser(name, help=help_text, description=help_text)
        ADD_ARGUMENTS[name](action)
        action.add_argument(  # SUPPRESS keeps the value that was given before the action
            "--data-dir",
            type=Path,
            default=SUPPRESS,
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


ADD_ARGUMENTS = {
    "list": _add_list,
    "show": _add_show,
    "export": _add_export,
    "check": _add_show,
}
