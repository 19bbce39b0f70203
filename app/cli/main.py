"""The `brushwork` command: reads flags and settings, then runs one module of `app.cli`."""

from __future__ import annotations

import gc
import getpass
import os
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.adapter_files.arguments import TOOLS, tool_parser
from app.cli.datasets.arguments import add_actions, add_data_dir
from app.registry.actor import set_process_actor
from app.registry.errors import AppError, UnusableDatabase
from app.registry.job_kinds.queues import Queue
from worker.core.starter.examples import EXAMPLES
from worker.core.words import FileFormat, WeightDtype, values

if TYPE_CHECKING:
    from app.registry.config import Settings

OUTPUT_MODULES = frozenset({"adapter_files", "demo", "train"})
OUTPUT_COMMANDS = frozenset({"export"})
OUTPUT_ACTIONS = frozenset({("datasets", "export")})
"""They make files to pass on; all others write to the data folder, or an archive of it."""
PRIVATE_UMASK = 0o077
SETTING_FLAGS = ("host", "port", "data_dir", "open_browser")


class CommandParser(ArgumentParser):
    """Parser of a command; a shortened flag is refused, or it could be read as another one.

    With `forwards`, all arguments, even `--help`, are passed on to another program as `words`. With
    `tools`, the arguments are parsed by the tool that the first one names.
    """

    def __init__(
        self, *, forwards: bool = False, tools: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings, add_help=not forwards, allow_abbrev=False)
        self._forwards = forwards
        self._tools = tools or {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The namespace and the unknown arguments."""
        if args and args[0] in self._tools:
            return tool_parser(args[0], ArgumentParser).parse_known_args(args[1:], namespace)
        if not self._forwards:
            return super().parse_known_args(args, namespace)
        namespace = namespace or Namespace(**self._defaults)
        namespace.words = list(args)
        return namespace, []


class ShowVersion(Action):
    """Print the version of Brushwork and exit; read only when asked for."""

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        from app.registry.code_version import code_version

        print(f"Brushwork {code_version()}")
        parser.exit()


class CommandParsers:
    """The main parser and its commands; each has the name of its module in `app.cli`."""

    def __init__(self) -> None:
        self.parser = ArgumentParser(
            "brushwork",
            description="Train, try and keep image-style LoRAs in the browser.",
            allow_abbrev=False,
        )
        self.parser.add_argument(
            "--version", action=ShowVersion, nargs=0, help="show the version and exit"
        )
        self._commands = self.parser.add_subparsers(
            dest="command",
            title="commands",
            metavar="COMMAND",
            required=True,
            parser_class=CommandParser,
        )

    def add(
        self, name: str, help_text: str, *, module: str = "", **settings: Any
    ) -> ArgumentParser:
        """Add a command with the common flags."""
        command: ArgumentParser = self._commands.add_parser(
            name, help=help_text, description=help_text, **settings
        )
        command.set_defaults(module=module or name)
        command.add_argument(
            "--data-dir", type=Path, metavar="FOLDER", help="folder for database, images, logs"
        )
        return command

    def forward(self, name: str, help_text: str, **settings: str) -> None:
        """Add a command that forwards its arguments to another program."""
        command = self._commands.add_parser(name, help=help_text, forwards=True)
        command.set_defaults(**{"module": name, **settings})


def build_parser() -> ArgumentParser:
    """Build the parser of all commands."""
    commands = CommandParsers()
    _add_processes(commands)
    _add_work(commands)
    _add_registry(commands)
    return commands.parser


def _add_processes(commands: CommandParsers) -> None:
    serve = commands.add(
        "serve", "Start everything on this machine: broker, web server and workers."
    )
    web = commands.add("web", "Start only the web server.")
    for command in (serve, web):
        command.add_argument("--host", help="address to listen on (127.0.0.1)")
        command.add_argument("--port", type=int, help="port to listen on (8188; 0: a free one)")
    serve.add_argument(
        "--no-browser",
        dest="open_browser",
        action="store_const",
        const=False,
        help="do not open a browser",
    )
    web.add_argument("--fd", type=int, help="a listening socket inherited from a supervisor")
    web.add_argument("--after-fd", type=int, help="an inherited pipe; wait until it is closed")
    worker = commands.add("worker", "Start one worker.")
    worker.add_argument("--queue", choices=values(Queue), required=True, help="what it works on")
    worker.add_argument(
        "--libraries",
        metavar="SOCKET",
        help="a supervisor's process that forks trainers and io jobs",
    )
    commands.add("migrate", "Bring the database up to date.")
    doctor = commands.add("doctor", "Show the effective settings and check what they name.")
    doctor.add_argument(
        "--queue", choices=values(Queue), help="only: is a worker of this queue here?"
    )


def _add_work(commands: CommandParsers) -> None:
    for name, core, help_text in (
        ("train", "training", "Train an adapter from a folder of images, without a server."),
        ("evaluate", "evaluate_folder", "Say which checkpoint of a training on a folder to keep."),
    ):
        commands.forward(name, help_text, module="train", core=f"worker.core.{core}")
    commands.forward("name", "Name what images show.")
    demo = commands.add("demo", "Run the whole workflow through the REST API and judge the result.")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="FOLDER",
        help="folder for the results (demo)",
    )
    demo.add_argument(
        "--style",
        action="append",
        choices=EXAMPLES,
        help="an example style to train, repeatable (chalkboard)",
    )
    demo.add_argument(
        "--preset",
        default="quick",
        metavar="PRESET",
        help="quick, balanced or thorough training (quick)",
    )


def _add_registry(commands: CommandParsers) -> None:
    adapters = commands.add(
        "adapters",
        "List the adapters, or work on LoRA files.",
        tools=TOOLS,
        formatter_class=RawDescriptionHelpFormatter,
        epilog="tools for files, without the registry (`brushwork adapters TOOL --help`):\n"
        + "\n".join(f"  {name:<10} {help_text}" for name, help_text in TOOLS.items()),
    )
    adapters.add_argument("words", nargs="?", help="only adapters with these words")
    export = commands.add("export", "Write an adapter as a file.", module="adapters")
    export.add_argument("slug", help="which one; `brushwork adapters` lists them")
    export.add_argument("--format", choices=values(FileFormat), default="kohya")
    export.add_argument("--dtype", choices=values(WeightDtype), default="fp16")
    export.add_argument("--version", help="number or alias of another version, such as 2 or best")
    export.add_argument(
        "--keep-in",
        metavar="NAME",
        help="keep it in this folder of another program, up to date if the version is an alias",
    )
    export.add_argument("--stop", action="store_true", help="remove it from that folder")
    export.add_argument("-o", "--output", type=Path, metavar="PATH", help="file or folder")
    bring_in = commands.add("import", "Import LoRA files.", module="imports")
    bring_in.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")
    bring_in.add_argument(
        "--allow-loss",
        action="store_true",
        help="import a file even if more than a tenth of its change is lost",
    )
    add_actions(commands.add("datasets", "List, show, export and import datasets."))
    _add_caption_models(commands)
    _add_sweep(commands)
    verify = commands.add("verify", "Check the stored files, and list damaged and missing ones.")
    verify.add_argument(
        "--full", action="store_true", help="also read every file of a bucket, not only its size"
    )
    backup = commands.add("backup", "Write the database and files to an archive.")
    backup.add_argument("archive", nargs="?", type=Path, help="(brushwork-DATE.tar)")
    restore = commands.add("restore", "Restore an archive to an empty data folder.")
    restore.add_argument("archive", type=Path)
    restore.add_argument(
        "--strict", action="store_true", help="restore nothing if a file is damaged or missing"
    )


def _add_caption_models(commands: CommandParsers) -> None:
    models = commands.add(
        "caption-models",
        "List, add and remove models that caption images.",
        module="caption_models",
    )
    actions = models.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="List the caption models.")
    listing.add_argument("--json", action="store_true", help="print JSON, for other programs")
    adding = actions.add_parser("add", help="Add one, or check one again, and wait for it.")
    adding.add_argument("source", help="a folder, or owner/name on the Hugging Face Hub")
    removing = actions.add_parser("remove", help="Remove one, with its downloaded files.")
    removing.add_argument("model", help="which one; `brushwork caption-models list` lists them")
    for action in (listing, adding, removing):
        add_data_dir(action)


def _add_sweep(commands: CommandParsers) -> None:
    sweep = commands.add("sweep", "Move files that are no longer used to the trash.")
    sweep.add_argument("--dry-run", action="store_true", help="only show what would be done")
    instead = sweep.add_mutually_exclusive_group()
    instead.add_argument(
        "--adopt",
        action="store_true",
        help="make the files those of this database, whichever they belonged to, and sweep",
    )
    instead.add_argument(
        "--restore", action="store_true", help="bring back everything in the trash"
    )
    instead.add_argument(
        "--empty-trash", action="store_true", help="delete everything in the trash for good"
    )


def settings_from(arguments: Namespace) -> Settings:
    """Settings from flags, then the environment, `.env` and defaults."""
    from app.registry.config import Settings  # pydantic, as in main

    flags = {name: getattr(arguments, name, None) for name in SETTING_FLAGS}
    return Settings(**{name: value for name, value in flags.items() if value is not None})


def actor_of(arguments: Namespace) -> str:
    """The name under which this process writes events."""
    if arguments.module == "worker":
        return f"worker:{arguments.queue}"
    if arguments.module == "web":
        return "web"
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"cli:{os.getuid()}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    arguments = build_parser().parse_args(argv)
    from pydantic import ValidationError  # after the parser, so that --help is quick

    try:
        settings = settings_from(arguments)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]).upper()
            print(f"BRUSHWORK_{name}: {problem['msg']}.", file=sys.stderr)
        return 2
    set_process_actor(actor_of(arguments))
    gc.disable()  # an import makes no garbage, and looking for it takes a fifth of the time
    command = import_module(f"app.cli.{arguments.module}")
    gc.enable()
    if is_private(arguments):
        os.umask(PRIVATE_UMASK)  # inherited by child processes
    try:
        code: int = command.run(arguments, settings)
    except Exception as error:
        known = error_for_users(error)
        if known is None:
            raise
        print(known.detail, file=sys.stderr, flush=True)
        return 2 if isinstance(known, UnusableDatabase) else 1
    return code


def is_private(arguments: Namespace) -> bool:
    """True if only the user who runs this command may read the files that it makes."""
    action = arguments.command, getattr(arguments, "action", None)
    if arguments.command in OUTPUT_COMMANDS or action in OUTPUT_ACTIONS:
        return False
    return arguments.module not in OUTPUT_MODULES


def error_for_users(error: Exception) -> AppError | None:
    """An error with a sentence for users, such as an outage; None if it is a mistake of ours."""
    if isinstance(error, AppError):
        return error
    from app.registry.outages import outage  # the supervisor does without SQLAlchemy

    return outage(error)
