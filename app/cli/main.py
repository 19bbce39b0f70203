"""The `brushwork` command: reads flags and settings, then runs one module of `app.cli`."""

from __future__ import annotations

import gc
import getpass
import os
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.adapter_files.arguments import TOOLS, tool_parser
from app.cli.arguments import JSON, Command, actions, argument, flag, one_of
from app.cli.datasets.arguments import ACTIONS as DATASET_ACTIONS
from app.registry.actor import Role, set_process_actor
from app.registry.errors import AppError, UnusableDatabase
from app.registry.job_kinds.states import Queue
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
HOST = argument("--host", help="address to listen on (127.0.0.1)")
PORT = argument("--port", type=int, help="port to listen on (8188; 0: a free one)")
NAME = argument("name", help="who; `brushwork users list` shows all names")
USER_ACTIONS = {
    "list": Command("List the people."),
    "invite": Command(
        "Add a person, and print the link with which they choose a password.",
        argument("name", help="what they are called"),
        argument("--role", type=Role, choices=[*Role], default=Role.MEMBER, help="(member)"),
    ),
    "rename": Command("Change a name.", NAME, argument("new", help="the new name")),
    "role": Command("Change what a person may do.", NAME, argument("role", choices=values(Role))),
    "quota": Command(
        "Show and set the quotas of a person; 0: no limit, `default`: that of the settings.",
        NAME,
        argument("--disk", dest="disk_bytes", metavar="SIZE", help="such as 50GB"),
        argument("--device-hours", dest="device_minutes", metavar="HOURS", help="in 30 days"),
        argument("--waiting", dest="waiting_jobs", metavar="JOBS", help="runs and renders"),
    ),
    "reset": Command("Print a new link for a person, to choose another password.", NAME),
    "disable": Command("End the sessions and tokens of a person, who cannot log in.", NAME),
    "enable": Command("Let a disabled person log in again.", NAME),
    "transfer": Command(
        "Give all things of a person to another.", NAME, argument("to", help="who gets them")
    ),
    "leave": Command(
        "End all accounts: everything is one person's, and visible to all.",
        flag("--yes", "do it; without, only say what would become visible"),
    ),
}


class CommandParser(ArgumentParser):
    """Parser of a command; a shortened flag is refused, or it could be read as another one.

    With `forwards`, all arguments, even `--help`, are passed on to another program as `words`. With
    `tools`, the arguments are parsed by the tool that the first one names.
    """

    def __init__(
        self, *, forwards: bool = False, tools: Collection[str] = (), **settings: Any
    ) -> None:
        super().__init__(**settings, add_help=not forwards, allow_abbrev=False)
        self._forwards = forwards
        self._tools = tools

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


COMMANDS = {
    "serve": Command(
        "Start everything on this machine: broker, web server and workers.",
        HOST,
        PORT,
        argument(
            "--no-browser",
            dest="open_browser",
            action="store_const",
            const=False,
            help="do not open a browser",
        ),
    ),
    "web": Command(
        "Start only the web server.",
        HOST,
        PORT,
        argument("--fd", type=int, help="a listening socket inherited from a supervisor"),
        argument("--after-fd", type=int, help="an inherited pipe; wait until it is closed"),
    ),
    "worker": Command(
        "Start one worker.",
        argument("--queue", choices=values(Queue), required=True, help="what it works on"),
        argument(
            "--libraries",
            metavar="SOCKET",
            help="a supervisor's process that forks trainers and io jobs",
        ),
    ),
    "migrate": Command(
        "Bring the database up to date.",
        flag("--before-serve", "fail if accounts are off while people have some"),
    ),
    "doctor": Command(
        "Show the effective settings and check what they name.",
        argument("--queue", choices=values(Queue), help="only: is a worker of this queue here?"),
    ),
    "train": Command("Train an adapter from a folder of images, without a server.", forwards=True),
    "evaluate": Command("Say which checkpoint of a training on a folder to keep.", forwards=True),
    "name": Command("Name what images show.", forwards=True),
    "demo": Command(
        "Run the whole workflow through the REST API and judge the result.",
        argument(
            "--out",
            type=Path,
            default=Path("demo"),
            metavar="FOLDER",
            help="folder for the results (demo)",
        ),
        argument(
            "--style",
            action="append",
            choices=EXAMPLES,
            help="an example style to train, repeatable (chalkboard)",
        ),
        argument(
            "--preset",
            default="quick",
            metavar="PRESET",
            help="quick, balanced or thorough training (quick)",
        ),
    ),
    "adapters": Command(
        "List the adapters, or work on LoRA files.",
        argument("words", nargs="?", help="only adapters with these words"),
        tools=TOOLS,
        formatter_class=RawDescriptionHelpFormatter,
        epilog="tools for files, without the registry (`brushwork adapters TOOL --help`):\n"
        + "\n".join(f"  {name:<10} {tool.about}" for name, tool in TOOLS.items()),
    ),
    "export": Command(
        "Write an adapter as a file.",
        argument("slug", help="which one; `brushwork adapters` lists them"),
        argument("--format", choices=values(FileFormat), default="kohya"),
        argument("--dtype", choices=values(WeightDtype), default="fp16"),
        argument("--version", help="number or alias of another version, such as 2 or best"),
        argument(
            "--keep-in",
            metavar="NAME",
            help="keep it in this folder of another program, up to date if the version is an alias",
        ),
        flag("--stop", "remove it from that folder"),
        argument("-o", "--output", type=Path, metavar="PATH", help="file or folder"),
    ),
    "import": Command(
        "Import LoRA files.",
        argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders"),
        flag("--allow-loss", "import a file even if more than a tenth of its change is lost"),
    ),
    "datasets": Command("List, show, export and import datasets.", actions(DATASET_ACTIONS)),
    "caption-models": Command(
        "List, add and remove models that caption images.",
        actions(
            {
                "list": Command("List the caption models.", JSON),
                "add": Command(
                    "Add one, or check one again, and wait for it.",
                    argument("source", help="a folder, or owner/name on the Hugging Face Hub"),
                ),
                "remove": Command(
                    "Remove one, with its downloaded files.",
                    argument("model", help="which one; `brushwork caption-models list` lists them"),
                ),
            }
        ),
    ),
    "users": Command("Invite people, and change their accounts.", actions(USER_ACTIONS)),
    "sweep": Command(
        "Move files that are no longer used to the trash.",
        flag("--dry-run", "only show what would be done"),
        one_of(
            flag(
                "--adopt",
                "make the files those of this database, whichever they belonged to, and sweep",
            ),
            flag("--restore", "bring back everything in the trash"),
            flag("--empty-trash", "delete everything in the trash for good"),
        ),
    ),
    "verify": Command(
        "Check the stored files, and list damaged and missing ones.",
        flag("--full", "also read every file of a bucket, not only its size"),
    ),
    "backup": Command(
        "Write the database and files to an archive.",
        argument("archive", nargs="?", type=Path, help="(brushwork-DATE.tar)"),
    ),
    "restore": Command(
        "Restore an archive to an empty data folder.",
        argument("archive", type=Path),
        flag("--strict", "restore nothing if a file is damaged or missing"),
    ),
}
MODULES = {
    "evaluate": "train",
    "name": "train",
    "export": "adapters",
    "import": "imports",
    "caption-models": "caption_models",
}
"""The modules of commands that have another name than theirs."""


def build_parser() -> ArgumentParser:
    """Build the parser of all commands; `module` is the one of `app.cli` that runs the command."""
    parser = ArgumentParser(
        "brushwork",
        description="Train, try and keep image-style LoRAs in the browser.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        dest="command",
        title="commands",
        metavar="COMMAND",
        required=True,
        parser_class=CommandParser,
    )
    for name, command in COMMANDS.items():
        command.add_to(commands, name, module=MODULES.get(name, name))
    return parser


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
