"""Commands as values: tables say what each command is for, and which arguments it has."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _ActionsContainer, _SubParsersAction

Add = Callable[[Any], object]
"""Adds arguments to a parser."""


def argument(*names: str, **settings: Any) -> Add:
    """An argument, as `ArgumentParser.add_argument` takes it."""

    def add(parser: _ActionsContainer) -> None:
        parser.add_argument(*names, **settings)

    return add


def flag(name: str, help_text: str) -> Add:
    """A flag without a value."""
    return argument(name, action="store_true", help=help_text)


def one_of(*arguments: Add, required: bool = False) -> Add:
    """Arguments of which only one can be given."""

    def add(parser: ArgumentParser) -> None:
        group = parser.add_mutually_exclusive_group(required=required)
        for add_argument in arguments:
            add_argument(group)

    return add


DATA_DIR = argument(
    "--data-dir",
    type=Path,
    default=SUPPRESS,  # one after an action keeps the value that was given before it
    metavar="FOLDER",
    help="folder for database, images, logs",
)
JSON = flag("--json", "print JSON, for other programs")


class Command:
    """What a command or an action of it is for, and its arguments.

    `settings`: of its parser.
    """

    def __init__(self, about: str, *arguments: Add, **settings: Any) -> None:
        self.about = about
        self.arguments = arguments
        self.settings = settings

    def add_to(self, commands: _SubParsersAction[Any], name: str, **defaults: str) -> None:
        """Add its parser; `defaults`: of its arguments."""
        parser = commands.add_parser(name, help=self.about, description=self.about, **self.settings)
        parser.set_defaults(**defaults)
        for add in (*self.arguments, DATA_DIR):
            add(parser)


def actions(table: Mapping[str, Command]) -> Add:
    """The actions of a command, one of which has to be named."""

    def add(parser: ArgumentParser) -> None:
        names = parser.add_subparsers(
            dest="action", title="actions", metavar="ACTION", required=True
        )
        for name, action in table.items():
            action.add_to(names, name)

    return add
